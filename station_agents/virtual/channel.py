"""The card's side of GlobalPlatform's secure channels: SCP02 (i=15) and SCP03 (i=70).

GPC: GlobalPlatform Card Specification 2.3.1, annex E. Amendment D: Secure Channel Protocol 03,
version 1.1.2. On pycryptodome; shares nothing with the centre.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Final, Protocol

from Crypto.Cipher import AES
from Crypto.Hash import CMAC

from domain.card.apdu import SW
from station_agents.virtual.command import Command
from station_agents.virtual.crypto import TwoKeyDes, pad

DES_BLOCK: Final = TwoKeyDes.block
AES_BLOCK: Final = 16
MAC: Final = 8

C_MAC, C_DECRYPTION, R_MAC, R_ENCRYPTION = 0x01, 0x02, 0x10, 0x20
"""Bits of the security level, P1 of EXTERNAL AUTHENTICATE (GPC E.5.2.3; Amendment D 7.1.2.1)."""

_OK: Final = SW.OK.to_bytes(2, "big")

Keys = tuple[bytes, bytes, bytes]
"""Static card keys: ENC, MAC, DEK."""


class ProtectionError(Exception):
    """A command's MAC, encryption or padding is wrong. The channel must end."""


class Channel(Protocol):
    """A channel from INITIALIZE UPDATE on. `level` is 0 until `authenticate` has opened it."""

    LEVELS: tuple[int, ...]
    DEK_BLOCK: int
    """Bytes of a block of `decipher`."""
    level: int
    opening: bytes
    """What INITIALIZE UPDATE answers after diversification data and key version."""

    def is_host(self, cryptogram: bytes) -> bool:
        """Whether the host that sent these 8 bytes has the keys."""
        ...

    def authenticate(self, command: Command) -> None:
        """Open the channel at the level in P1. ProtectionError if the MAC is wrong."""
        ...

    def unwrap(self, command: Command) -> bytes:
        """The data of a protected command in clear, without MAC. Raises ProtectionError."""
        ...

    def wrap(self, data: bytes) -> bytes:
        """The data of the answer to the command unwrapped last, as it leaves before 9000. An
        error is answered without protection (Amendment D 6.2.5)."""
        ...

    def decipher(self, data: bytes) -> bytes:
        """Sensitive data (keys, secret DGIs) under the DEK; whole blocks, else ValueError."""
        ...


def _unpad(data: bytes) -> bytes:
    """Without 80 00… at the end, or ProtectionError."""
    bare = data.rstrip(b"\0")
    if not bare.endswith(b"\x80"):
        raise ProtectionError
    return bare[:-1]


def _des_cbc(cipher: TwoKeyDes, data: bytes) -> bytes:
    """CBC with a zero IV, block by block."""
    chain, out = bytes(DES_BLOCK), []
    for at in range(0, len(data), DES_BLOCK):
        chain = cipher.encrypt(bytes(a ^ b for a, b in zip(chain, data[at:], strict=False)))
        out.append(chain)
    return b"".join(out)


def _des_cbc_open(cipher: TwoKeyDes, data: bytes) -> bytes:
    chained = bytes(DES_BLOCK) + data[:-DES_BLOCK]
    return bytes(a ^ b for a, b in zip(cipher.decrypt(data), chained, strict=True))


class Scp02:
    """SCP02 with i=15: three keys, explicit initiation, C-MAC over the modified APDU with
    enciphered ICV, random card challenge (GPC E)."""

    LEVELS: tuple[int, ...] = (0x01, 0x03)
    DEK_BLOCK = DES_BLOCK

    def __init__(self, keys: Keys, counter: int, host: bytes, random: Callable[[int], bytes]):
        sequence = counter.to_bytes(2, "big")
        enc, mac, dek = keys
        self._enc = self._session(enc, 0x0182, sequence)
        self._mac = self._session(mac, 0x0101, sequence)
        self._dek = self._session(dek, 0x0181, sequence)
        # The ICV is enciphered by single DES under the first half of the MAC key (E.3.4).
        left = _des_cbc(TwoKeyDes(mac), bytes((1, 1)) + sequence + bytes(12))[:DES_BLOCK]
        self._icv_key = TwoKeyDes(left + left)
        self._icv = bytes(DES_BLOCK)
        challenge = sequence + random(6)
        self._host_cryptogram = self._full_mac(challenge + host)
        self.opening = b"\x02" + challenge + self._full_mac(host + challenge)
        self.level = 0

    @staticmethod
    def _session(key: bytes, constant: int, sequence: bytes) -> TwoKeyDes:
        """GPC E.4.1: constant ‖ sequence counter ‖ 00… in CBC under the static key."""
        data = constant.to_bytes(2, "big") + sequence + bytes(12)
        return TwoKeyDes(_des_cbc(TwoKeyDes(key), data))

    def _full_mac(self, data: bytes) -> bytes:
        """Authentication cryptograms: full triple DES MAC under S-ENC (GPC E.4.2, B.1.2.1)."""
        return _des_cbc(self._enc, pad(data, DES_BLOCK))[-DES_BLOCK:]

    def is_host(self, cryptogram: bytes) -> bool:
        return hmac.compare_digest(cryptogram, self._host_cryptogram)

    def _check(self, command: Command, data: bytes, mac: bytes) -> None:
        """GPC E.4.4. `data` in clear; Lc counts it and the MAC."""
        header = bytes((command.cla, command.ins, command.p1, command.p2, len(data) + MAC & 0xFF))
        right = self._mac.mac(self._icv, header + data)
        if not hmac.compare_digest(right, mac):
            raise ProtectionError
        self._icv = self._icv_key.encrypt(right)

    def authenticate(self, command: Command) -> None:
        self._check(command, command.data[:-MAC], command.data[-MAC:])
        self.level = command.p1

    def unwrap(self, command: Command) -> bytes:
        data, mac = command.data[:-MAC], command.data[-MAC:]
        if self.level & C_DECRYPTION and data:  # GPC E.4.6: a command without data stays as it is
            if len(data) % DES_BLOCK:
                raise ProtectionError
            data = _unpad(_des_cbc_open(self._enc, data))
        self._check(command, data, mac)
        return data

    def wrap(self, data: bytes) -> bytes:
        return data

    def decipher(self, data: bytes) -> bytes:
        """GPC E.4.7: ECB under the session's DEK."""
        return self._dek.decrypt(data)


