"""A payment application on the chip: DGIs come in by STORE DATA and go out as records.

CPS: EMV Card Personalization Specification 2.0. It plays personalization and reading, no
transaction: its transaction counter stays 0.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from typing import Final

from domain.card.apdu import SW
from station_agents.virtual.command import Command, StatusError, as_long_as
from station_agents.virtual.crypto import TwoKeyDes
from station_agents.virtual.financial_memory import (
    PERSONALIZED,
    SELECTABLE,
    DgisStored,
    PaymentMemory,
)

_LAST, _ENCRYPTION, _DGIS = 0x80, 0x60, 0x08  # P1 of STORE DATA (GPC 11.11.2.1)
_NONE, _SOME, _ALL = 0x00, 0x20, 0x60
_ROOM: Final = 16_384  # bytes of DGIs that an application holds
_KEYS, _KEY_CHECK_VALUES, _PIN_BLOCK, _PIN_COUNTER = 0x8000, 0x9000, 0x8010, 0x9010
_FCI, _OPTIONS = 0x9102, 0x9104
_SFIS: Final = range(1, 31)
_LONGEST_RECORD: Final = 255
_TRANSACTION_COUNTER, _PIN_TRIES = 0x9F36, 0x9F17


def tlv(tag: int, value: bytes) -> bytes:
    """A BER-TLV object with a tag of one or two bytes."""
    length = len(value)
    head = tag.to_bytes(2 if tag > 0xFF else 1, "big")
    if length < 0x80:
        return head + bytes((length,)) + value
    size = (length.bit_length() + 7) // 8
    return head + bytes((0x80 | size,)) + length.to_bytes(size, "big") + value


def find(data: bytes, wanted: int) -> bytes | None:
    """The value of the object `wanted` at the top level of `data`; None if it isn't there or
    `data` can't be read."""
    at = 0
    try:
        while at < len(data):
            size = 2 if data[at] & 0x1F == 0x1F else 1
            tag = int.from_bytes(data[at : at + size], "big")
            at += size
            length = data[at]
            at += 1
            if length > 0x80:
                more = length & 0x7F
                length = int.from_bytes(data[at : at + more], "big")
                at += more
            if tag == wanted:
                return data[at : at + length] if at + length <= len(data) else None
            at += length
    except IndexError:
        pass
    return None


def _split(data: bytes) -> tuple[dict[int, bytes], bytes]:
    """DGIs that are whole, and what is left of one that isn't (CPS: id, length in one byte or FF
    and two bytes, value)."""
    dgis: dict[int, bytes] = {}
    while True:
        head = 5 if data[2:3] == b"\xff" else 3
        if len(data) < head:
            return dgis, data
        length = int.from_bytes(data[3:5], "big") if head == 5 else data[2]
        if len(data) < head + length:
            return dgis, data
        dgis[int.from_bytes(data[:2], "big")] = data[head : head + length]
        data = data[head + length :]


def is_secret(dgi: int) -> bool:
    """Keys and PINs (CPS: 8xxx): always under the DEK, never read."""
    return dgi >> 12 == 0x8


class Incoming:
    """The STORE DATA commands of one session, until the last one.

    A DGI is stored with the command that brings its last byte; what a channel's end or a loss of
    power leaves incomplete is as if it never came, and a new session begins at block 0.
    """

    def __init__(self, aid: bytes) -> None:
        self.aid = aid
        self._block = 0
        self._rest = b""
        self._came: dict[int, bytes] = {}

    def store(
        self,
        command: Command,
        memory: PaymentMemory,
        decipher: Callable[[bytes], bytes],
        change: Callable[[DgisStored], None],
    ) -> None:
        """Take one block. A refused block changes nothing, here or in memory."""
        if memory.state != SELECTABLE:
            raise StatusError(SW.CONDITIONS_NOT_SATISFIED)
        encryption = command.p1 & _ENCRYPTION
        if command.p1 & ~(_LAST | _ENCRYPTION | _DGIS) or encryption not in (_NONE, _SOME, _ALL):
            raise StatusError(SW.WRONG_P1P2)
        if command.p2 != self._block:
            raise StatusError(SW.WRONG_P1P2)
        last = bool(command.p1 & _LAST)
        dgis, rest = _split(self._rest + command.data)
        if last and rest:
            raise StatusError(SW.WRONG_DATA)
        dgis = {dgi: _clear(dgi, data, encryption, decipher) for dgi, data in dgis.items()}
        if sum(map(len, {**memory.dgis, **dgis}.values())) + len(rest) > _ROOM:
            raise StatusError(SW.NO_ROOM_IN_FILE)
        came = {**self._came, **dgis}
        if not _keys_fit(came) or any(
            len(dgis[d]) > _LONGEST_RECORD for d in dgis if d >> 8 in _SFIS
        ):
            raise StatusError(SW.WRONG_DATA)
        if dgis or last:
            change(DgisStored(self.aid, dgis, last))
        self._rest, self._came = rest, came
        self._block = (self._block + 1) & 0xFF


