"""What travels in a secure channel when a bank's application is personalized: PUT KEY (GPC 11.8)
and STORE DATA (GPC 11.11), GPC being the GlobalPlatform Card Specification 2.3.1."""

from __future__ import annotations

import hmac
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from actors.hsm.scp02 import Scp02
from actors.hsm.scp03 import Scp03
from actors.hsm.secure_channel import (
    CardKeys,
    ChannelError,
    SecureChannel,
    parse_opening,
    split_response,
)
from actors.hsm.suites import AES, CHECK_VALUE, TRIPLE_DES
from domain.card.apdu import Command
from domain.codes import Code

ROOM = 239
"""Bytes of data that fit into one command with MAC and encipherment (15 blocks less padding)."""

_PUT_KEY, _STORE_DATA = 0xD8, 0xE2
_KEY_TYPES = {TRIPLE_DES.name: 0x80, AES.name: 0x88}
_THREE_KEYS_FROM_1 = 0x81
_LAST, _ENCIPHERED, _DGIS = 0x80, 0x60, 0x08


def open_channel(
    keys: CardKeys, host_challenge: bytes, initialize_update: bytes, level: int
) -> SecureChannel:
    """The channel that a chip opened with its answer to INITIALIZE UPDATE (without status word).
    Raises ChannelError(CARD_CRYPTOGRAM), or ValueError for what is no such answer."""
    opening = parse_opening(initialize_update)
    protocol = Scp02 if opening.protocol == 2 else Scp03
    return protocol(keys, host_challenge, opening, level)


def put_key(
    channel: SecureChannel, replace_version: int, new_version: int, keys: CardKeys
) -> bytes:
    """The plain PUT KEY that gives the chip its three keys as `new_version`, in the place of
    `replace_version` (0: beside what it has). ValueError for a version that cannot be one."""
    if not 0 <= replace_version <= 0x7F or not 0x01 <= new_version <= 0x7F:
        raise ValueError("key versions are 01 to 7F")
    data = bytes((new_version,)) + b"".join(_key_data(channel, key) for key in keys)
    return bytes(Command(0x80, _PUT_KEY, replace_version, _THREE_KEYS_FROM_1, data, le=0))


def check_values(channel: SecureChannel, keys: CardKeys) -> list[bytes]:
    """The check values of the three keys, 3 bytes each."""
    return [channel.suite.check_value(key) for key in keys]


def check_put_key(
    channel: SecureChannel, new_version: int, keys: CardKeys, response: bytes
) -> None:
    """Compare what the chip answers to PUT KEY (GPC 11.8.3.1: version ‖ check values). Raises
    ChannelError(CARD_CHECK_VALUE) if it holds other keys, or does not tell."""
    data, _ = split_response(response)
    wanted = bytes((new_version,)) + b"".join(check_values(channel, keys))
    if not hmac.compare_digest(data, wanted):
        raise ChannelError(Code.CARD_CHECK_VALUE)


def _key_data(channel: SecureChannel, key: bytes) -> bytes:
    """GPC 11.8.2.3, basic format: type, key component block, check value. The block holds the
    enciphered key, and its length before it only if it had to be padded (tables 11-70, 11-71)."""
    suite = channel.suite
    if len(key) % suite.block:
        block = bytes((len(key),)) + channel.encipher_secret(suite.pad(key))
    else:
        block = channel.encipher_secret(key)
    value = suite.check_value(key)
    return bytes((_KEY_TYPES[suite.name], len(block))) + block + bytes((CHECK_VALUE,)) + value


@dataclass(frozen=True)
class Dgi:
    """One data grouping (EMV CPS 1.1, 2.3). `secret`: its value is enciphered for the chip."""

    number: int
    value: bytes = field(repr=False)
    secret: bool = False


def store_data(channel: SecureChannel, dgis: Sequence[Dgi], room: int = ROOM) -> list[bytes]:
    """The plain STORE DATA commands that carry `dgis` in their order. As many whole DGIs as fit
    go into one command of `room` bytes; one that is longer is split. Secret ones stand in commands
    of their own, enciphered and padded to whole blocks. ValueError for more than 256 commands."""
    parts: list[tuple[bool, bytes]] = []
    for secret, group in groupby(dgis, lambda dgi: dgi.secret):
        coded = [_coded(channel, dgi) for dgi in group]
        parts.extend((secret, part) for part in _packed(coded, room))
    if len(parts) > 256:
        raise ValueError("STORE DATA counts up to 256 commands")
    return [
        bytes(
            Command(
                0x80,
                _STORE_DATA,
                _DGIS | (_ENCIPHERED if secret else 0) | (_LAST if at == len(parts) - 1 else 0),
                at,
                part,
            )
        )
        for at, (secret, part) in enumerate(parts)
    ]


def _coded(channel: SecureChannel, dgi: Dgi) -> bytes:
    """DGI (2 bytes) ‖ length (1 byte, or FF and 2) ‖ value."""
    value = dgi.value
    if dgi.secret:
        whole = len(value) % channel.suite.block == 0
        value = channel.encipher_secret(value if whole else channel.suite.pad(value))
    length = bytes((len(value),)) if len(value) < 0xFF else b"\xff" + len(value).to_bytes(2, "big")
    return dgi.number.to_bytes(2, "big") + length + value


def _packed(coded: Sequence[bytes], room: int) -> Iterator[bytes]:
    part = b""
    for one in coded:
        if part and len(part) + len(one) > room:
            yield part
            part = b""
        part += one
        while len(part) > room:
            yield part[:room]
            part = part[room:]
    if part:
        yield part
