"""What is asked about stock-takes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from domain.bodies import Body
from domain.changes import EventType
from domain.codes import Code
from domain.places import Line, held, owner
from ledger.connection import as_json
from ledger.queries import Queries


def counts_of(queries: Queries, line: str) -> int:
    """How many counts a line has kept."""
    found = queries.one(
        "select count(*) as n from event where type = ? and line = ?",
        EventType.STOCK_COUNTED, line,
    )  # fmt: skip
    return int(found["n"]) if found else 0


def count(queries: Queries, count_id: str) -> dict[str, Any] | None:
    """What a count found, as its event says."""
    found = queries.one(
        "select data from event where type = ? and data->>'count_id' = ?",
        EventType.STOCK_COUNTED, count_id,
    )  # fmt: skip
    return json.loads(found["data"]) if found else None


def cartons_of_orders(queries: Queries, order_ids: Sequence[str]) -> dict[str, str]:
    """The carton that the factory return names for each of these orders."""
    found = queries.rows(
        "select order_id, carton_id from orders where order_id in (select value from json_each(?))",
        as_json(order_ids),
    )
    return {r["order_id"]: r["carton_id"] for r in found}


def missing_from(queries: Queries, place: str, carton_id: str) -> list[Body]:
    """Bodies (of a carton, or of all) that were missed at this place and not found again."""
    bodies = queries.bodies(
        "b.place = ? and b.condition = ? and ? in ('', b.carton_id)",
        held(Line(owner(place))), Code.STOCK_MISSING, carton_id,
    )  # fmt: skip
    last = _last_missed(queries, [b.body_id for b in bodies])
    return [b for b in bodies if last[b.body_id]["was_place"] == place]


def conditions_before(queries: Queries, body_ids: Sequence[str]) -> dict[str, str]:
    """The condition of each of these missing bodies when it was missed."""
    return {k: v["was_condition"] for k, v in _last_missed(queries, body_ids).items()}


def _last_missed(queries: Queries, body_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    rows = queries.rows(
        "select body_id, data from event where type = ? and body_id <> ''"
        " and body_id in (select value from json_each(?)) order by line, number, position",
        EventType.STOCK_MISSING, as_json(body_ids),
    )  # fmt: skip
    return {r["body_id"]: json.loads(r["data"]) for r in rows}
