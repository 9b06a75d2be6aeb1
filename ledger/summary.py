"""What the centre has to say about its bodies, out of the ledger: sums of movements, no counters.

advised + surplus = received + missing
received = shipped + rejected + held + in_work + destroyed
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from domain.changes import EventType
from domain.codes import Code
from domain.places import Kind, Line, Standing, standing
from ledger.connection import as_json
from ledger.lots import lots_of
from ledger.queries import Queries

COUNTS = (
    "advised", "surplus", "received", "missing", "shipped", "rejected", "held", "in_work",
    "destroyed",
)  # fmt: skip
OUTSIDE = frozenset({Standing.ADVISED, Standing.SURPLUS, Standing.MISSING})
SHORTEST_SECONDS = 0.001

Counts = dict[str, int]
Groups = dict[tuple[str, str], Counts]
"""Counts by (bank, kind)."""

STAGES: Mapping[str, tuple[tuple[Line, EventType], ...]] = {
    "receiving": ((Line.INVENTORY, EventType.BODY_RECEIVED),),
    "key_replacement": (
        (Line.KEY_REPLACEMENT, EventType.KEYS_REPLACED),
        (Line.KEY_REPLACEMENT, EventType.BODY_REJECTED),
        (Line.KEY_REPLACEMENT, EventType.BODY_HELD),
        (Line.KEY_REPLACEMENT, EventType.BODY_RECEIVED),
    ),
    "inspection": (
        (Line.INSPECTION, EventType.INSPECTED),
        (Line.INSPECTION, EventType.BODY_REJECTED),
        (Line.INSPECTION, EventType.BODY_HELD),
    ),
    "sorting": ((Line.SORTING, EventType.BODY_SORTED),),
    "sampling": (
        (Line.SAMPLING, EventType.SAMPLE_PASSED),
        (Line.SAMPLING, EventType.BODY_REJECTED),
    ),
    "packing": ((Line.SORTING, EventType.BODY_PACKED),),
    "shipping": ((Line.SORTING, EventType.BODY_SHIPPED),),
}
"""The events with which a card leaves a stage, done or set apart."""
UNDONE = {"receiving": (Line.INVENTORY, EventType.BODY_WITHDRAWN)}
"""The event by which a stage had one card less: a recount found that it never was there."""
OPTIONAL_STAGES = frozenset({"sampling"})
"""Not every floor has them: they are named where something happened."""


def summary(queries: Queries, batch_id: str | None = None) -> dict[str, Any]:
    """The counts of COUNTS, `reconciled`, `banks` (by code, the same counts), `stages` (by stage:
    cards, seconds, cards_per_second) and `lots` (inspection lots: `ledger.lots.SHOWN`), of the
    whole ledger or of one batch.

    `reconciled`: per bank and kind both equations hold, nothing is negative, the balances equal
    the rows of `body`, and what is advised equals orders and noted temporary cards. Movements
    name no batch, so the numbers of one batch come from its orders, cartons, bodies and events.
    """
    groups = _from_movements(queries) if batch_id is None else _of_batch(queries, batch_id)
    rows = _body_rows(queries, batch_id)
    advised = _advised(queries, batch_id)
    reconciled = all(
        _holds(groups.get(key, _none()), rows.get(key, _none()), advised.get(key, 0))
        for key in {*groups, *rows, *advised}
    )
    banks: dict[str, Counts] = {}
    for (bank, _), counts in sorted(groups.items()):
        banks[bank] = _sum((banks.get(bank, _none()), counts))
    return {
        **_sum(groups.values()),
        "reconciled": reconciled,
        "banks": banks,
        "stages": stages(queries, batch_id),
        "lots": [lot.row() for lot in lots_of(queries, batch_id)],
    }


def _none() -> Counts:
    return dict.fromkeys(COUNTS, 0)


def _sum(many: Iterable[Counts]) -> Counts:
    total = _none()
    for counts in many:
        for name in COUNTS:
            total[name] += counts[name]
    return total


def _holds(counts: Counts, rows: Counts, advised: int) -> bool:
    inside = ("shipped", "rejected", "held", "in_work", "destroyed")
    return (
        counts["advised"] + counts["surplus"] == counts["received"] + counts["missing"]
        and counts["received"] == sum(counts[name] for name in inside)
        and all(n >= 0 for n in counts.values())
        and all(counts[name] == rows[name] for name in ("received", *inside))
        and counts["advised"] == advised
    )


def _from_movements(queries: Queries) -> Groups:
    """Balances of all accounts by standing. What is owed from outside is negative there and
    counts positive here; `received` is counted where bodies come in, not as a sum of the rest."""
    groups: Groups = defaultdict(_none)
    for r in queries.rows(
        "select bank, kind, source_place, target_place, sum(count) as n from movement"
        " group by bank, kind, source_place, target_place"
    ):
        counts = groups[r["bank"], r["kind"]]
        source, target = standing(r["source_place"]), standing(r["target_place"])
        counts[source] += r["n"] if source in (Standing.ADVISED, Standing.SURPLUS) else -r["n"]
        counts[target] += -r["n"] if target in (Standing.ADVISED, Standing.SURPLUS) else r["n"]
        if (source in OUTSIDE) != (target in OUTSIDE):
            counts["received"] += r["n"] if source in OUTSIDE else -r["n"]
    return dict(groups)


def _batch_clause(batch_id: str | None, column: str) -> tuple[str, tuple[str, ...]]:
    return ("", ()) if batch_id is None else (f" and {column} = ?", (batch_id,))


def _body_rows(queries: Queries, batch_id: str | None) -> Groups:
    """Rows of `body` by standing."""
    where, parameters = _batch_clause(batch_id, "batch_id")
    groups: Groups = defaultdict(_none)
    for r in queries.rows(
        "select bank, kind, place, count(*) as n from body"
        f" where place not like 'factory/%'{where} group by bank, kind, place",
        *parameters,
    ):
        counts = groups[r["bank"], r["kind"]]
        counts[standing(r["place"])] += r["n"]
        counts["received"] += r["n"]
    return groups


def _advised(queries: Queries, batch_id: str | None) -> dict[tuple[str, str], int]:
    """Bodies of accepted return records, and temporary cards on delivery notes."""
    where, parameters = _batch_clause(batch_id, "batch_id")
    advised = {
        (r["bank"], str(Kind.SOCIAL_SECURITY_CARD)): int(r["n"])
        for r in queries.rows(
            f"select bank, count(*) as n from orders where true{where} group by bank", *parameters
        )
    }
    for r in queries.rows(
        f"select bank, kind, sum(noted) as n from carton where kind = ?{where} group by bank, kind",
        Kind.TEMPORARY_CARD,
        *parameters,
    ):
        advised[r["bank"], r["kind"]] = int(r["n"])
    return advised


def _of_batch(queries: Queries, batch_id: str) -> Groups:
    """One batch. By count, a card is surplus or missing as counted and advised differ; each card
    that was read and has no accepted record (`settled_group`) is surplus for one that is
    missing, and each card beyond its carton's count is surplus."""
    groups: Groups = defaultdict(_none)
    for key, n in _advised(queries, batch_id).items():
        groups[key]["advised"] = n
    for key, rows in _body_rows(queries, batch_id).items():
        groups[key] |= {name: n for name, n in rows.items() if name not in OUTSIDE}
    beyond: dict[tuple[str, str], int] = defaultdict(int)
    for r in queries.rows(
        "select bank, kind, count(*) as n from body where batch_id = ? and condition = ?"
        " group by bank, kind",
        batch_id,
        Code.OVER_COUNT,
    ):
        beyond[r["bank"], r["kind"]] = r["n"]
        groups[r["bank"], r["kind"]]["surplus"] += r["n"]
    for key, row in queries.settled_groups(batch_id).items():
        groups[key]["surplus"] += row["stand_ins"]
        groups[key]["missing"] += row["stand_ins"]
    for key, counts in groups.items():
        counted = counts["received"] - beyond[key]
        counts["surplus"] += max(0, counted - counts["advised"])
        counts["missing"] += max(0, counts["advised"] - counted)
    return dict(groups)


