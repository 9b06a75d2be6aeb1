"""Trays on file: chips as JSON lines, and a journal of what happened to them since.

A tray is its base file with its journal replayed. Each change is one line of the journal,
written by one `write` before it takes effect, so that a process killed at any instant leaves
chips as they really were; only the line that was being written can be torn, and it is dropped.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from station_agents.virtual.memory import (
    CardMemory,
    Change,
    Key,
    KeyWritten,
    RecordWritten,
    TriesLeft,
)

FORMAT: Final = "tray/1"
HOPPER: Final = "hopper"
STACKS: Final = ("good", "rejected", "held")


class TrayFileError(ValueError):
    """A tray or journal that cannot be used; the message names file and line, never a value."""


@dataclass
class Plastic:
    """One card as it lies somewhere on the floor. `stack` is good, rejected, held, or hopper
    (which includes a card that lies in a reader and was not ejected)."""

    tray_id: str
    card_id: str
    carton_id: str
    face_number: str = field(repr=False)
    atr: bytes
    silent: bool
    memory: CardMemory
    stack: str = HOPPER
    weak: bool = False


@dataclass
class Tray:
    """A tray as it is now. `cards` by card id, those of the hopper in their order."""

    tray_id: str
    profile_id: str
    cards: dict[str, Plastic]


def journal_path(tray: Path) -> Path:
    return tray.with_suffix(".journal")


def _key_from(row: Mapping[str, Any]) -> Key:
    key = Key(row["id"], row["version"], bytes.fromhex(row["value"]), row["tries"],
              row["tries_left"])  # fmt: skip
    if len(key.value) != 16 or not 0 <= key.tries_left <= 255 or not 0 < key.tries <= 255:
        raise ValueError
    if not 0 <= key.key_id <= 255 or not 0 <= key.version <= 255:
        raise ValueError
    return key


def _card_from(tray_id: str, row: Mapping[str, Any]) -> Plastic:
    files = {
        int(file, 16): {int(tag, 16): bytes.fromhex(value) for tag, value in records.items()}
        for file, records in row["files"].items()
    }
    if any(len(value) > 253 for records in files.values() for value in records.values()):
        raise ValueError
    keys = {key.key_id: key for key in map(_key_from, row["keys"])}
    stack = row.get("stack", HOPPER)
    if stack not in (HOPPER, *STACKS):
        raise ValueError
    return Plastic(
        tray_id=tray_id,
        card_id=row["card"],
        carton_id=row["carton_id"],
        face_number=row["face_number"],
        atr=bytes.fromhex(row["atr"]),
        silent=bool(row["silent"]),
        memory=CardMemory(files, keys),
        stack=stack,
        weak=bool(row.get("weak")),
    )


def card_row(card: Plastic) -> dict[str, Any]:
    """A card as a line of the base file. `stack` stands there only if it is not the hopper,
    `weak` only if it is."""
    row: dict[str, Any] = {
        "card": card.card_id,
        "carton_id": card.carton_id,
        "face_number": card.face_number,
        "atr": card.atr.hex().upper(),
        "silent": card.silent,
        "files": {
            f"{file:02X}": {f"{tag:02X}": value.hex().upper() for tag, value in records.items()}
            for file, records in card.memory.files.items()
        },
        "keys": [
            {
                "id": key.key_id,
                "version": key.version,
                "value": key.value.hex().upper(),
                "tries": key.tries,
                "tries_left": key.tries_left,
            }
            for key in card.memory.keys.values()
        ],
    }
    if card.stack != HOPPER:
        row["stack"] = card.stack
    if card.weak:
        row["weak"] = True
    return row


def change_row(card_id: str, change: Change) -> dict[str, Any]:
    """A change of a chip's memory as a line of the journal."""
    match change:
        case TriesLeft(key_id, tries_left):
            return {"card": card_id, "tries": [key_id, tries_left]}
        case KeyWritten(key_id, version, value, tries_left):
            key = {"id": key_id, "version": version, "value": value.hex().upper(),
                   "tries_left": tries_left}  # fmt: skip
            return {"card": card_id, "key": key}
        case RecordWritten(file, tag, value):
            return {"card": card_id, "record": [f"{file:02X}", f"{tag:02X}", value.hex().upper()]}


