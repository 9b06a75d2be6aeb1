"""What the ledger says about the counts of cartons: signed for, and counted anew."""

from __future__ import annotations

from domain.changes import EventType
from ledger.queries import OF_NO_CARD, Queries


def signed_counts(queries: Queries, delivery_id: str) -> dict[str, int]:
    """The count of each carton of a delivery when it was signed for."""
    found = queries.rows(
        # A cross join: SQLite begins with the cartons of the delivery, not with all events.
        "select k.carton_id, e.data->>'counted' as counted from carton k cross join event e"
        f" where e.data->>'carton_id' = k.carton_id || '' and {OF_NO_CARD}"
        " and k.delivery_id = ? and e.type = ?",
        delivery_id,
        EventType.CARTON_SIGNED_FOR,
    )
    return {r["carton_id"]: int(r["counted"]) for r in found}


def carton_rows(queries: Queries, carton_id: str) -> int:
    """How many bodies a carton ever had, with those that a recount withdrew."""
    found = queries.one("select count(*) as n from body where carton_id = ?", carton_id)
    return found["n"] if found else 0


def recounts(queries: Queries, carton_id: str) -> int:
    """How often a carton was counted anew."""
    found = queries.one(
        f"select count(*) as n from event e where e.data->>'carton_id' = ? and e.type = ?"
        f" and {OF_NO_CARD}",
        carton_id,
        EventType.CARTON_RECOUNTED,
    )
    return found["n"] if found else 0
