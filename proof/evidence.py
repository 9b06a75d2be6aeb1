"""What an auditor of a home looks at besides the ledger, and how a broken promise is told.

Plastic, what the factory truly did, what came in, what went out. Read from files as docs/files.md
describes them; no code is shared with those who wrote them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Row = dict[str, Any]


class BrokenPromise(AssertionError):
    """Something does not fit. `card`: the order or body concerned first, empty if none is."""

    def __init__(self, promise: str, card: str = "") -> None:
        super().__init__(f"{promise}: {card}" if card else promise)
        self.card = card


def same(found: Mapping[str, Any], expected: Mapping[str, Any], promise: str) -> None:
    """Raise BrokenPromise for the first key (a card, an order, a package) that one side has and
    the other has not, or has otherwise."""
    for key in sorted(found.keys() | expected.keys()):
        if found.get(key) != expected.get(key):
            differ = sum(found.get(k) != expected.get(k) for k in found.keys() | expected.keys())
            raise BrokenPromise(
                f"{promise}: {differ} differ, first {found.get(key)!r} for {expected.get(key)!r}",
                key,
            )


def once(keys: list[str], promise: str) -> None:
    """Raise BrokenPromise for the first that is there twice."""
    seen: set[str] = set()
    for key in keys:
        if key in seen:
            raise BrokenPromise(f"{promise} twice", key)
        seen.add(key)


def rows_of(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def plastic(directory: Path) -> dict[str, Row]:
    """All cards of the trays there, by ticket (`tray/card`), as they lie at the end."""
    cards = {}
    for tray in sorted(directory.glob("tray-*.jsonl")):
        journal = tray.with_suffix(".journal")
        if journal.exists() and journal.read_bytes():
            raise BrokenPromise(f"{tray} was not put away")
        head, *rows = rows_of(tray)
        cards.update({f"{head['tray_id']}/{row['card']}": row for row in rows})
    return cards


def holding(lines: list[Row]) -> list[Row]:
    """The lines of the returns of one batch that no revision has superseded. Raises BrokenPromise
    if a final one was, one was twice, or a line is there twice."""
    by_number = {r["line"]: r for r in lines}
    once([str(r["line"]) for r in lines], "a line of the return")
    superseded = [n for r in lines for n in r["supersedes"]]
    once([str(n) for n in superseded], "a line of the return was superseded")
    for number in superseded:
        if by_number[number]["final"]:
            raise BrokenPromise("a final line was superseded", by_number[number]["order_id"])
    return [by_number[n] for n in sorted(by_number.keys() - set(superseded))]


@dataclass(frozen=True)
class Evidence:
    """Everything outside the ledger about the delivery of a demo, by its own keys."""

    home: Path
    cards: dict[str, Row]
    """Plastic by card id, as it lies in the trays at the end."""
    truth: Row
    records: list[Row]
    lines: list[Row]
    received: list[Row]
    """The centre return as card management has it; of it, too, the lines that hold."""
    summary: Row
    note: Row
    receipt: Row
    """What the factory return was answered."""

    @classmethod
    def read(cls, home: Path) -> Evidence:
        sent = home / "sent"
        return cls(
            home,
            {row["card"]: row for row in plastic(home / "trays").values()},
            json.loads((sent / "truth.json").read_text("utf-8")),
            rows_of(sent / "factory_return.jsonl"),
            holding([r for f in (home / "return").glob("*.jsonl") for r in rows_of(f)]),
            holding([r for f in (sent / "received").glob("*.jsonl") for r in rows_of(f)]),
            json.loads((home / "summary.json").read_text("utf-8")),
            json.loads((sent / "delivery_note.json").read_text("utf-8")),
            json.loads((sent / "receipt-factory-return.json").read_text("utf-8")),
        )
