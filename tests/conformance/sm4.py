"""SM4 as GB/T 32907-2016 writes it down, for the other side of the tests: slow, and not the
centre's."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

_S_BOX = bytes.fromhex(
    "d690e9fecce13db716b614c228fb2c052b679a762abe04c3aa44132649860699"
    "9c4250f491ef987a33540b43edcfac62e4b31ca9c908e89580df94fa758f3fa6"
    "4707a7fcf37317ba83593c19e6854fa8686b81b27164da8bf8eb0f4b70569d35"
    "1e240e5e6358d1a225227c3b01217887d40046579fd327524c3602e7a0c4c89e"
    "eabf8ad240c738b5a3f7f2cef96115a1e0ae5da49b341a55ad933230f58cb1e3"
    "1df6e22e8266ca60c02923ab0d534e6fd5db3745defd8e2f03ff6a726d6c5b51"
    "8d1baf92bbddbc7f11d95c411f105ad80ac13188a5cd7bbd2d74d012b8e5b4b0"
    "8969974a0c96777e65b9f109c56ec68418f07dec3adc4d2079ee5f3ed7cb3948"
)
_FK = (0xA3B1BAC6, 0x56AA3350, 0x677D9197, 0xB27022DC)
_CK = [int.from_bytes(bytes((4 * i + j) * 7 % 256 for j in range(4)), "big") for i in range(32)]


def _turn(word: int, by: int) -> int:
    return (word << by | word >> (32 - by)) & 0xFFFFFFFF


def _tau(word: int) -> int:
    return int.from_bytes(word.to_bytes(4, "big").translate(_S_BOX), "big")


@lru_cache(maxsize=4096)
def _round_keys(key: bytes) -> tuple[int, ...]:
    """7.3: the key expansion."""
    words = [
        int.from_bytes(key[at : at + 4], "big") ^ fk
        for at, fk in zip((0, 4, 8, 12), _FK, strict=True)
    ]
    for ck in _CK:
        mixed = _tau(words[-3] ^ words[-2] ^ words[-1] ^ ck)
        words.append(words[-4] ^ mixed ^ _turn(mixed, 13) ^ _turn(mixed, 23))
    return tuple(words[4:])


def _block(keys: Iterable[int], block: bytes) -> bytes:
    """7.1: 32 rounds and the reversal."""
    words = [int.from_bytes(block[at : at + 4], "big") for at in (0, 4, 8, 12)]
    for key in keys:
        mixed = _tau(words[1] ^ words[2] ^ words[3] ^ key)
        turned = _turn(mixed, 2) ^ _turn(mixed, 10) ^ _turn(mixed, 18) ^ _turn(mixed, 24)
        words = [*words[1:], words[0] ^ mixed ^ turned]
    return b"".join(word.to_bytes(4, "big") for word in reversed(words))


def encipher(key: bytes, data: bytes) -> bytes:
    """ECB."""
    keys = _round_keys(key)
    return b"".join(_block(keys, data[at : at + 16]) for at in range(0, len(data), 16))


def decipher(key: bytes, data: bytes) -> bytes:
    """ECB."""
    keys = _round_keys(key)[::-1]
    return b"".join(_block(keys, data[at : at + 16]) for at in range(0, len(data), 16))


def mac(key: bytes, iv: bytes, data: bytes) -> bytes:
    """CBC-MAC over `data` padded 80 00…, from `iv` filled with zeros; the whole block."""
    data += b"\x80"
    data += bytes(-len(data) % 16)
    chain = iv.ljust(16, b"\0")
    for at in range(0, len(data), 16):
        chain = encipher(key, bytes(a ^ b for a, b in zip(chain, data[at : at + 16], strict=True)))
    return chain
