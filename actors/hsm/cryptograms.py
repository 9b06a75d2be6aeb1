"""What chips expect, as plain functions of keys and bytes (LD/T 32-2015 part 5)."""

from __future__ import annotations

from actors.hsm.suites import ReadyKey, Suite

MAC_LENGTH = 4
KEY_LENGTH = 16

_WRITE_KEY_CLA, _WRITE_KEY_INS = 0x84, 0xD4


def answer_challenge(key: ReadyKey, challenge: bytes) -> bytes:
    """One block: the challenge (at most a block), filled with zeros, under the key."""
    return key.encipher(key.suite.from_challenge(challenge))


def key_body(loading_key: ReadyKey, new_key: bytes) -> bytes:
    """The enciphered body of WRITE KEY: length ‖ key, padded 80 00… if not whole blocks, ECB."""
    plain = bytes((len(new_key),)) + new_key
    return loading_key.encipher(plain + _fill(loading_key.suite, len(plain)))


class KeyWriter:
    """The WRITE KEY commands of one key id and version: `84 D4 version key_id Lc body ‖ MAC(4)`.

    What is the same for all chips is put together once.
    """

    def __init__(self, suite: Suite, version: int, key_id: int) -> None:
        self._length = bytes((KEY_LENGTH,))
        self._fill = _fill(suite, 1 + KEY_LENGTH)
        body = 1 + KEY_LENGTH + len(self._fill)
        self._head = bytes((_WRITE_KEY_CLA, _WRITE_KEY_INS, version, key_id, body + MAC_LENGTH))
        command = bytes(len(self._head) + body)
        self._padding = suite.pad(command)[len(command) :]

    def command(self, loading_key: ReadyKey, new_key: bytes, challenge: bytes) -> bytes:
        """The command that puts `new_key` (16 bytes) on a chip with this loading key. The MAC runs
        from the card's challenge over CLA INS P1 P2 Lc ‖ body."""
        body = loading_key.encipher(self._length + new_key + self._fill)
        command = self._head + body
        mac = loading_key.mac_of_padded(challenge, command + self._padding)
        return command + mac[:MAC_LENGTH]


def _fill(suite: Suite, length: int) -> bytes:
    """What pads `length` bytes of a key body."""
    return suite.pad(bytes(length))[length:] if length % suite.block else b""
