"""What the social application keeps without power: files and keys."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Key:
    """One key of the application. `tries` is the error counter when fresh; a key with no
    `tries_left` is blocked. `value` has 16 bytes and never shows in a repr."""

    key_id: int
    version: int
    value: bytes = field(repr=False)
    tries: int
    tries_left: int


@dataclass(frozen=True)
class KeyWritten:
    """A new value, version and counter for a key that the chip has."""

    key_id: int
    version: int
    value: bytes = field(repr=False)
    tries_left: int


@dataclass(frozen=True)
class TriesLeft:
    key_id: int
    tries_left: int


@dataclass(frozen=True)
class RecordWritten:
    file: int
    tag: int
    value: bytes = field(repr=False)


SocialChange = KeyWritten | TriesLeft | RecordWritten


@dataclass
class SocialMemory:
    """`files`: record values by file and tag, without tag and length."""

    files: dict[int, dict[int, bytes]] = field(repr=False)
    keys: dict[int, Key]

    def apply(self, change: SocialChange) -> None:
        """See `CardMemory.apply`."""
        match change:
            case TriesLeft(key_id, tries_left):
                self.keys[key_id].tries_left = tries_left
            case KeyWritten(key_id, version, value, tries_left):
                key = self.keys[key_id]
                key.version, key.value, key.tries_left = version, value, tries_left
            case RecordWritten(file, tag, value):
                self.files.setdefault(file, {})[tag] = value
