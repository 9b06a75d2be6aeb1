"""What chips expect, as plain functions of keys and bytes (LD/T 32-2015 part 5)."""

from __future__ import annotations

from actors.hsm.suites import CHECK_VALUE, ReadyKey

MAC_LENGTH = 4

_WRITE_KEY_CLA, _WRITE_KEY_INS = 0x84, 0xD4


def answer_challenge(key: ReadyKey, challenge: bytes) -> bytes:
    """One block: the challenge (at most a block), filled with zeros, under the key."""
    return key.encipher(key.suite.from_challenge(challenge))


def key_body(loading_key: ReadyKey, new_key: bytes) -> bytes:
    """The enciphered body of WRITE KEY: length ‖ key, padded 80 00… if not whole blocks, ECB."""
    plain = bytes((len(new_key),)) + new_key
    if len(plain) % loading_key.suite.block:
        plain = loading_key.suite.pad(plain)
    return loading_key.encipher(plain)


def write_key(
    loading_key: ReadyKey, new_key: bytes, version: int, key_id: int, challenge: bytes
) -> bytes:
    """The WRITE KEY command `84 D4 version key_id Lc body ‖ MAC(4)`.

    The MAC runs from the card's challenge over CLA INS P1 P2 Lc ‖ body.
    """
    body = key_body(loading_key, new_key)
    length = len(body) + MAC_LENGTH
    header = bytes((_WRITE_KEY_CLA, _WRITE_KEY_INS, version, key_id, length))
    return header + body + loading_key.mac(challenge, header + body)[:MAC_LENGTH]


def check_value(key: ReadyKey) -> bytes:
    """What the key information of a chip says of a key: 3 bytes."""
    return key.encipher(key.suite.check_block)[:CHECK_VALUE]
