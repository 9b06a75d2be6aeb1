"""How the lines get on, out of the ledger: what lies before each, how fast it goes, what is open.

For screens that ask every second: places are sought in an index, and rates look at the newest
events only, so that a ledger of years answers as fast as one of a day.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from domain.changes import SENDING, EventType
from domain.places import CARD_LINES, LEGAL, STOCK_MOVES, VAULT, owner, standing
from ledger.connection import as_json
from ledger.queries import OF_NO_CARD, Queries
from ledger.summary import OUTSIDE, STAGES, seconds_between

RATE_SECONDS = 60.0
RATE_EVENTS = 20_000
"""Of the newest events at most so many count; a floor that makes more in a minute, or has not run
for one, is rated over the seconds that they cover."""

INSIDE = sorted(
    place
    for place in {p for _, p in LEGAL | STOCK_MOVES} - {"courier"}
    if standing(place) not in OUTSIDE
)
"""Every place that a body can be at without having left, or having been withdrawn."""


@dataclass(frozen=True)
class Progress:
    """A line: bodies on their way to it, in its work, set apart by it; bodies that left it a
    minute, over the last minute; its last commit (ISO 8601, empty: none)."""

    line: str
    waiting: int
    in_work: int
    rejected: int
    held: int
    per_minute: float
    last_at: str


def progress_of_lines(queries: Queries, now: str) -> list[Progress]:
    """Of all lines that have cards, in working order. `now` in the form of the times of commits."""
    bodies: dict[str, dict[str, int]] = {
        line: dict.fromkeys(("waiting", "in_work", "rejected", "held"), 0) for line in CARD_LINES
    }
    for r in queries.rows(
        "select place, count(*) as n from body"
        " where place in (select value from json_each(?)) group by place",
        as_json(INSIDE),
    ):
        bodies[owner(r["place"])][_column(r["place"])] += r["n"]
    rates = _rates(queries, now)
    return [
        Progress(
            line, **bodies[line], per_minute=rates.get(line, 0.0), last_at=_last(queries, line)
        )
        for line in CARD_LINES
    ]


def _column(place: str) -> str:
    if place == VAULT or place.startswith("transit/"):
        return "waiting"
    last = place.partition("/")[2]
    return last if last in ("rejected", "held") else "in_work"


def _last(queries: Queries, line: str) -> str:
    found = queries.one(
        "select at from commit_link where line = ? order by number desc limit 1", line
    )
    return found["at"] if found else ""


def _rates(queries: Queries, now: str) -> dict[str, float]:
    """Bodies a minute by line: those that left its last stage."""
    end = datetime.fromisoformat(now)
    since = (end - timedelta(seconds=RATE_SECONDS)).isoformat(timespec="milliseconds")
    last = queries.one("select max(id) as id from event")
    first = ((last and last["id"]) or 0) - RATE_EVENTS
    oldest = queries.one(
        "select c.at from event e join commit_link c on c.line = e.line and c.number = e.number"
        " where e.id > ? order by e.id limit 1",
        first,
    )
    if oldest is None:
        return {}
    seconds = min(RATE_SECONDS, seconds_between(oldest["at"], now))
    counted = {
        (r["line"], r["type"]): r["n"]
        for r in queries.rows(
            "select e.line, e.type, count(*) as n from"
            " (select line, number, type from event where id > ? order by id limit ?) e"
            " join commit_link c on c.line = e.line and c.number = e.number"
            " where c.at >= ? group by e.line, e.type",
            first,
            RATE_EVENTS,
            since,
        )
    }
    # Of the stages of one line the last one counts, with which a body is done there.
    leaving = {pairs[0][0]: pairs for pairs in STAGES.values()}
    return {
        line: 60.0 / max(seconds, 1.0) * sum(counted.get((str(n), str(t)), 0) for n, t in pairs)
        for line, pairs in leaving.items()
    }


def open_outbox(queries: Queries) -> list[dict[str, Any]]:
    """What has not left or was not taken yet: `id`, `kind`, `batch_id`, `at` (since when)."""
    return queries.rows(
        "select o.id, o.kind, o.batch_id, coalesce((select max(c.at) from event e"
        "  join commit_link c on c.line = e.line and c.number = e.number"
        f"  where e.data->>'batch_id' = o.batch_id || '' and {OF_NO_CARD}"
        "  and e.type in (select value from json_each(?))"
        "  and e.data->'outbox'->>o.id is not null), '') as at"
        " from outbox o where o.acknowledged = 0 order by o.id",
        as_json(SENDING),
    )


def open_batches(queries: Queries) -> list[str]:
    """Batches whose centre return was not taken yet."""
    found = queries.rows(
        "select f.batch_id from file_in f where f.closed = 0 and f.kind <> 'correction'"
        " union select o.batch_id from outbox o where o.kind = 'centre_return'"
        " and o.acknowledged = 0 order by 1"
    )
    return [r["batch_id"] for r in found]


@dataclass(frozen=True)
class Unscanned:
    """Packages of a batch that wait for their scan: how many, the first of them, and when one
    was last opened or closed (ISO 8601)."""

    batch_id: str
    packages: int
    first: str
    at: str


def unscanned_packages(queries: Queries) -> list[Unscanned]:
    """By batch, of those that have some."""
    return [
        Unscanned(r["batch_id"], r["n"], r["first"], _last_packing(queries, r["batch_id"]))
        for r in queries.rows(
            "select batch_id, count(*) as n, min(package_id) as first from package"
            " where state = 'open' group by batch_id order by batch_id"
        )
    ]


def _last_packing(queries: Queries, batch_id: str) -> str:
    """Backwards from the newest, and no further than the batch's packages were opened."""
    last: dict[str, Any] = {"id": 0, "at": ""}
    for event_type in (EventType.PACKAGE_OPENED, EventType.PACKAGE_CLOSED):
        found = queries.one(
            "select e.id, c.at from event e"
            " join commit_link c on c.line = e.line and c.number = e.number"
            f" where e.data->>'batch_id' = ? and e.type = ? and e.id > ? and {OF_NO_CARD}"
            " order by e.id desc limit 1",
            batch_id,
            event_type,
            last["id"],
        )
        last = found or last
    return str(last["at"])