def _replay(cards: dict[str, Plastic], row: Mapping[str, Any]) -> None:
    card = cards[row["card"]]
    if "key" in row:
        key = row["key"]
        value = bytes.fromhex(key["value"])
        card.memory.apply(KeyWritten(key["id"], key["version"], value, key["tries_left"]))
    elif "tries" in row:
        card.memory.apply(TriesLeft(*row["tries"]))
    elif "record" in row:
        file, tag, record = row["record"]
        card.memory.apply(RecordWritten(int(file, 16), int(tag, 16), bytes.fromhex(record)))
    else:
        card.stack = row["stack"]
        if card.stack == HOPPER:  # fed again: to the end
            cards[card.card_id] = cards.pop(card.card_id)


def _read_base(path: Path) -> Tray:
    tray: Tray | None = None
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            # The cause would carry the line: `from None`.
            try:
                row = json.loads(line)
                if tray is None:
                    if row["format"] != FORMAT:
                        raise TrayFileError(f"{path}: the format is not {FORMAT}")
                    tray = Tray(row["tray_id"], row["profile"], {})
                    continue
                card = _card_from(tray.tray_id, row)
            except TrayFileError:
                raise
            except (ValueError, KeyError, TypeError, AttributeError):
                raise TrayFileError(f"{path}, line {number}: not a line of a tray") from None
            if card.card_id in tray.cards:
                raise TrayFileError(f"{path}, line {number}: card {card.card_id} stands twice")
            tray.cards[card.card_id] = card
    if tray is None:
        raise TrayFileError(f"{path}: empty")
    return tray


def read_tray(path: Path) -> tuple[Tray, int]:
    """The tray at `path` with its journal replayed, and the length in bytes of the journal's
    whole lines. Raises TrayFileError, or OSError if the base file cannot be read."""
    tray = _read_base(path)
    journal = journal_path(path)
    data = journal.read_bytes() if journal.exists() else b""
    whole = data.rfind(b"\n") + 1
    for number, line in enumerate(data[:whole].splitlines(), 1):
        try:
            _replay(tray.cards, json.loads(line))
        except (ValueError, KeyError, TypeError):
            raise TrayFileError(f"{journal}, line {number}: not a line of a journal") from None
    return tray, whole


def write_base(path: Path, tray: Tray, cards: Iterable[Plastic]) -> None:
    """Write a base file with `cards` in that order, atomically: readers see the old file or the
    new one, and the new one is on the disk when this returns."""
    header = {"format": FORMAT, "tray_id": tray.tray_id, "profile": tray.profile_id}
    new = path.with_name(path.name + ".new")
    with new.open("w", encoding="utf-8") as file:
        for row in (header, *map(card_row, cards)):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())
    new.rename(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


class OpenTray:
    """A tray with its journal open for writing; only one process can have it open.

    Raises TrayFileError if another process has it, or if the files cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._journal = os.open(
            journal_path(path), os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
        )
        try:
            fcntl.flock(self._journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.tray, whole = read_tray(path)
            # What follows a torn line must not become part of it.
            os.ftruncate(self._journal, whole)
        except BlockingIOError:
            os.close(self._journal)
            raise TrayFileError(f"{path}: another process has this tray open") from None
        except BaseException:
            os.close(self._journal)
            raise

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Put `rows` on file with one write. Raises OSError and leaves the journal as it was if
        they do not fit as a whole."""
        data = b"".join(json.dumps(r, separators=(",", ":")).encode() + b"\n" for r in rows)
        written = os.write(self._journal, data)
        if written != len(data):
            os.ftruncate(self._journal, os.fstat(self._journal).st_size - written)
            raise OSError(f"{self.path.name}: the journal took {written} of {len(data)} bytes")

    def change(self, card_id: str, change: Change) -> None:
        """Put a change of a chip's memory on file."""
        self.append([change_row(card_id, change)])

    def compact(self, order: Iterable[Plastic]) -> None:
        """Make the chips as they are now the base file, in this order, and empty the journal.

        After a crash in between, the old journal is replayed over the new base: every line sets
        a value outright, so the chips come out the same and none is lost or doubled.
        """
        cards = list(order)
        if len(cards) != len(self.tray.cards):
            raise ValueError(f"{len(cards)} cards to write, {len(self.tray.cards)} in the tray")
        write_base(self.path, self.tray, cards)
        os.ftruncate(self._journal, 0)

    def close(self) -> None:
        os.close(self._journal)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
