"""The chip's own cryptography: keys of two-key 3DES (on pycryptodome) and of SM4.

Shares nothing with the centre, so that a fault on one side cannot hide behind the same fault on
the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final, Protocol

from Crypto.Cipher import DES, DES3

from station_agents.virtual import sm4

KEY_LENGTH: Final = 16
CHECK_VALUE_LENGTH: Final = 3


class CardKey(Protocol):
    """A 16-byte key of a chip, ready for use."""

    block: ClassVar[int]
    """Bytes."""
    key_type: ClassVar[int]
    """Its cipher in the key information template."""

    def encrypt(self, data: bytes) -> bytes:
        """ECB over whole blocks."""
        ...

    def decrypt(self, data: bytes) -> bytes:
        """ECB over whole blocks."""
        ...

    def mac(self, iv: bytes, data: bytes) -> bytes:
        """A block of MAC over `data`, padded 80 00…, from `iv` (one block)."""
        ...


def pad(data: bytes, block: int) -> bytes:
    """Append 80 and as many 00 as fill whole blocks (ISO/IEC 9797-1, padding method 2)."""
    return data + b"\x80" + bytes(-(len(data) + 1) % block)


_PARITY_OFF: Final = int.from_bytes(b"\xfe" * 8, "big")


def _same_schedule(left: bytes, right: bytes) -> bool:
    """Whether two DES keys are one but for their parity bits, which DES ignores."""
    return not (int.from_bytes(left, "big") ^ int.from_bytes(right, "big")) & _PARITY_OFF


class TwoKeyDes:
    """K1 ‖ K2 of 3DES. ValueError unless it has 16 bytes."""

    block: ClassVar[int] = 8
    key_type: ClassVar[int] = 0x80  # GlobalPlatform Card Specification 2.3, table 11-16

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_LENGTH:
            raise ValueError(f"a two-key 3DES key has 16 bytes, not {len(key)}")
        self._left = key[:8]
        # With K1 = K2, E(K1, D(K2, E(K1, x))) is single DES; pycryptodome refuses such keys in
        # DES3, a chip does not.
        self._cipher = (
            DES.new(self._left, DES.MODE_ECB)
            if _same_schedule(self._left, key[8:])
            else DES3.new(key, DES3.MODE_ECB)
        )
        self.encrypt = self._cipher.encrypt
        self.decrypt = self._cipher.decrypt

    def mac(self, iv: bytes, data: bytes) -> bytes:
        """ISO/IEC 9797-1 MAC algorithm 3: single DES under K1 chains all blocks; the last one is
        finished by D(K2), E(K1), which together with its own E(K1) is one 3DES operation."""
        padded = pad(data, 8)
        chained = iv
        if len(padded) > 8:
            chained = DES.new(self._left, DES.MODE_CBC, iv).encrypt(padded[:-8])[-8:]
        last = int.from_bytes(chained, "big") ^ int.from_bytes(padded[-8:], "big")
        return self._cipher.encrypt(last.to_bytes(8, "big"))


class Sm4Key(sm4.Sm4):
    """A key of SM4."""

    block: ClassVar[int] = sm4.BLOCK
    key_type: ClassVar[int] = 0x90  # unverified: GlobalPlatform has no number for SM4

    def mac(self, iv: bytes, data: bytes) -> bytes:
        """CBC-MAC (ISO/IEC 9797-1 MAC algorithm 1)."""
        padded = pad(data, self.block)
        chained = int.from_bytes(iv, "big")
        for at in range(0, len(padded), self.block):
            chained ^= int.from_bytes(padded[at : at + self.block], "big")
            chained = int.from_bytes(self.encrypt(chained.to_bytes(self.block, "big")), "big")
        return chained.to_bytes(self.block, "big")


SUITES: Final[Mapping[str, type[TwoKeyDes] | type[Sm4Key]]] = {"3des": TwoKeyDes, "sm4": Sm4Key}
"""What a key of a profile's suite is."""
