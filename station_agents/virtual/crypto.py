"""The chip's own cryptography: two-key 3DES and the retail MAC, on pycryptodome.

Shares nothing with the centre, so that a fault on one side cannot hide behind the same fault on
the other.
"""

from __future__ import annotations

from typing import Final

from Crypto.Cipher import DES, DES3

BLOCK: Final = 8
_PARITY_OFF: Final = int.from_bytes(b"\xfe" * BLOCK, "big")


def pad(data: bytes) -> bytes:
    """Append 80 and as many 00 as fill whole blocks (ISO/IEC 9797-1, padding method 2)."""
    return data + b"\x80" + bytes(-(len(data) + 1) % BLOCK)


def _same_schedule(left: bytes, right: bytes) -> bool:
    """Whether two DES keys are one but for their parity bits, which DES ignores."""
    return not (int.from_bytes(left, "big") ^ int.from_bytes(right, "big")) & _PARITY_OFF


class TwoKeyDes:
    """A 16-byte 3DES key K1 ‖ K2 with its key schedule. ValueError on any other length."""

    def __init__(self, key: bytes) -> None:
        if len(key) != 2 * BLOCK:
            raise ValueError(f"a two-key 3DES key has 16 bytes, not {len(key)}")
        self._left = key[:BLOCK]
        # With K1 = K2, E(K1, D(K2, E(K1, x))) is single DES; pycryptodome refuses such keys in
        # DES3, a chip does not.
        self._cipher = (
            DES.new(self._left, DES.MODE_ECB)
            if _same_schedule(self._left, key[BLOCK:])
            else DES3.new(key, DES3.MODE_ECB)
        )

    def encrypt(self, data: bytes) -> bytes:
        """ECB over whole blocks."""
        return self._cipher.encrypt(data)

    def decrypt(self, data: bytes) -> bytes:
        """ECB over whole blocks."""
        return self._cipher.decrypt(data)

    def retail_mac(self, iv: bytes, data: bytes) -> bytes:
        """ISO/IEC 9797-1 MAC algorithm 3, padding method 2, all 8 bytes. `iv` has 8 bytes.

        Single DES under K1 chains all blocks; the last one is finished by D(K2), E(K1), which
        together with its own E(K1) is one 3DES operation.
        """
        padded = pad(data)
        chained = iv
        if len(padded) > BLOCK:
            chained = DES.new(self._left, DES.MODE_CBC, iv).encrypt(padded[:-BLOCK])[-BLOCK:]
        last = int.from_bytes(chained, "big") ^ int.from_bytes(padded[-BLOCK:], "big")
        return self._cipher.encrypt(last.to_bytes(BLOCK, "big"))