def stages(queries: Queries, batch_id: str | None = None) -> dict[str, dict[str, Any]]:
    """By stage: cards that left it, seconds, cards a second. A commit is stamped when its work is
    done, so a stage counts from the last commit of any line before its own first one."""
    join = (
        ""
        if batch_id is None
        else " join body b on b.body_id = e.body_id and e.body_id <> '' and b.batch_id = ?"
    )
    parameters = () if batch_id is None else (batch_id,)
    found = {
        (r["line"], r["type"]): r
        for r in queries.rows(
            "select e.line, e.type, count(*) as n, min(c.at) as first, max(c.at) as last"
            f" from event e join commit_link c on c.line = e.line and c.number = e.number{join}"
            " where e.type in (select value from json_each(?)) group by e.line, e.type",
            *parameters,
            as_json(sorted({str(t) for s in (*STAGES.values(), UNDONE.values()) for _, t in s})),
        )
    }
    result = {}
    for stage, pairs in STAGES.items():
        mine = [found[str(line), str(kind)] for line, kind in pairs if (line, kind) in found]
        if not mine and stage in OPTIONAL_STAGES:
            continue
        undone = found[UNDONE[stage]]["n"] if UNDONE.get(stage) in found else 0
        cards, seconds = sum(r["n"] for r in mine) - undone, 0.0
        if mine:
            first, last = min(r["first"] for r in mine), max(r["last"] for r in mine)
            before = queries.one("select max(at) as at from commit_link where at < ?", first)
            start = (before and before["at"]) or first
            seconds = max(seconds_between(start, last), SHORTEST_SECONDS)
        result[stage] = {
            "cards": cards,
            "seconds": round(seconds, 3),
            "cards_per_second": round(cards / seconds, 1) if seconds else 0.0,
        }
    return result


