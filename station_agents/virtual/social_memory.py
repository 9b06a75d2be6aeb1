"""What the social application keeps without power: files, keys, PIN, and whether it is blocked."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Key:
    """One key of the application. `tries` is the error counter when fresh; a key with no
    `tries_left` is blocked. `value` has 16 bytes and never shows in a repr. `written` is how often
    WRITE KEY gave it a value: no chip shows that, an auditor of the plastic asks it."""

    key_id: int
    version: int
    value: bytes = field(repr=False)
    tries: int
    tries_left: int
    written: int = 0
    check_value: bytes = field(default=b"", repr=False, compare=False)
    """Follows from the value; empty until it is asked for."""


@dataclass
class Pin:
    """`value` is BCD, left aligned, padded F. Wrong tries count down from `tries`; with none left
    the PIN is locked."""

    value: bytes = field(repr=False)
    tries: int
    tries_left: int


@dataclass(frozen=True)
class KeyWritten:
    """A new value, version and counters for a key that the chip has."""

    key_id: int
    version: int
    value: bytes = field(repr=False)
    tries_left: int
    written: int


@dataclass(frozen=True)
class TriesLeft:
    key_id: int
    tries_left: int


@dataclass(frozen=True)
class RecordWritten:
    file: int
    tag: int
    value: bytes = field(repr=False)


@dataclass(frozen=True)
class BinaryWritten:
    file: int
    offset: int
    data: bytes = field(repr=False)


@dataclass(frozen=True)
class PinWritten:
    value: bytes = field(repr=False)
    tries_left: int


@dataclass(frozen=True)
class PinTriesLeft:
    tries_left: int


@dataclass(frozen=True)
class ApplicationBlocked:
    blocked: bool


SocialChange = (
    KeyWritten
    | TriesLeft
    | RecordWritten
    | BinaryWritten
    | PinWritten
    | PinTriesLeft
    | ApplicationBlocked
)


@dataclass
class SocialMemory:
    """`records`: values by file number and tag, without tag and length. `binaries`: transparent
    files by number, up to the last byte that was written; the rest of a file is 00."""

    records: dict[int, dict[int, bytes]] = field(repr=False)
    keys: dict[int, Key]
    pin: Pin
    binaries: dict[int, bytes] = field(default_factory=dict, repr=False)
    blocked: bool = False

    def apply(self, change: SocialChange) -> None:
        """See `CardMemory.apply`."""
        match change:
            case TriesLeft(key_id, tries_left):
                self.keys[key_id].tries_left = tries_left
            case KeyWritten(key_id, version, value, tries_left, written):
                key = self.keys[key_id]
                key.version, key.value, key.tries_left = version, value, tries_left
                key.written = written
                key.check_value = b""
            case RecordWritten(file, tag, value):
                self.records.setdefault(file, {})[tag] = value
            case BinaryWritten(file, offset, data):
                before = self.binaries.get(file, b"")
                head = before[:offset].ljust(offset, b"\x00")
                self.binaries[file] = head + data + before[offset + len(data) :]
            case PinWritten(value, tries_left):
                self.pin.value, self.pin.tries_left = value, tries_left
            case PinTriesLeft(tries_left):
                self.pin.tries_left = tries_left
            case ApplicationBlocked(blocked):
                self.blocked = blocked
