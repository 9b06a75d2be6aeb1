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

from station_agents.virtual import tray_rows
from station_agents.virtual.memory import CardMemory, Change

FORMAT: Final = "tray/2"
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


def _card_from(tray_id: str, row: Mapping[str, Any]) -> Plastic:
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
        memory=tray_rows.memory_from(row),
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
        **tray_rows.memory_row(card.memory),
    }
    if card.stack != HOPPER:
        row["stack"] = card.stack
    if card.weak:
        row["weak"] = True
    return row


def _replay(cards: dict[str, Plastic], row: dict[str, Any]) -> None:
    card = cards[row.pop("card")]
    if "stack" not in row:
        card.memory.apply(tray_rows.change_from(row))
        return
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
                        found = str(row["format"])[:20]
                        raise TrayFileError(
                            f"{path}: the format is {found}, not {FORMAT}: make the delivery anew"
                        )
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
        self.append([{"card": card_id, **tray_rows.change_row(change)}])

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
