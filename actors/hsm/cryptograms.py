"""What chips expect, as plain functions of suite, keys and bytes (LD/T 32-2015 part 5)."""

from __future__ import annotations

from actors.hsm.suites import Suite

MAC_LENGTH = 4

_WRITE_KEY_CLA, _WRITE_KEY_INS = 0x84, 0xD4


def answer_challenge(suite: Suite, key: bytes, challenge: bytes) -> bytes:
    """One block: the challenge, filled with zeros, under the key."""
    return suite.encipher(key, suite.from_challenge(challenge))


def key_body(suite: Suite, loading_key: bytes, new_key: bytes) -> bytes:
    """The enciphered body of WRITE KEY: length ‖ key, padded 80 00… if not whole blocks, ECB."""
    plain = bytes((len(new_key),)) + new_key
    if len(plain) % suite.block:
        plain = suite.pad(plain)
    return suite.encipher(loading_key, plain)


def write_key(
    suite: Suite, loading_key: bytes, new_key: bytes, version: int, key_id: int, challenge: bytes
) -> bytes:
    """The WRITE KEY command `84 D4 version key_id Lc body ‖ MAC(4)`.

    The MAC runs from the card's challenge over CLA INS P1 P2 Lc ‖ body.
    """
    body = key_body(suite, loading_key, new_key)
    length = len(body) + MAC_LENGTH
    header = bytes((_WRITE_KEY_CLA, _WRITE_KEY_INS, version, key_id, length))
    code = suite.mac(loading_key, challenge, header + body)[:MAC_LENGTH]
    return header + body + code
