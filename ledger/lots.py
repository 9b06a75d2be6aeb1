"""Inspection lots as the ledger knows them: out of their events, no table of their own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from domain.changes import EventType
from ledger.connection import as_json
from ledger.queries import Queries


class LotState(StrEnum):
    PRESENTED = "presented"
    DRAWN = "drawn"
    ACCEPTED = "accepted"
    REFUSED = "refused"


STATES: Mapping[str, LotState] = {
    EventType.LOT_PRESENTED: LotState.PRESENTED,
    EventType.SAMPLE_DRAWN: LotState.DRAWN,
    EventType.LOT_ACCEPTED: LotState.ACCEPTED,
    EventType.LOT_REFUSED: LotState.REFUSED,
}
"""What each event makes of its lot."""


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


def lots_of(queries: Queries, batch_id: str) -> list[Lot]:
    """The lots of a batch as they stand now, in the order in which they were presented."""
    lots: dict[str, Lot] = {}
    for r in queries.rows(
        "select type, data from event where type in (select value from json_each(?))"
        " and data->>'batch_id' = ? order by id",
        as_json(sorted(STATES)),
        batch_id,
    ):
        data: dict[str, Any] = json.loads(r["data"])
        if r["type"] == EventType.LOT_PRESENTED:
            lots[data["lot_id"]] = Lot(**data)
            continue
        lot = lots[data["lot_id"]]
        nonconforming = data.get("nonconforming", 0)
        lots[lot.lot_id] = replace(lot, state=STATES[r["type"]], nonconforming=nonconforming)
    return list(lots.values())
