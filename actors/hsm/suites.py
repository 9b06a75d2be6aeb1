"""The block ciphers of cards as one shape: 3DES with two keys, SM4, AES.

Card keys only, in the provider's memory for one call; what the token does stays in the token.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, CipherAlgorithm
from cryptography.hazmat.primitives.ciphers.algorithms import AES as AESCipher
from cryptography.hazmat.primitives.ciphers.algorithms import SM4 as SM4Cipher
from cryptography.hazmat.primitives.ciphers.modes import CBC, ECB
from cryptography.hazmat.primitives.hashes import SM3, Hash

CHECK_VALUE = 3
"""Bytes."""

_ECB = ECB()


@dataclass(frozen=True)
class Suite:
    """One cipher as cards use it. `block` in bytes; `key_lengths` in bytes."""

    name: str
    block: int
    key_lengths: tuple[int, ...]
    check_block: bytes
    """What a check value enciphers: 00 for 3DES and SM4, 01 for AES (GlobalPlatform Card
    Specification 2.3, B.6)."""
    _algorithm: Callable[[bytes], CipherAlgorithm]
    _chain_key: Callable[[bytes], bytes] | None = None
    """The key of all blocks of a MAC but the last; None: the key itself."""

    def encipher(self, key: bytes, blocks: bytes) -> bytes:
        """ECB over whole blocks. ValueError for a key or data of another length."""
        return Cipher(self._algorithm(key), _ECB).encryptor().update(self._whole(blocks))

    def ready(self, key: bytes) -> ReadyKey:
        """The key made ready for many calls."""
        return ReadyKey(self, key)

    def encipherer(self, key: bytes) -> Callable[[bytes], bytes]:
        """`encipher` under one key, made ready: for many calls. Blocks must be whole."""
        return Cipher(self._algorithm(key), _ECB).encryptor().update

    def decipher(self, key: bytes, blocks: bytes) -> bytes:
        """The inverse of `encipher`."""
        return Cipher(self._algorithm(key), _ECB).decryptor().update(self._whole(blocks))

    def encipher_cbc(self, key: bytes, iv: bytes, blocks: bytes) -> bytes:
        """CBC over whole blocks from `iv` (one block)."""
        return Cipher(self._algorithm(key), CBC(iv)).encryptor().update(self._whole(blocks))

    def decipher_cbc(self, key: bytes, iv: bytes, blocks: bytes) -> bytes:
        """The inverse of `encipher_cbc`."""
        return Cipher(self._algorithm(key), CBC(iv)).decryptor().update(self._whole(blocks))

    def check_value(self, key: bytes) -> bytes:
        """The first 3 bytes of `check_block` under the key."""
        return self.encipher(key, self.check_block)[:CHECK_VALUE]

    def pad(self, data: bytes) -> bytes:
        """ISO/IEC 9797-1 padding method 2: 80, then 00 to whole blocks; always one byte."""
        padded = data + b"\x80"
        return padded + bytes(-len(padded) % self.block)

    def from_challenge(self, challenge: bytes) -> bytes:
        """A card's challenge as one block, filled with zeros on the right."""
        return challenge.ljust(self.block, b"\x00")

    def mac(self, key: bytes, iv: bytes, data: bytes) -> bytes:
        """A whole block of MAC over `data`, padded by method 2, chained from `iv`, which is filled
        with zeros to a block: 3DES ISO/IEC 9797-1 MAC algorithm 3 (single DES over all blocks but
        the last), SM4 and AES CBC-MAC (algorithm 1)."""
        return ReadyKey(self, key).mac(iv, data)

    def chain_key(self, key: bytes) -> bytes:
        """See `_chain_key`."""
        return self._chain_key(key) if self._chain_key else key

    def _whole(self, blocks: bytes) -> bytes:
        if len(blocks) % self.block:
            raise ValueError(f"{self.name} takes whole blocks of {self.block} bytes")
        return blocks


class ReadyKey:
    """A key of a chip for the requests of one chunk. To make it ready takes longer than all that
    is enciphered under it, so it is done once, and the chain of the MAC when first asked for."""

    __slots__ = ("_chain", "_key", "encipher", "suite")

    def __init__(self, suite: Suite, key: bytes) -> None:
        self.suite, self._key = suite, key
        self.encipher = suite.encipherer(key)
        """ECB. Blocks must be whole: what is not would be kept for the next call."""
        self._chain: Callable[[bytes], bytes] | None = None

    def mac(self, iv: bytes, data: bytes) -> bytes:
        """See `Suite.mac`."""
        return self.mac_of_padded(iv, self.suite.pad(data))

    def mac_of_padded(self, iv: bytes, padded: bytes) -> bytes:
        """`mac` over data that were padded before."""
        block = self.suite.block
        chain = self._chain
        if chain is None:
            key = self.suite.chain_key(self._key)
            same = key == self._key
            chain = self._chain = self.encipher if same else self.suite.encipherer(key)
        number, last = int.from_bytes, len(padded) - block
        linked = number(iv.ljust(block, b"\x00"), "big")
        for at in range(0, last, block):
            linked ^= number(padded[at : at + block], "big")
            linked = number(chain(linked.to_bytes(block, "big")), "big")
        linked ^= number(padded[last:], "big")
        return self.encipher(linked.to_bytes(block, "big"))


def _two_key_des(key: bytes) -> CipherAlgorithm:
    """NIST SP 800-67, keying option 2. DES ignores parity bits, so keys are never adjusted."""
    if len(key) != 16:
        raise ValueError("a two-key 3DES key has 16 bytes")
    return TripleDES(key + key[:8])


def _single_des(key: bytes) -> bytes:
    """Two-key 3DES with one key thrice is single DES."""
    return key[:8] * 2


TRIPLE_DES = Suite("3des", 8, (16,), bytes(8), _two_key_des, _single_des)
SM4 = Suite("sm4", 16, (16,), bytes(16), SM4Cipher)
AES = Suite("aes", 16, (16, 24, 32), b"\x01" * 16, AESCipher)

SUITES = {suite.name: suite for suite in (TRIPLE_DES, SM4, AES)}


def sm3(data: bytes) -> bytes:
    """The digest of GB/T 32905-2016, 32 bytes."""
    digest = Hash(SM3())
    digest.update(data)
    return digest.finalize()


def factor_block(factor: bytes) -> bytes:
    """F ‖ ~F (16 bytes): enciphered under a key it gives the key of the next level, for 3DES
    E(K, F) ‖ E(K, ~F), for SM4 E(K, F ‖ ~F)."""
    return factor + bytes(b ^ 0xFF for b in factor)
