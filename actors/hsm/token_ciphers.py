"""Block ciphers in the token, under keys that stay there."""

from __future__ import annotations

from typing import Any

from pkcs11 import KeyType, Mechanism

KEY_TYPES = {"3des": KeyType.DES2, "aes": KeyType.AES}
"""What a key of a suite is in the token; SM4 keys are no keys of a PKCS#11 token."""

_ECB = {KeyType.DES2: Mechanism.DES3_ECB, KeyType.AES: Mechanism.AES_ECB}
_CBC = {KeyType.DES2: Mechanism.DES3_CBC, KeyType.AES: Mechanism.AES_CBC}


def encipher(key: Any, blocks: bytes) -> bytes:
    """ECB over whole blocks, in one call of the token."""
    return bytes(key.encrypt(blocks, mechanism=_ECB[key.key_type]))


def encipher_cbc(key: Any, iv: bytes, blocks: bytes) -> bytes:
    """CBC over whole blocks from `iv` (one block), in one call of the token."""
    return bytes(key.encrypt(blocks, mechanism=_CBC[key.key_type], mechanism_param=iv))