def seconds_between(first: str, last: str) -> float:
    """Between two times of commits (ISO 8601)."""
    return (datetime.fromisoformat(last) - datetime.fromisoformat(first)).total_seconds()


def branch_table(queries: Queries, batch_id: str) -> list[dict[str, Any]]:
    """Per bank and branch: orders, shipped, rejected, held, in_work, missing, packages.

    `branch` is a county branch, or the division whose window gets temporary cards; empty for
    bodies that no order and no window stands for. An order without body is missing once every
    body of the batch that is still in work has its order, and in work until then.
    """
    table: dict[tuple[str, str], dict[str, Any]] = {}
    names = ("orders", "shipped", "rejected", "held", "in_work", "missing", "packages")

    def line(bank: str, branch: str) -> dict[str, Any]:
        empty = {"bank": bank, "branch": branch, **dict.fromkeys(names, 0)}
        return table.setdefault((bank, branch), empty)

    for r in queries.rows(
        # Of the bodies that an order ever had, the live one, else the newest.
        "select o.bank, o.branch, b.place, count(*) as n from orders o left join"
        "  (select order_id, place, row_number() over"
        "    (partition by order_id order by live desc, body_id desc) as nth"
        "   from body where order_id <> '' and order_id in"
        "    (select order_id from orders where batch_id = ?)) b"
        "  on b.order_id = o.order_id and b.nth = 1"
        " where o.batch_id = ? group by o.bank, o.branch, b.place",
        batch_id,
        batch_id,
    ):
        row = line(r["bank"], r["branch"])
        row["orders"] += r["n"]
        if r["place"] is None:
            row["missing" if _all_identified(queries, batch_id) else "in_work"] += r["n"]
        else:
            row[standing(r["place"])] += r["n"]
    for r in queries.rows(
        "select bank, destination, place, count(*) as n from body"
        " where batch_id = ? and order_id = '' and place not like 'factory/%'"
        " group by bank, destination, place",
        batch_id,
    ):
        if standing(r["place"]) in names:
            line(r["bank"], r["destination"])[standing(r["place"])] += r["n"]
    for r in queries.rows(
        "select bank, destination, count(*) as n from package where batch_id = ?"
        " group by bank, destination",
        batch_id,
    ):
        line(r["bank"], r["destination"])["packages"] += r["n"]
    return [table[key] for key in sorted(table)]


def _all_identified(queries: Queries, batch_id: str) -> bool:
    return (
        queries.one(
            "select 1 as n from body where batch_id = ? and order_id = '' and kind = ?"
            " and (place like 'transit/%' or place like '%/work' or place = 'inventory/vault')"
            " limit 1",
            batch_id,
            Kind.SOCIAL_SECURITY_CARD,
        )
        is None
    )
