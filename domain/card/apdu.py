"""Command and response APDUs of ISO/IEC 7816-4, as far as the centre sends them (short form)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum


class SW(IntEnum):
    """Status words (ISO/IEC 7816-4, table 6; LD/T 32-2015 part 5)."""

    OK = 0x9000
    SELECTED_FILE_INVALIDATED = 0x6283
    AUTHENTICATION_FAILED = 0x6300
    MEMORY_FAILURE = 0x6581
    WRONG_LENGTH = 0x6700
    SECURE_MESSAGING_UNSUPPORTED = 0x6882
    FILE_OF_ANOTHER_KIND = 0x6981
    SECURITY_STATUS_NOT_SATISFIED = 0x6982
    AUTHENTICATION_BLOCKED = 0x6983
    CHALLENGE_MISSING = 0x6984
    CONDITIONS_NOT_SATISFIED = 0x6985
    NO_FILE_SELECTED = 0x6986
    SECURE_MESSAGING_OBJECT_MISSING = 0x6987
    SECURE_MESSAGING_OBJECT_WRONG = 0x6988
    WRONG_DATA = 0x6A80
    CARD_BLOCKED = 0x6A81
    FILE_NOT_FOUND = 0x6A82
    RECORD_NOT_FOUND = 0x6A83
    NO_ROOM_IN_FILE = 0x6A84
    WRONG_P1P2 = 0x6A86
    KEY_NOT_FOUND = 0x6A88
    WRONG_OFFSET = 0x6B00
    INS_UNKNOWN = 0x6D00
    CLA_UNKNOWN = 0x6E00
    NO_DIAGNOSIS = 0x6F00
    APPLICATION_BLOCKED = 0x9303


def matches(status_word: int, pattern: str) -> bool:
    """Whether `status_word` fits `pattern`: four hex digits, where `x` stands for any digit."""
    return len(pattern) == 4 and all(
        p in "xX" or p.upper() == s for p, s in zip(pattern, f"{status_word:04X}", strict=True)
    )


def is_expected(status_word: int, patterns: Sequence[str]) -> bool:
    """Whether `status_word` fits one of `patterns`; nearly always it stands there as it is."""
    if status_word == SW.OK and "9000" in patterns:
        return True
    return f"{status_word:04X}" in patterns or any(matches(status_word, p) for p in patterns)


@dataclass(frozen=True)
class Command:
    """A short command APDU. `le` is the expected length, 0 for "all there is", None for none."""

    cla: int
    ins: int
    p1: int
    p2: int
    data: bytes = b""
    le: int | None = None

    def __bytes__(self) -> bytes:
        if len(self.data) > 255:
            raise ValueError(f"a short APDU carries at most 255 bytes, not {len(self.data)}")
        out = bytes((self.cla, self.ins, self.p1, self.p2))
        if self.data:
            out += bytes((len(self.data),)) + self.data
        if self.le is not None:
            out += bytes((self.le & 0xFF,))
        return out


def parse(apdu: bytes) -> Command:
    """The inverse of `bytes(command)`. Raises ValueError on anything but a short APDU."""
    if len(apdu) < 4:
        raise ValueError(f"an APDU has at least 4 bytes, not {len(apdu)}")
    head, rest = apdu[:4], apdu[4:]
    cla, ins, p1, p2 = head
    if not rest:
        return Command(cla, ins, p1, p2)
    if len(rest) == 1:
        return Command(cla, ins, p1, p2, le=rest[0])
    lc = rest[0]
    if lc == 0 or len(rest) not in (lc + 1, lc + 2):
        raise ValueError("Lc does not fit the length of the APDU")
    le = rest[lc + 1] if len(rest) == lc + 2 else None
    return Command(cla, ins, p1, p2, rest[1 : lc + 1], le)


def select_application(aid: bytes) -> Command:
    """SELECT by name (ISO/IEC 7816-4, 11.2.2)."""
    return Command(0x00, 0xA4, 0x04, 0x00, aid)


def read_record(tag: int, sfi: int, length: int) -> Command:
    """READ RECORD of the record whose identifier is `tag` (LD/T 32-2015 part 5): P1 = tag,
    P2 = short file identifier in the upper five bits and 100 below, Le = tag, length and value."""
    return Command(0x00, 0xB2, tag, (sfi << 3) | 0x04, le=length + 2)


def get_challenge(length: int = 8) -> Command:
    """GET CHALLENGE (LD/T 32-2015 part 5): one challenge serves one command."""
    return Command(0x00, 0x84, 0x00, 0x00, le=length)


def external_authenticate(key_id: int, cryptogram: bytes) -> Command:
    """EXTERNAL AUTHENTICATE with the enciphered challenge of the card."""
    return Command(0x00, 0x82, 0x00, key_id, cryptogram)


def internal_authenticate(key_id: int, random: bytes) -> Command:
    """INTERNAL AUTHENTICATE: the card enciphers `random` under the key."""
    return Command(0x00, 0x88, 0x00, key_id, random, le=len(random))


def select_file(fid: int) -> Command:
    """SELECT by file identifier (ISO/IEC 7816-4, 11.2.2): a DF of the environment, or a file of
    the current DF."""
    return Command(0x00, 0xA4, 0x00, 0x00, fid.to_bytes(2, "big"))


def get_key_information() -> Command:
    """GET DATA of the key information template (tag E0; GlobalPlatform Card Specification 2.3,
    11.3.3.1). That the social application answers it is a property of the card profile."""
    return Command(0x80, 0xCA, 0x00, 0xE0, le=0)


def initialize_update(key_version: int, host_challenge: bytes) -> Command:
    """INITIALIZE UPDATE of a secure channel (GlobalPlatform Card Specification 2.3.1, E.5.1):
    `key_version` 0 is the first key set, `host_challenge` has 8 bytes."""
    return Command(0x80, 0x50, key_version, 0x00, host_challenge, le=0)


def get_life_cycle() -> Command:
    """GET DATA of the life cycle (tag 9F70, as GlobalPlatform names it; a property of the profile);
    the answer is 9F70 01 and one byte of `LifeCycle`."""
    return Command(0x80, 0xCA, 0x9F, 0x70, le=0)


def get_pin_tries() -> Command:
    """GET DATA of the PIN try counter (tag 9F17, as EMV names it); the answer is 9F17 01 and the
    tries left."""
    return Command(0x80, 0xCA, 0x9F, 0x17, le=0)


class LifeCycle(IntEnum):
    """What a chip says of itself (the values are this profile's own). BLANK: it has no keys.
    TEMPORARY_KEYS: at least one is the factory's. FORMAL_KEYS: none is. PERSONALIZED: and it bears
    a holder's data. BLOCKED: its application is."""

    BLANK = 0x01
    TEMPORARY_KEYS = 0x03
    FORMAL_KEYS = 0x07
    PERSONALIZED = 0x0F
    BLOCKED = 0x7F
