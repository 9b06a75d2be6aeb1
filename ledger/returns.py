"""The centre returns in the ledger: how often one was written, which lines are interim, and which
batches may need a revision. The open lines have an index of their own, so that what is asked again
and again costs as much as is open, and not as much as ever was."""

from __future__ import annotations

from typing import Any

from domain.changes import EventType
from domain.codes import CORRECTABLE, Code
from domain.places import PACKED, READ_AGAIN, SHREDDER, Line, held, work
from ledger.connection import as_json
from ledger.queries import OF_NO_CARD, Queries

AT_KEYS = held(Line.KEY_REPLACEMENT)


def returns_written(queries: Queries, batch_id: str) -> int:
    """How many returns of a batch there are: the first and its revisions."""
    found = queries.one(
        "select count(*) as n from outbox where batch_id = ? and kind = 'centre_return'", batch_id
    )
    return found["n"] if found else 0


def revisable(queries: Queries) -> set[str]:
    """Batches whose return was written and of which, since, a card came back to work at sorting, a
    refused lot was decided upon, an interim line has become untrue, or a card beyond the count
    came to light."""
    found = queries.rows(
        "select batch_id from body where place in (?, ?, ?)"
        " union select e.data->>'batch_id' from event e where e.type in (?, ?) and exists"
        "  (select 1 from body b join carton c on c.carton_id = b.carton_id"
        "   where b.batch_id = e.data->>'batch_id' and b.place = ? and b.condition = ?"
        "   and c.delivery_id || '-' || b.bank || '-' || b.kind = e.data->>'lot_id')"
        # A line of a card: it was released, or scrapped.
        " union select l.batch_id from return_line l join body b on b.body_id = l.body_id"
        "  where l.final = 0 and l.superseded_by = 0 and l.body_id <> ''"
        "  and (b.condition <> l.reason or b.place = ?)"
        # A line of an order: it was cancelled, or its card is here.
        " union select l.batch_id from return_line l"
        "  join order_stop s on s.order_id = l.order_id"
        "  where l.final = 0 and l.superseded_by = 0 and l.result <> 'surplus' and s.reason = ?"
        " union select l.batch_id from return_line l"
        "  join body b on b.order_id = l.order_id and b.batch_id = l.batch_id"
        "  where l.final = 0 and l.superseded_by = 0 and l.result = 'missing' and l.order_id <> ''"
        " union select b.batch_id from body b where b.place = ? and b.condition = ?"
        f"  and not {_IN_A_LINE}",
        work(Line.SORTING), READ_AGAIN, PACKED,
        EventType.LOT_RELEASED, EventType.LOT_RECALLED, held(Line.SORTING), Code.LOT_REFUSED,
        SHREDDER, Code.CANCELLED, AT_KEYS, Code.OVER_COUNT,
    )  # fmt: skip
    return {r["batch_id"] for r in found}


_IN_A_LINE = (
    "exists (select 1 from return_line l where l.batch_id = b.batch_id and l.body_id = b.body_id"
    " and l.final = 0 and l.superseded_by = 0)"
)


def all_in_lines(queries: Queries, carton_id: str) -> bool:
    """Whether the return says something of each card of a carton that was beyond its count."""
    return not queries.rows(
        f"select 1 as n from body b where b.carton_id = ? and b.condition = ? and not {_IN_A_LINE}"
        " limit 1",
        carton_id, Code.OVER_COUNT,
    )  # fmt: skip


def revision_of(queries: Queries, file_id: str) -> int:
    """The revision that a return is; the first may have no lines."""
    found = queries.one("select max(revision) as n from return_line where file_id = ?", file_id)
    return (found and found["n"]) or 0


def superseded_by(queries: Queries, batch_id: str, file_id: str) -> dict[int, list[int]]:
    """The positions of the lines that each line of a return supersedes, by its own position."""
    found: dict[int, list[int]] = {}
    for r in queries.rows(
        "select o.position, o.superseded_by from return_line o join return_line n"
        " on n.batch_id = o.batch_id and n.position = o.superseded_by"
        " where o.batch_id = ? and o.superseded_by > 0 and n.file_id = ? order by o.position",
        batch_id, file_id,
    ):  # fmt: skip
        found.setdefault(r["superseded_by"], []).append(r["position"])
    return found


def held_strangers(queries: Queries, batch_id: str) -> set[str]:
    """Identification codes of the cards of a batch that are held until a correction has a record
    for them."""
    found = queries.rows(
        "select identification_code from body where batch_id = ? and place = ?"
        " and identification_code <> '' and condition in (select value from json_each(?))",
        batch_id, AT_KEYS, as_json(sorted(CORRECTABLE)),
    )  # fmt: skip
    return {r["identification_code"] for r in found}


def interim_lines(queries: Queries, batch_id: str = "") -> list[dict[str, Any]]:
    """How many lines of returns (of a batch, or of all) are open: batch_id, result, reason,
    lines."""
    return queries.rows(
        "select batch_id, result, reason, count(*) as lines from return_line"
        " where final = 0 and superseded_by = 0 and ? in ('', batch_id)"
        " group by batch_id, result, reason order by batch_id, result, reason",
        batch_id,
    )


def interim_totals(queries: Queries) -> list[dict[str, Any]]:
    """The same without batches, and `since`, when the oldest of them was written: result, reason,
    lines, since."""
    return queries.rows(
        "select l.result, l.reason, sum(l.lines) as lines, min(c.at) as since from"
        " (select batch_id, file_id, result, reason, count(*) as lines from return_line"
        "  where final = 0 and superseded_by = 0 group by batch_id, file_id, result, reason) l"
        f" join event e on e.data->>'batch_id' = l.batch_id || '' and {OF_NO_CARD} and e.type = ?"
        "  and e.data->>'file_id' = l.file_id"
        " join commit_link c on c.line = e.line and c.number = e.number"
        " group by l.result, l.reason order by l.result, l.reason",
        EventType.RETURN_WRITTEN,
    )