def _clear(dgi: int, data: bytes, encryption: int, decipher: Callable[[bytes], bytes]) -> bytes:
    """The DGI as it is kept. `encryption` says which were enciphered: none, the secret ones, all.
    A secret one in clear is refused."""
    if encryption == _NONE and is_secret(dgi):
        raise StatusError(SW.WRONG_DATA)
    if encryption == _NONE or (encryption == _SOME and not is_secret(dgi)):
        return data
    try:
        plain = decipher(data)
    except ValueError:
        raise StatusError(SW.WRONG_DATA) from None
    # Blocks of AES are longer than a PIN block.
    return plain[:8] if dgi == _PIN_BLOCK else plain


def _keys_fit(dgis: Mapping[int, bytes]) -> bool:
    """Whether the keys of DGI 8000 have the check values of DGI 9000, as soon as both came (3DES
    keys of 16 bytes, check values of 3)."""
    keys, values = dgis.get(_KEYS), dgis.get(_KEY_CHECK_VALUES)
    if keys is not None and (not keys or len(keys) % 16):
        return False
    if keys is None or values is None:
        return True
    right = b"".join(
        TwoKeyDes(keys[at : at + 16]).encrypt(bytes(8))[:3] for at in range(0, len(keys), 16)
    )
    return hmac.compare_digest(right, values)


def control_information(aid: bytes, memory: PaymentMemory) -> bytes:
    """The answer to SELECT (EMV book 1, 11.3): DGI 9102 is the proprietary template."""
    stored = memory.dgis.get(_FCI, b"")
    template = stored if stored[:1] == b"\xa5" else tlv(0xA5, stored)
    return tlv(0x6F, tlv(0x84, aid) + template)


def _personalized(memory: PaymentMemory) -> Mapping[int, bytes]:
    if memory.state != PERSONALIZED:
        raise StatusError(SW.CONDITIONS_NOT_SATISFIED)
    return memory.dgis


def read_record(command: Command, memory: PaymentMemory) -> bytes:
    """READ RECORD (EMV book 3, 6.5.11): the DGI whose bytes are file and record number."""
    dgis = _personalized(memory)
    sfi = command.p2 >> 3
    if command.p2 & 0x07 != 0x04 or sfi not in _SFIS or not command.p1:
        raise StatusError(SW.WRONG_P1P2)
    if command.data or command.le is None:
        raise StatusError(SW.WRONG_LENGTH)
    record = dgis.get(sfi << 8 | command.p1)
    if record is None:
        known = any(dgi >> 8 == sfi for dgi in dgis)
        raise StatusError(SW.RECORD_NOT_FOUND if known else SW.FILE_NOT_FOUND)
    return as_long_as(command.le, record)


def processing_options(command: Command, memory: PaymentMemory) -> bytes:
    """GET PROCESSING OPTIONS (EMV book 3, 6.5.8): DGI 9104 holds AIP (82) and AFL (94)."""
    dgis = _personalized(memory)
    if command.p1 or command.p2:
        raise StatusError(SW.WRONG_P1P2)
    stored = dgis.get(_OPTIONS)
    if stored is None:
        raise StatusError(SW.CONDITIONS_NOT_SATISFIED)
    if command.data[:1] != b"\x83" or find(command.data, 0x83) != command.data[2:]:
        raise StatusError(SW.WRONG_DATA)
    return stored if stored[:1] in (b"\x77", b"\x80") else tlv(0x77, stored)


def get_data(command: Command, memory: PaymentMemory) -> bytes:
    """GET DATA (EMV book 3, 6.5.7): counters, and the card's risk data (DGIs 0Dxx and 0Exx)."""
    dgis = _personalized(memory)
    if command.data:
        raise StatusError(SW.WRONG_LENGTH)
    tag = command.p1 << 8 | command.p2
    value: bytes | None = None
    if tag == _TRANSACTION_COUNTER:
        value = bytes(2)
    elif tag == _PIN_TRIES:
        value = dgis.get(_PIN_COUNTER, b"")[:1] or None
    else:
        internal = (data for dgi, data in dgis.items() if dgi >> 8 in (0x0D, 0x0E))
        value = next((v for v in (find(data, tag) for data in internal) if v is not None), None)
    if value is None:
        raise StatusError(SW.KEY_NOT_FOUND)
    return as_long_as(command.le or 0, tlv(tag, value))
