"""Inspection lots as the ledger knows them, out of their events (no table of their own), and the
draw of a sample, which anybody can do again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from domain.changes import EventType
from ledger.connection import as_json
from ledger.queries import OF_NO_CARD, Queries


class LotState(StrEnum):
    PRESENTED = "presented"
    DRAWN = "drawn"
    ACCEPTED = "accepted"
    REFUSED = "refused"
    RELEASED = "released"
    RECALLED = "recalled"


STATES: Mapping[str, LotState] = {
    EventType.LOT_PRESENTED: LotState.PRESENTED,
    EventType.SAMPLE_DRAWN: LotState.DRAWN,
    EventType.LOT_ACCEPTED: LotState.ACCEPTED,
    EventType.LOT_REFUSED: LotState.REFUSED,
    EventType.LOT_RELEASED: LotState.RELEASED,
    EventType.LOT_RECALLED: LotState.RECALLED,
}
"""What each event makes of its lot."""


DECIDED = frozenset({LotState.ACCEPTED, LotState.RELEASED, LotState.RECALLED})
"""Nothing is to be decided about the lot any more."""
SHOWN = ("lot_id", "size", "sample_size", "accept", "nonconforming", "state")


@dataclass(frozen=True)
class Lot:
    """All cards of one bank and kind in one delivery that passed inspection."""

    lot_id: str
    batch_id: str
    delivery_id: str
    bank: str
    kind: str
    size: int
    bodies: str
    """Digest (`ledger.digests`) of its body ids in order."""
    level: str
    aql: str
    letter: str
    sample_size: int
    accept: int
    """Ac: the most nonconforming cards with which it is accepted."""
    seed: str
    """In hex, of the draw."""
    state: LotState = LotState.PRESENTED
    nonconforming: int = 0
    """Found in the sample; known when it is accepted or refused."""

    def row(self) -> dict[str, Any]:
        """What people ask for."""
        return {name: getattr(self, name) for name in SHOWN}


def lots_of(queries: Queries, batch_id: str | None = None) -> list[Lot]:
    """The lots of a batch, or all, as they stand now, in the order of their presentation."""
    lots: dict[str, Lot] = {}
    of_batch = "" if batch_id is None else f" and e.data->>'batch_id' = ? and {OF_NO_CARD}"
    for r in queries.rows(
        "select e.type, e.data from event e where e.type in (select value from json_each(?))"
        f"{of_batch} order by e.id",
        as_json(sorted(STATES)),
        *(() if batch_id is None else (batch_id,)),
    ):
        data: dict[str, Any] = json.loads(r["data"])
        if r["type"] == EventType.LOT_PRESENTED:
            lots[data["lot_id"]] = Lot(**data)
            continue
        lot = lots[data["lot_id"]]
        nonconforming = data.get("nonconforming", 0)
        lots[lot.lot_id] = replace(lot, state=STATES[r["type"]], nonconforming=nonconforming)
    return list(lots.values())


def draw(body_ids: Iterable[str], size: int, seed: bytes) -> list[str]:
    """The `size` bodies of a sample: the first in the order of SHA-256(seed ‖ body id).

    Who does not know the seed can't foretell it; who does can do it again. The order of
    `body_ids` does not matter. Raises ValueError if there are fewer bodies, or one twice.
    """
    ids = list(body_ids)
    if len(set(ids)) != len(ids):
        raise ValueError("a body stands twice in the lot")
    if not 0 <= size <= len(ids):
        raise ValueError("the sample is larger than the lot")
    return sorted(ids, key=lambda i: hashlib.sha256(seed + i.encode()).digest())[:size]
