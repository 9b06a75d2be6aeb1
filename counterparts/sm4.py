"""SM4 as the factory computes it (GB/T 32907-2016): its S-box out of its algebra, a round as the
standard writes it. The chips have another one.
"""

from __future__ import annotations

from functools import cache
from typing import Final

BLOCK: Final = 16
_FK: Final = bytes.fromhex("A3B1BAC656AA3350677D9197B27022DC")


def encrypt(key: bytes, data: bytes) -> bytes:
    """ECB over whole blocks, under a key of 16 bytes."""
    keys = _round_keys(key)
    return b"".join(_rounds(data[at : at + BLOCK], keys) for at in range(0, len(data), BLOCK))


def _rounds(block: bytes, keys: tuple[int, ...]) -> bytes:
    x = _words(block)
    for key in keys:
        x = [*x[1:], x[0] ^ _t(x[1] ^ x[2] ^ x[3] ^ key, (2, 10, 18, 24))]
    return b"".join(word.to_bytes(4, "big") for word in reversed(x))


def _round_keys(key: bytes) -> tuple[int, ...]:
    k = [a ^ b for a, b in zip(_words(key), _words(_FK), strict=True)]
    keys = []
    for i in range(32):
        ck = int.from_bytes(bytes((4 * i + j) * 7 % 256 for j in range(4)), "big")
        k = [*k[1:], k[0] ^ _t(k[1] ^ k[2] ^ k[3] ^ ck, (13, 23))]
        keys.append(k[3])
    return tuple(keys)


def _t(word: int, rotations: tuple[int, ...]) -> int:
    """The S-box on each byte, then the word XORed with its rotations."""
    box = _s_box()
    b = int.from_bytes(bytes(box[byte] for byte in word.to_bytes(4, "big")), "big")
    mixed = b
    for n in rotations:
        mixed ^= (b << n | b >> (32 - n)) & 0xFFFFFFFF
    return mixed


def _words(block: bytes) -> list[int]:
    return [int.from_bytes(block[at : at + 4], "big") for at in range(0, BLOCK, 4)]


@cache
def _s_box() -> bytes:
    """A·I(A·x + C) + C, I the inversion in GF(2^8) modulo x^8+x^7+x^6+x^5+x^4+x^2+1 (Liu et al.,
    Analysis of the SMS4 Block Cipher, ACISP 2007)."""
    return bytes(_affine(_inverse(_affine(x))) for x in range(256))


def _affine(x: int) -> int:
    """Row i of the matrix is A7, turned left by i."""
    rows = ((0xA7 << i | 0xA7 >> (8 - i)) & 0xFF for i in range(8))
    return sum(((row & x).bit_count() & 1) << i for i, row in enumerate(rows)) ^ 0xD3


def _inverse(x: int) -> int:
    """x to the power of 254."""
    product = 1
    for _ in range(7):
        x = _times(x, x)
        product = _times(product, x)
    return product


def _times(a: int, b: int) -> int:
    product = 0
    while b:
        product ^= a * (b & 1)
        a = a << 1 ^ (0x1F5 if a & 0x80 else 0)
        b >>= 1
    return product
