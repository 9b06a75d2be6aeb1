"""The story of a card: what the ledger says of it, and what really happened."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ledger.history import body_history
from ledger.queries import Queries
from proof.simulation.trace import Trace

LAST_LINES = 25
MOST_CARDS = 6


def story(path: Path, trace: Trace, cards: Iterable[str]) -> str:
    """In words, oldest first: the history of these cards (by any of their names), every line of
    the trace that is about one of them, and the last lines of the trace."""
    names = list(dict.fromkeys(cards))[:MOST_CARDS]
    told: list[str] = []
    queries = Queries(path)
    try:
        for name in names:
            history = body_history(queries, name)
            if history:
                told.append(f"The ledger about {name}:")
                told += [f"  {s.at} {s.line} {s.number}: {s.words}" for s in history]
                names += [s.body_id for s in history if s.body_id]
                names += [s.order_id for s in history if s.order_id]
                break
    finally:
        queries.close()
    about = {*names}
    mine = [line for line in trace.lines if about & {*line.cards}]
    if mine:
        told.append("What happened to it:")
        told += [f"  {line}" for line in mine]
    told.append("The last that happened on the floor:")
    told += [f"  {line}" for line in trace.lines[-LAST_LINES:]]
    return "\n".join(told)