def _derive(key: bytes, constant: int, bits: int, context: bytes) -> bytes:
    """Amendment D 4.1.5: NIST SP 800-108 in counter mode, AES-CMAC as its function."""
    blocks = b"".join(
        CMAC.new(
            key,
            bytes(11) + bytes((constant, 0)) + bits.to_bytes(2, "big") + bytes((n,)) + context,
            ciphermod=AES,
        ).digest()
        for n in range(1, -(-bits // 128) + 1)
    )
    return blocks[: bits // 8]


class Scp03:
    """SCP03 with i=70: pseudo-random card challenge, R-MAC and R-ENCRYPTION, 8-byte MACs."""

    LEVELS: tuple[int, ...] = (0x01, 0x03, 0x11, 0x13, 0x33)
    DEK_BLOCK = AES_BLOCK

    def __init__(self, keys: Keys, counter: int, host: bytes, aid: bytes):
        """`counter` is this session's, already counted up; `aid` that of the application which
        speaks on the channel."""
        enc, mac, self._dek = keys
        sequence = counter.to_bytes(3, "big")
        challenge = _derive(enc, 0x02, 64, sequence + aid)  # Amendment D 6.2.2.1
        context, bits = host + challenge, 8 * len(enc)
        self._enc = _derive(enc, 0x04, bits, context)
        self._mac = _derive(mac, 0x06, bits, context)
        self._rmac = _derive(mac, 0x07, bits, context)
        self._chain = bytes(AES_BLOCK)
        self._commands = 0
        self._host_cryptogram = _derive(self._mac, 0x01, 64, context)
        cryptogram = _derive(self._mac, 0x00, 64, context)
        self.opening = b"\x03\x70" + challenge + cryptogram + sequence
        self.level = 0

    def is_host(self, cryptogram: bytes) -> bool:
        return hmac.compare_digest(cryptogram, self._host_cryptogram)

    def _check(self, command: Command) -> None:
        """Amendment D 6.2.4: the MAC chains over the command as it came."""
        data, mac = command.data[:-MAC], command.data[-MAC:]
        header = bytes((command.cla, command.ins, command.p1, command.p2, len(command.data)))
        chain = CMAC.new(self._mac, self._chain + header + data, ciphermod=AES).digest()
        if not hmac.compare_digest(chain[:MAC], mac):
            raise ProtectionError
        self._chain = chain

    def authenticate(self, command: Command) -> None:
        self._check(command)
        self.level = command.p1

    def _iv(self, direction: int) -> bytes:
        """Amendment D 6.2.6 and 6.2.7: the count of commands enciphered, its first byte 80 for
        an answer."""
        count = bytes((direction,)) + self._commands.to_bytes(15, "big")
        return AES.new(self._enc, AES.MODE_ECB).encrypt(count)

    def unwrap(self, command: Command) -> bytes:
        self._check(command)
        data = command.data[:-MAC]
        self._commands += 1  # also for a command without data
        if not self.level & C_DECRYPTION or not data:
            return data
        if len(data) % AES_BLOCK:
            raise ProtectionError
        return _unpad(AES.new(self._enc, AES.MODE_CBC, self._iv(0x00)).decrypt(data))

    def wrap(self, data: bytes) -> bytes:
        if not self.level & R_MAC:
            return data
        if self.level & R_ENCRYPTION and data:
            cipher = AES.new(self._enc, AES.MODE_CBC, self._iv(0x80))
            data = cipher.encrypt(pad(data, AES_BLOCK))
        answer = self._chain + data + _OK
        return data + CMAC.new(self._rmac, answer, ciphermod=AES).digest()[:MAC]

    def decipher(self, data: bytes) -> bytes:
        """Amendment D 6.2.8: CBC with a zero IV under the static DEK."""
        return AES.new(self._dek, AES.MODE_CBC, bytes(AES_BLOCK)).decrypt(data)
