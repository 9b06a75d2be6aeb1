"""A chip's memory and its changes as rows of a tray and its journal (docs/files.md).

Rows that cannot be right raise ValueError, KeyError or TypeError, without a value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from station_agents.virtual.memory import CardMemory, Change
from station_agents.virtual.social_memory import (
    Key,
    KeyWritten,
    RecordWritten,
    SocialMemory,
    TriesLeft,
)

_LONGEST_RECORD: Final = 253  # bytes of a value: tag, length and value fit an answer


def memory_row(memory: CardMemory) -> dict[str, Any]:
    """One entry for each application."""
    return {"social": _social_row(memory.social)}


def memory_from(row: Mapping[str, Any]) -> CardMemory:
    return CardMemory(_social_from(row["social"]))


def change_row(change: Change) -> dict[str, Any]:
    """One entry, named after what changes; every value outright, so that a change replayed twice
    is made once."""
    match change:
        case TriesLeft(key_id, tries_left):
            return {"tries": [key_id, tries_left]}
        case KeyWritten(key_id, version, value, tries_left):
            return {"key": [key_id, version, value.hex().upper(), tries_left]}
        case RecordWritten(file, tag, value):
            return {"record": [f"{file:02X}", f"{tag:02X}", value.hex().upper()]}


def change_from(row: Mapping[str, Any]) -> Change:
    match row:
        case {"tries": [key_id, tries_left]}:
            return TriesLeft(key_id, tries_left)
        case {"key": [key_id, version, value, tries_left]}:
            return KeyWritten(key_id, version, bytes.fromhex(value), tries_left)
        case {"record": [file, tag, value]}:
            return RecordWritten(int(file, 16), int(tag, 16), bytes.fromhex(value))
    raise ValueError("not a change")


def _social_row(memory: SocialMemory) -> dict[str, Any]:
    return {
        "files": {
            f"{file:02X}": {f"{tag:02X}": value.hex().upper() for tag, value in records.items()}
            for file, records in memory.files.items()
        },
        "keys": [
            {
                "id": key.key_id,
                "version": key.version,
                "value": key.value.hex().upper(),
                "tries": key.tries,
                "tries_left": key.tries_left,
            }
            for key in memory.keys.values()
        ],
    }


def _social_from(row: Mapping[str, Any]) -> SocialMemory:
    files = {
        int(file, 16): {int(tag, 16): bytes.fromhex(value) for tag, value in records.items()}
        for file, records in row["files"].items()
    }
    if any(
        len(value) > _LONGEST_RECORD for records in files.values() for value in records.values()
    ):
        raise ValueError
    return SocialMemory(files, {key.key_id: key for key in map(_key_from, row["keys"])})


def _key_from(row: Mapping[str, Any]) -> Key:
    key = Key(row["id"], row["version"], bytes.fromhex(row["value"]), row["tries"],
              row["tries_left"])  # fmt: skip
    if len(key.value) != 16 or not 0 <= key.tries_left <= 255 or not 0 < key.tries <= 255:
        raise ValueError
    if not 0 <= key.key_id <= 255 or not 0 <= key.version <= 255:
        raise ValueError
    return key
