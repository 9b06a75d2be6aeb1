"""Block ciphers in the token, under keys that stay there, and throw-away keys for known answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pkcs11
from pkcs11 import Attribute, KeyType, Mechanism, ObjectClass

from actors.hsm.suites import SUITES

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


@contextmanager
def throw_away(session: pkcs11.Session, suite: str, value: bytes) -> Iterator[Any]:
    """A key of the session that is gone afterwards. ValueError for a length the suite has not."""
    if len(value) not in SUITES[suite].key_lengths:
        lengths = " or ".join(str(length) for length in SUITES[suite].key_lengths)
        raise ValueError(f"a {suite} key has {lengths} bytes")
    key = session.create_object(
        {
            Attribute.CLASS: ObjectClass.SECRET_KEY,
            Attribute.KEY_TYPE: KEY_TYPES[suite],
            Attribute.VALUE: value,
            Attribute.TOKEN: False,
            Attribute.SENSITIVE: True,
            Attribute.EXTRACTABLE: False,
            Attribute.ENCRYPT: True,
            Attribute.DERIVE: KEY_TYPES[suite] is KeyType.DES2,
        }
    )
    try:
        yield key
    finally:
        key.destroy()
