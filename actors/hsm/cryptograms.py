"""What chips of suite 3DES expect, as plain functions of keys and bytes.

Keys are 16 bytes (two-key 3DES, K1 ‖ K2). DES ignores parity bits, so keys are never adjusted.
"""

from __future__ import annotations

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.modes import CBC, ECB

BLOCK = 8
CHECK_VALUE = 3
MAC_LENGTH = 4

_ECB = ECB()
_WRITE_KEY_CLA, _WRITE_KEY_INS = 0x84, 0xD4


def encipher(key: bytes, blocks: bytes) -> bytes:
    """Two-key 3DES (NIST SP 800-67, keying option 2) in ECB over whole blocks of 8 bytes."""
    return Cipher(TripleDES(key + key[:8]), _ECB).encryptor().update(blocks)


def check_value(key: bytes) -> bytes:
    """The first 3 bytes of a block of 00 under the key."""
    return encipher(key, bytes(BLOCK))[:CHECK_VALUE]


def pad(data: bytes) -> bytes:
    """ISO/IEC 9797-1 padding method 2: 80, then 00 to whole blocks; always at least one byte."""
    padded = data + b"\x80"
    return padded + bytes(-len(padded) % BLOCK)


def mac(key: bytes, iv: bytes, data: bytes) -> bytes:
    """ISO/IEC 9797-1 MAC algorithm 3 (8 bytes), padding method 2, chained from `iv` (8 bytes).

    DES under K1 in CBC over all blocks but the last, two-key 3DES over the last.
    """
    padded = pad(data)
    head, last = padded[:-BLOCK], padded[-BLOCK:]
    chain = iv
    if head:
        # Single DES is 3DES with one key three times.
        chain = Cipher(TripleDES(key[:8] * 3), CBC(iv)).encryptor().update(head)[-BLOCK:]
    block = int.from_bytes(chain, "big") ^ int.from_bytes(last, "big")
    return encipher(key, block.to_bytes(BLOCK, "big"))


def key_body(loading_key: bytes, new_key: bytes) -> bytes:
    """The enciphered body of WRITE KEY: length ‖ key, padded 80 00… if not whole blocks, ECB."""
    plain = bytes((len(new_key),)) + new_key
    if len(plain) % BLOCK:
        plain = pad(plain)
    return encipher(loading_key, plain)


def write_key(
    loading_key: bytes, new_key: bytes, version: int, key_id: int, challenge: bytes
) -> bytes:
    """The WRITE KEY command `84 D4 version key_id Lc body ‖ MAC(4)` (LD/T 32-2015 part 5).

    The MAC runs from the card's challenge over CLA INS P1 P2 Lc ‖ body.
    """
    body = key_body(loading_key, new_key)
    length = len(body) + MAC_LENGTH
    header = bytes((_WRITE_KEY_CLA, _WRITE_KEY_INS, version, key_id, length))
    code = mac(loading_key, challenge, header + body)[:MAC_LENGTH]
    return header + body + code
