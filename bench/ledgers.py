"""The ledger by itself, on both databases: what a card costs with and without years of history,
transitions a second, and how soon a line is back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench import commits, flat

FLAT = 1.2
"""A card with history costs at most so many times what one without costs."""
RECOVERY_SECONDS = 2.0


@dataclass(frozen=True)
class Size:
    history: int = 1_000_000
    """Cards."""
    template: int = flat.TEMPLATE_CARDS
    rounds: int = 5
    cards: int = 250
    """Of a round."""
    seconds: float = 1.0
    """Of each number of lines with each chunk; 0: not measured."""
    open_cards: int = 10_000
    """Of the line that comes back; 0: not measured."""


def measure(databases: Sequence[flat.Place], size: Size, kept: Path, place: Path) -> dict[str, Any]:
    """All figures; `kept` is a directory for what is made once (the template), `place` an empty
    one."""
    template = flat.template_of(kept, place / "template", size.template)
    figures: dict[str, Any] = {"ledgers": [], "transitions": [], "recovery": []}
    for database in databases:
        name, at = database.name, place / database.name
        if size.seconds:
            url = database.new("commits")
            figures["transitions"] += map(asdict, commits.measure(name, url, size.seconds))
        if size.open_cards:
            url = database.new("recovery")
            back = commits.recover(at / "recovery", name, url, size.open_cards)
            figures["recovery"].append(asdict(back))
        batches = max(1, size.history // template.cards)
        url = flat.load(database, "history", template, batches)
        cards = batches * template.cards
        found = flat.measure(at, database, url, cards, "history", size.rounds, size.cards)
        figures["ledgers"].append({**asdict(found), "ratio": round(found.ratio, 3)})
        database.remove("history")
    return figures


def page(figures: Mapping[str, Any]) -> str:
    """Of `RESULTS.md`."""
    rows = [
        (
            each["database"],
            f"{each['cards']:,}",
            f"{each['ms'][0]:.2f}",
            f"{each['ms'][1]:.2f}",
            each["ratio"],
            f"{each['per_second'][0]:.1f}",
            f"{each['per_second'][1]:.1f}",
            f"{each['bytes_per_card'] / 1_000:.1f}",
        )
        for each in figures["ledgers"]
    ]
    head = ("database", "cards of history", "ms a card without", "with", f"ratio (≤ {FLAT})",
            "cards/s without", "with", "kB of disk a card")  # fmt: skip
    parts = [
        "## A ledger of years, on both databases",
        table(head, rows),
        "Whole batches through all lines in one process, from the factory return to the\n"
        "acknowledged centre return, in a new ledger and in one with history, in turn; processor\n"
        "time of lines and database together, the chips not.",
        _asked(figures["ledgers"]),
    ]
    if figures["transitions"]:
        parts.append(_transitions(figures["transitions"]))
    for each in figures["recovery"]:
        parts.append(
            f"A line with {each['cards']:,} open cards is back in {each['seconds']:.2f} s on"
            f" {each['database']} (aim: {RECOVERY_SECONDS:.0f} s): new epoch, and a chip of every"
            " carton answered."
        )
    return "\n\n".join(parts)


def _asked(ledgers: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        (name, *(f"{ms:.2f}" for each in ledgers for ms in each["asked"][name]))
        for name in ledgers[0]["asked"]
    ]
    head = ("asked all the time, ms", *(
        f"{each['database']}{which}" for each in ledgers for which in ("", ", with history")
    ))  # fmt: skip
    return table(head, rows)


def _transitions(carried: Sequence[Mapping[str, Any]]) -> str:
    by = {(c["database"], c["lines"], c["chunk"]): c["per_second"] for c in carried}
    columns = sorted({(database, lines) for database, lines, _ in by}, key=lambda c: (c[0], c[1]))
    rows = [
        (chunk, *(f"{by[(*column, chunk)]:.0f}" for column in columns))
        for chunk in sorted({chunk for _, _, chunk in by})
    ]
    head = ("cards a commit", *(f"{database}, {lines} lines" for database, lines in columns))
    return (
        "Durable transitions a second (a card moved: an event, its part of a movement, a guarded"
        f" row):\n\n{table(head, rows)}\n\n"
        "On SQLite one process commits for all lines; on PostgreSQL each line is a process of its"
        " own."
    )


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
