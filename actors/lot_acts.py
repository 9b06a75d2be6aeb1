"""What two people decide about an inspection lot that was refused (`domain.custody`, lot.release
and lot.inspect). The act says so in one commit; sorting moves the cards in chunks afterwards."""

from __future__ import annotations

from typing import Any

from domain.bodies import Writing
from domain.changes import Event, EventType
from domain.codes import Code
from domain.custody import ActKind, Denied
from domain.lines import ConfirmedAct
from domain.places import Line
from ledger.lots import LotState, lots_of
from ledger.queries import Queries

EVENTS = {
    ActKind.LOT_RELEASE: EventType.LOT_RELEASED,
    ActKind.LOT_INSPECT: EventType.LOT_RECALLED,
}


def content(queries: Queries, lot_id: str, reason: str) -> dict[str, Any]:
    """What is decided upon: the lot, and what its sample said. Raises Denied."""
    lot = next((lot for lot in lots_of(queries) if lot.lot_id == lot_id), None)
    if lot is None:
        raise Denied(Code.LOT_UNKNOWN, lot_id)
    if lot.state is not LotState.REFUSED:
        raise Denied(Code.LOT_NOT_REFUSED, lot.state)
    return {
        "line": Line.SORTING,
        "batch_id": lot.batch_id,
        "size": lot.size,
        "sample_size": lot.sample_size,
        "nonconforming": lot.nonconforming,
        "reason": reason,
    }


def decide(queries: Queries, act: ConfirmedAct, writing: Writing) -> dict[str, Any]:
    """Raises Denied if the lot is refused no longer."""
    said = content(queries, act.subject, act.content["reason"])
    data = {
        "lot_id": act.subject,
        "batch_id": said["batch_id"],
        "nonconforming": said["nonconforming"],
        "act_id": act.act_id,
    }
    writing.event(Event(EVENTS[ActKind(act.kind)], data=data))
    return {"batch_id": said["batch_id"]}
