"""A chip's memory and its changes as rows of a tray and its journal (docs/files.md).

Rows that cannot be right raise ValueError, KeyError or TypeError, without a value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from station_agents.virtual import financial_rows
from station_agents.virtual.memory import CardBlocked, CardMemory, Change
from station_agents.virtual.social_memory import (
    ApplicationBlocked,
    BinaryWritten,
    Key,
    KeyWritten,
    Pin,
    PinTriesLeft,
    PinWritten,
    RecordWritten,
    SocialMemory,
    TriesLeft,
)

_LONGEST_RECORD: Final = 253  # bytes of a value: tag, length and value fit an answer


def memory_row(memory: CardMemory) -> dict[str, Any]:
    """One entry for each application; `blocked` stands there only if the card is."""
    row: dict[str, Any] = {"social": _social_row(memory.social)}
    if memory.financial is not None:
        row["financial"] = financial_rows.memory_row(memory.financial)
    if memory.blocked:
        row["blocked"] = True
    return row


def memory_from(row: Mapping[str, Any]) -> CardMemory:
    financial = row.get("financial")
    return CardMemory(
        _social_from(row["social"]),
        bool(row.get("blocked")),
        None if financial is None else financial_rows.memory_from(financial),
    )


def change_row(change: Change) -> dict[str, Any]:
    """One entry, named after what changes; every value outright, so that a change replayed twice
    is made once."""
    match change:
        case TriesLeft(key_id, tries_left):
            return {"tries": [key_id, tries_left]}
        case KeyWritten(key_id, version, value, tries_left, written):
            return {"key": [key_id, version, value.hex().upper(), tries_left, written]}
        case RecordWritten(file, tag, value):
            return {"record": [f"{file:02X}", f"{tag:02X}", value.hex().upper()]}
        case BinaryWritten(file, offset, data):
            return {"binary": [f"{file:02X}", offset, data.hex().upper()]}
        case PinWritten(value, tries_left):
            return {"pin": [value.hex().upper(), tries_left]}
        case PinTriesLeft(tries_left):
            return {"pin_tries": tries_left}
        case ApplicationBlocked(blocked):
            return {"application_blocked": blocked}
        case CardBlocked():
            return {"card_blocked": True}
        case _:
            return financial_rows.change_row(change)


def change_from(row: Mapping[str, Any]) -> Change:
    match row:
        case {"tries": [key_id, tries_left]}:
            return TriesLeft(key_id, tries_left)
        case {"key": [key_id, version, value, tries_left, written]}:
            return KeyWritten(key_id, version, bytes.fromhex(value), tries_left, written)
        case {"record": [file, tag, value]}:
            return RecordWritten(int(file, 16), int(tag, 16), bytes.fromhex(value))
        case {"binary": [file, offset, data]}:
            return BinaryWritten(int(file, 16), offset, bytes.fromhex(data))
        case {"pin": [value, tries_left]}:
            return PinWritten(bytes.fromhex(value), tries_left)
        case {"pin_tries": tries_left}:
            return PinTriesLeft(tries_left)
        case {"application_blocked": bool(blocked)}:
            return ApplicationBlocked(blocked)
        case {"card_blocked": True}:
            return CardBlocked()
    return financial_rows.change_from(row)


def _social_row(memory: SocialMemory) -> dict[str, Any]:
    row: dict[str, Any] = {
        "records": {
            f"{file:02X}": {f"{tag:02X}": value.hex().upper() for tag, value in records.items()}
            for file, records in memory.records.items()
        },
        "keys": [
            {
                "id": key.key_id,
                "version": key.version,
                "value": key.value.hex().upper(),
                "tries": key.tries,
                "tries_left": key.tries_left,
                **({"written": key.written} if key.written else {}),
            }
            for key in memory.keys.values()
        ],
        "pin": [memory.pin.value.hex().upper(), memory.pin.tries, memory.pin.tries_left],
    }
    if memory.binaries:
        row["binaries"] = {
            f"{file:02X}": data.hex().upper() for file, data in memory.binaries.items()
        }
    if memory.blocked:
        row["blocked"] = True
    return row


def _social_from(row: Mapping[str, Any]) -> SocialMemory:
    records = {
        int(file, 16): {int(tag, 16): bytes.fromhex(value) for tag, value in values.items()}
        for file, values in row["records"].items()
    }
    if any(
        len(value) > _LONGEST_RECORD for values in records.values() for value in values.values()
    ):
        raise ValueError
    keys = {key.key_id: key for key in map(_key_from, row["keys"])}
    pin, tries, tries_left = row["pin"]
    if not 0 <= tries_left <= tries <= 255:
        raise ValueError
    binaries = {
        int(file, 16): bytes.fromhex(data) for file, data in row.get("binaries", {}).items()
    }
    return SocialMemory(
        records,
        keys,
        Pin(bytes.fromhex(pin), tries, tries_left),
        binaries,
        bool(row.get("blocked")),
    )


def _key_from(row: Mapping[str, Any]) -> Key:
    key = Key(row["id"], row["version"], bytes.fromhex(row["value"]), row["tries"],
              row["tries_left"], row.get("written", 0))  # fmt: skip
    if len(key.value) != 16 or not 0 <= key.tries_left <= 255 or not 0 < key.tries <= 255:
        raise ValueError
    if not 0 <= key.key_id <= 255 or not 0 <= key.version <= 255 or key.written < 0:
        raise ValueError
    return key
