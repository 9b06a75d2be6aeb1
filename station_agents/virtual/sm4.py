"""The block cipher SM4 (GB/T 32907-2016), in plain Python: pycryptodome has none."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

BLOCK: Final = 16
_ROUNDS: Final = 32
_WORD: Final = 0xFFFFFFFF
_FOUR_WORDS: Final = struct.Struct(">4I")

# GB/T 32907-2016, 6.2.2, row by row.
_S_BOX: Final = bytes.fromhex(
    "d690e9fecce13db716b614c228fb2c052b679a762abe04c3aa44132649860699"
    "9c4250f491ef987a33540b43edcfac62e4b31ca9c908e89580df94fa758f3fa6"
    "4707a7fcf37317ba83593c19e6854fa8686b81b27164da8bf8eb0f4b70569d35"
    "1e240e5e6358d1a225227c3b01217887d40046579fd327524c3602e7a0c4c89e"
    "eabf8ad240c738b5a3f7f2cef96115a1e0ae5da49b341a55ad933230f58cb1e3"
    "1df6e22e8266ca60c02923ab0d534e6fd5db3745defd8e2f03ff6a726d6c5b51"
    "8d1baf92bbddbc7f11d95c411f105ad80ac13188a5cd7bbd2d74d012b8e5b4b0"
    "8969974a0c96777e65b9f109c56ec68418f07dec3adc4d2079ee5f3ed7cb3948"
)
_FK: Final = (0xA3B1BAC6, 0x56AA3350, 0x677D9197, 0xB27022DC)  # 7.3
_CK: Final = tuple(
    int.from_bytes(bytes((4 * i + j) * 7 & 0xFF for j in range(4)), "big") for i in range(_ROUNDS)
)


def _rotate(word: int, bits: int) -> int:
    return (word << bits | word >> (32 - bits)) & _WORD


def _linear(word: int) -> int:
    """L of the rounds (6.2.3)."""
    return (
        word ^ _rotate(word, 2) ^ _rotate(word, 10) ^ _rotate(word, 18) ^ _rotate(word, 24)
    )  # fmt: skip


# L of the S-box at each of the four bytes of a word: a round is four look-ups.
_T0, _T1, _T2, _T3 = (tuple(_linear(byte << shift) for byte in _S_BOX) for shift in (24, 16, 8, 0))


class Sm4:
    """A 16-byte key with its round keys. ValueError on any other length."""

    def __init__(self, key: bytes) -> None:
        if len(key) != BLOCK:
            raise ValueError(f"an SM4 key has 16 bytes, not {len(key)}")
        words = [word ^ fk for word, fk in zip(_FOUR_WORDS.unpack(key), _FK, strict=True)]
        for i, ck in enumerate(_CK):
            x = words[i + 1] ^ words[i + 2] ^ words[i + 3] ^ ck
            b = (
                _S_BOX[x >> 24] << 24 | _S_BOX[x >> 16 & 255] << 16
                | _S_BOX[x >> 8 & 255] << 8 | _S_BOX[x & 255]
            )  # fmt: skip
            words.append(words[i] ^ b ^ _rotate(b, 13) ^ _rotate(b, 23))
        self._keys = tuple(words[4:])

    def encrypt(self, data: bytes) -> bytes:
        """ECB over whole blocks."""
        return _blocks(self._keys, data)

    def decrypt(self, data: bytes) -> bytes:
        """ECB over whole blocks."""
        return _blocks(self._keys[::-1], data)


def _blocks(keys: Iterable[int], data: bytes) -> bytes:
    out = []
    for a, b, c, d in _FOUR_WORDS.iter_unpack(data):
        for key in keys:
            x = b ^ c ^ d ^ key
            a, b, c, d = (
                b, c, d, a ^ _T0[x >> 24] ^ _T1[x >> 16 & 255] ^ _T2[x >> 8 & 255] ^ _T3[x & 255]
            )  # fmt: skip
        out.append(_FOUR_WORDS.pack(d, c, b, a))
    return b"".join(out)
