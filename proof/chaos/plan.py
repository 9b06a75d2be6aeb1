"""When to kill and whom: all of it follows from the seed, and from how far the run is."""

from __future__ import annotations

from collections.abc import Collection
from random import Random

from domain.changes import EventType
from domain.places import AFTER_INSPECTION, PACKED, PACKING, VAULT, Line, transit, work
from ledger.connection import as_json
from ledger.queries import Queries

LAST_MOMENT = 0.95
"""So that whoever is killed last still has something to do."""
_OPENING = (
    EventType.RETURN_ACCEPTED, EventType.NOTE_ACCEPTED, EventType.KEY_ACTIVATED,
    EventType.CARTON_SIGNED_FOR, EventType.CORRECTION_ACCEPTED,
)  # fmt: skip
_OPENING_SHARE = 0.05
_SHARES = {
    VAULT: 0.0,
    transit(Line.INVENTORY, Line.KEY_REPLACEMENT): 0.0,
    work(Line.KEY_REPLACEMENT): 0.0,
    transit(Line.KEY_REPLACEMENT, Line.INSPECTION): 0.4,
    **dict.fromkeys(AFTER_INSPECTION, 0.8),
    PACKING: 0.85,
    PACKED: 0.95,
}
"""How much of its way is behind a card at a place; all of it at a place that is not here."""


class Plan:
    """`kills` moments, and a shuffled deck of victims for them: all kinds come about equally
    often, and a kind that is not alive when its turn comes has the next one."""

    def __init__(self, seed: int, kills: int) -> None:
        self._random = Random(f"chaos/{seed}")
        self.moments = sorted(self._random.uniform(0.0, LAST_MOMENT) for _ in range(kills))
        """As shares of the whole run, in 0…LAST_MOMENT."""
        self._deck: list[str] = []

    def choose(self, alive: Collection[str]) -> str | None:
        """The next victim of those that are alive; None if nobody is."""
        known = sorted(alive)
        if not set(self._deck) & set(known):
            self._deck += self._random.sample(known, len(known))
        for name in self._deck:
            if name in known:
                self._deck.remove(name)
                return name
        return None


def progress(queries: Queries, batch_id: str) -> float:
    """How far the batch is, 0…1, out of the ledger: its opening, and how much of their way its
    cards have behind them."""
    seen = queries.one(
        "select count(*) as n from (select distinct type from event where type in"
        " (select value from json_each(?))) as seen",
        as_json([str(t) for t in _OPENING]),
    )
    opening = (seen["n"] if seen else 0) / len(_OPENING)
    places = queries.rows(
        "select place, count(*) as n from body where batch_id = ? group by place", batch_id
    )
    cards = sum(r["n"] for r in places)
    gone = sum(r["n"] * _SHARES.get(r["place"], 1.0) for r in places)
    share = gone / cards if cards else 0.0
    return _OPENING_SHARE * opening + (1 - _OPENING_SHARE) * share


def commits(queries: Queries) -> int:
    """How many commits the ledger has: it grows as long as anything goes on."""
    found = queries.one(
        "select sum(last) as n from"
        " (select max(number) as last from commit_link group by line) as lines"
    )
    return int((found and found["n"]) or 0)
