"""A bank's chip on pycryptodome, as far as a provider's channels need one: it answers INITIALIZE
UPDATE and takes PUT KEY apart. Shares no cryptography with the centre."""

from __future__ import annotations

from dataclasses import dataclass

from Crypto.Cipher import AES, DES3
from Crypto.Hash import CMAC

KEY_DATA = bytes.fromhex("00001122334455667788")
HOST = bytes.fromhex("A1B2C3D4E5F60718")
COUNTER = b"\x00\x2a"
CHALLENGE = bytes.fromhex("0102030405060708")
KEY_VERSION = 0x20

Keys = tuple[bytes, bytes, bytes]


def des3(key: bytes, data: bytes) -> bytes:
    return DES3.new(key, DES3.MODE_ECB).encrypt(data)


def des3_cbc(key: bytes, data: bytes) -> bytes:
    return DES3.new(key, DES3.MODE_CBC, bytes(8)).encrypt(data)


def emv_keys(kmc: bytes, key_data: bytes = KEY_DATA) -> Keys:
    """EMV CPS 1.1, 4.1, key by key."""
    last = key_data[-6:]
    enc, mac, dek = (
        des3(kmc, last + bytes((0xF0, i))) + des3(kmc, last + bytes((0x0F, i))) for i in (1, 2, 3)
    )
    return enc, mac, dek


def kdf3_keys(kmc: bytes, key_data: bytes = KEY_DATA) -> Keys:
    """CMAC in counter mode, key by key."""
    enc, mac, dek = (
        b"".join(CMAC.new(kmc, bytes((n, 0, 0, 0, i, 0)) + key_data, AES).digest() for n in (1, 2))[
            : len(kmc)
        ]
        for i in (1, 2, 3)
    )
    return enc, mac, dek


def scp02_session_key(key: bytes, constant: int) -> bytes:
    return des3_cbc(key, constant.to_bytes(2, "big") + COUNTER + bytes(12))


def scp02_answer(keys: Keys, host: bytes = HOST) -> bytes:
    """The answer to INITIALIZE UPDATE, without status word."""
    enc = scp02_session_key(keys[0], 0x0182)
    cryptogram = des3_cbc(enc, host + COUNTER + CHALLENGE[:6] + b"\x80" + bytes(7))[-8:]
    return KEY_DATA + bytes((KEY_VERSION, 2)) + COUNTER + CHALLENGE[:6] + cryptogram


def scp03_answer(keys: Keys, host: bytes = HOST) -> bytes:
    """The answer to INITIALIZE UPDATE, without status word."""
    context = host + CHALLENGE
    session = b"".join(
        CMAC.new(
            keys[1],
            bytes((*bytes(11), 6, 0))
            + (len(keys[1]) * 8).to_bytes(2, "big")
            + bytes((n,))
            + context,
            AES,
        ).digest()
        for n in (1, 2)
    )[: len(keys[1])]
    cryptogram = CMAC.new(session, bytes(11) + b"\x00\x00\x00\x40\x01" + context, AES).digest()
    parameter, counter = b"\x70", b"\x00\x00\x2a"
    head = KEY_DATA + bytes((KEY_VERSION, 3)) + parameter
    return head + CHALLENGE + cryptogram[:8] + counter


@dataclass(frozen=True)
class NewKeys:
    """What PUT KEY carried: version, keys, and the check values that were sent with them."""

    version: int
    keys: list[bytes]
    values: list[bytes]


def open_put_key(apdu: bytes, static: Keys, *, scp: int) -> NewKeys:
    """PUT KEY as sent with C-MAC only; its MAC is not looked at. Keys of whole blocks."""
    data = apdu[5 : 5 + apdu[4] - 8]
    keys, values, at = [], [], 1
    while at < len(data):
        length = data[at + 1]
        block = data[at + 2 : at + 2 + length]
        if scp == 2:
            session = scp02_session_key(static[2], 0x0181)
            keys.append(DES3.new(session, DES3.MODE_ECB).decrypt(block))
        else:
            keys.append(AES.new(static[2], AES.MODE_CBC, bytes(16)).decrypt(block))
        at += 2 + length
        values.append(data[at + 1 : at + 4])
        at += 4
    return NewKeys(data[0], keys, values)
