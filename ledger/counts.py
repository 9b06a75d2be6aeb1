"""What the ledger says about the counts of cartons: signed for, and counted anew."""

from __future__ import annotations

from domain.changes import EventType
from ledger.queries import Queries


def signed_counts(queries: Queries, delivery_id: str) -> dict[str, int]:
    """The count of each carton of a delivery when it was signed for."""
    found = queries.rows(
        "select data->>'carton_id' as carton_id, data->>'counted' as counted from event"
        " where type = ? and data->>'delivery_id' = ?",
        EventType.CARTON_SIGNED_FOR,
        delivery_id,
    )
    return {r["carton_id"]: int(r["counted"]) for r in found}


def carton_rows(queries: Queries, carton_id: str) -> int:
    """How many bodies a carton ever had, with those that a recount withdrew."""
    found = queries.one("select count(*) as n from body where carton_id = ?", carton_id)
    return found["n"] if found else 0


def recounts(queries: Queries, carton_id: str) -> int:
    """How often a carton was counted anew."""
    found = queries.one(
        "select count(*) as n from event where type = ? and data->>'carton_id' = ?",
        EventType.CARTON_RECOUNTED,
        carton_id,
    )
    return found["n"] if found else 0
