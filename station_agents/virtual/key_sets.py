"""PUT KEY as the card reads it: three keys in a set, their check values (GPC 11.8)."""

from __future__ import annotations

import hmac
from typing import Final

from Crypto.Cipher import AES as Aes

from domain.card.apdu import SW
from station_agents.virtual.channel import AES_BLOCK, Channel
from station_agents.virtual.command import Command, StatusError
from station_agents.virtual.crypto import CHECK_VALUE_LENGTH, TwoKeyDes
from station_agents.virtual.financial_memory import (
    AES,
    DES,
    INITIAL_VERSION,
    FinancialMemory,
    KeySet,
    KeySetWritten,
)

_THREE_FROM_ENC: Final = 0x81  # P2: several keys, the first has identifier 1
_LENGTHS: Final = {DES: (16,), AES: (16, 24, 32)}
_ROOM: Final = 8  # key sets that the card holds


def check_value(key_type: int, key: bytes) -> bytes:
    """The first 3 bytes of a block enciphered: of 00 for DES, of 01 for AES (GPC B.6)."""
    if key_type == DES:
        return TwoKeyDes(key).encrypt(bytes(TwoKeyDes.block))[:CHECK_VALUE_LENGTH]
    return Aes.new(key, Aes.MODE_ECB).encrypt(b"\x01" * AES_BLOCK)[:CHECK_VALUE_LENGTH]


def _key(key_type: int, block: bytes, channel: Channel) -> bytes:
    """A key out of its block (GPC 11.8.2.3.1): where this isn't whole blocks, the key's length in
    clear stands first and the key was padded."""
    length = len(block)
    if length % channel.DEK_BLOCK:
        length, block = block[0], block[1:]
    try:
        key = channel.decipher(block)[:length]
    except ValueError:
        raise StatusError(SW.WRONG_DATA) from None
    if len(key) != length or length not in _LENGTHS[key_type]:
        raise StatusError(SW.WRONG_DATA)
    return key


def _fields(data: bytes) -> list[tuple[int, bytes, bytes]]:
    """(type, key block, check value) of each key; StatusError on anything else."""
    fields = []
    while data:
        if len(data) < 2 or len(data) < 3 + data[1] or data[0] not in _LENGTHS:
            raise StatusError(SW.WRONG_DATA)
        end = 2 + data[1]
        stop = end + 1 + data[end]
        block, value = data[2:end], data[end + 1 : stop]
        if not block or len(data) < stop or len(value) not in (0, CHECK_VALUE_LENGTH):
            raise StatusError(SW.WRONG_DATA)
        fields.append((data[0], block, value))
        data = data[stop:]
    return fields


def put_key(command: Command, channel: Channel, memory: FinancialMemory) -> KeySetWritten:
    """The change that PUT KEY asks for: all three keys at once, their check values right.

    P1 00 adds a set, or takes the place of the maker's (version FF); another P1 is the version
    that is replaced.
    """
    if command.p2 != _THREE_FROM_ENC or command.p1 > 0x7F:
        raise StatusError(SW.WRONG_P1P2)
    if not command.data:
        raise StatusError(SW.WRONG_LENGTH)
    version, fields = command.data[0], _fields(command.data[1:])
    if not 1 <= version <= 0x7F or len(fields) != 3 or len({t for t, _, _ in fields}) != 1:
        raise StatusError(SW.WRONG_DATA)
    if command.p1 and memory.key_set(command.p1) is None:
        raise StatusError(SW.KEY_NOT_FOUND)
    replaced = command.p1 or INITIAL_VERSION
    if memory.key_set(replaced) is None and len(memory.key_sets) >= _ROOM:
        raise StatusError(SW.NO_ROOM_IN_FILE)
    if command.p1 != version and memory.key_set(version) is not None:
        raise StatusError(SW.WRONG_DATA)
    enc, mac, dek = (_key(key_type, block, channel) for key_type, block, _ in fields)
    if len({len(enc), len(mac), len(dek)}) != 1:
        raise StatusError(SW.WRONG_DATA)
    for key, (key_type, _, value) in zip((enc, mac, dek), fields, strict=True):
        if value and not hmac.compare_digest(check_value(key_type, key), value):
            raise StatusError(SW.WRONG_DATA)
    return KeySetWritten(replaced, KeySet(version, fields[0][0], (enc, mac, dek)))


def check_values(keys: KeySet) -> bytes:
    """The answer to PUT KEY: the new version, then the check value of each key."""
    values = b"".join(check_value(keys.type, key) for key in keys.keys)
    return bytes((keys.version,)) + values
