"""What is asked about leases of stations (`domain.bodies.Body.leased_to`)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from domain.bodies import Body
from domain.changes import EventType
from domain.codes import Code
from domain.places import Line, held
from ledger.connection import as_json
from ledger.queries import Queries


def run_out(queries: Queries, place: str, now: str, limit: int) -> list[Body]:
    """Bodies at `place` whose lease is over at `now`, the longest first."""
    return queries.bodies(
        "b.leased_until <> '' and b.leased_until <= ? and b.place = ?"
        " order by b.leased_until, b.body_id limit ?",
        now, place, limit,
    )  # fmt: skip


def in_doubt(queries: Queries, limit: int) -> list[dict[str, Any]]:
    """Bodies that may have been written and were not seen since, the longest first: `body_id`,
    `carton_id`, `station` that had it, `until` when."""
    return queries.rows(
        "select body_id, carton_id, leased_to as station, leased_until as until from body"
        " where place = ? and condition = ? order by leased_until, body_id limit ?",
        held(Line.KEY_REPLACEMENT), Code.IN_DOUBT, limit,
    )  # fmt: skip


@dataclass(frozen=True)
class Doubts:
    """How many bodies are in doubt, the one that is longest, and since when (ISO 8601)."""

    cards: int
    oldest: str
    since: str


def doubts(queries: Queries) -> Doubts | None:
    """None if there are none."""
    found = queries.one(
        "select count(*) over () as cards, body_id, leased_until from body"
        " where place = ? and condition = ? order by leased_until, body_id limit 1",
        held(Line.KEY_REPLACEMENT), Code.IN_DOUBT,
    )  # fmt: skip
    return Doubts(found["cards"], found["body_id"], found["leased_until"]) if found else None


def leased_in(queries: Queries, presentations: Sequence[str]) -> dict[str, Body]:
    """Bodies that a session has a lease of, or had when they came to be in doubt."""
    found = queries.bodies(
        "b.leased_until <> '' and b.leased_in in (select value from json_each(?))",
        as_json(presentations),
    )
    return {b.leased_in: b for b in found}


def transcripts_of(queries: Queries, body_ids: Sequence[str]) -> set[tuple[str, int]]:
    """Presentation and turn of every late transcript that was kept of these bodies."""
    found = queries.rows(
        "select data from event where type = ? and body_id <> ''"
        " and body_id in (select value from json_each(?))",
        EventType.TRANSCRIPT_KEPT, as_json(body_ids),
    )  # fmt: skip
    kept = [json.loads(r["data"]) for r in found]
    return {(k["presentation"], k["turn"]) for k in kept}
