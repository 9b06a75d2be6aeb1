"""The centre return of a batch, and its revisions (articles 11(10), 28(7); decision 0027).

The first goes out when nothing of the batch is left in work. Each time that this is so again and
some line has become untrue, a revision goes out: the lines that changed, each for the interim one
that it supersedes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from domain.bodies import Body, Writing
from domain.changes import Event, EventType, Update
from domain.codes import UNADVISED, Code
from domain.places import VAULT, Line, Standing, transit, work
from domain.returns import Result, is_final
from ledger.digests import digest_of
from ledger.queries import Queries
from ledger.returns import returns_written

BEFORE_INSPECTION = (
    VAULT,
    transit(Line.INVENTORY, Line.KEY_REPLACEMENT),
    work(Line.KEY_REPLACEMENT),
)
"""Where recounts and corrections bring bodies back to."""

LineRow = dict[str, Any]


def return_lines(
    orders: Sequence[Mapping[str, Any]],
    bodies: Sequence[Body],
    refused: Mapping[str, Mapping[str, Any]],
) -> list[LineRow]:
    """What a return has to say of a batch: one line per order, and one per body without order.

    `orders`: the accepted records (order_id, bank, branch, cancelled). `refused`: refused records
    by identification code (order_id, bank, code); the body of one is surplus under its order id.
    """
    by_order = {b.order_id: b for b in sorted(bodies, key=lambda b: b.live) if b.order_id}
    lines = [_of_order(order, by_order.get(order["order_id"])) for order in orders]
    return lines + [
        _of_body(body, refused.get(body.identification_code) if body.identification_code else None)
        for body in bodies
        if not body.order_id
    ]


def _of_order(order: Mapping[str, Any], body: Body | None) -> LineRow:
    result = Result(body.standing) if body else Result.MISSING
    reason = body.condition if body else str(Code.NOT_DELIVERED)
    if order["cancelled"] and result in (Result.MISSING, Result.HELD):
        # Whatever becomes of the card, the order has come to its end.
        result, reason = Result.CANCELLED, str(Code.CANCELLED)
    return {
        "order_id": order["order_id"],
        "body_id": body.body_id if body else "",
        "kind": "",
        "bank": order["bank"],
        "branch": order["branch"],
        "result": str(result),
        "reason": reason,
        "final": int(is_final(result, reason)),
        "package_id": body.package_id if body else "",
    }


def _of_body(body: Body, record: Mapping[str, Any] | None) -> LineRow:
    surplus = body.condition in UNADVISED and body.standing is Standing.HELD
    result = Result.SURPLUS if surplus else Result(body.standing)
    return {
        "order_id": record["order_id"] if record else "",
        "body_id": body.body_id,
        "kind": "" if record else body.kind,
        "bank": body.bank,
        "branch": "" if surplus else body.destination,
        "result": str(result),
        "reason": body.condition,
        "final": int(is_final(result, body.condition)),
        "package_id": body.package_id,
    }


@dataclass(frozen=True)
class Changed:
    """A line that has become true, and the positions of the interim ones that it supersedes: its
    order's, and that of the body which it now has."""

    line: LineRow
    supersedes: tuple[int, ...] = ()


def changed_lines(lines: Sequence[LineRow], stands: Sequence[Mapping[str, Any]]) -> list[Changed]:
    """Those of `lines` that say something else than what the return says so far (`stands`: its
    lines that none superseded). What is final stays."""
    by_order = {r["order_id"]: r for r in stands if r["order_id"] and r["result"] != Result.SURPLUS}
    by_body = {r["body_id"]: r for r in stands if r["body_id"]}
    changed, superseded = [], set[int]()
    for line in lines:
        ordered = line["order_id"] and line["result"] != Result.SURPLUS
        found = [by_order.get(line["order_id"]) if ordered else None, by_body.get(line["body_id"])]
        said = {r["position"]: r for r in found if r is not None}
        if any(r["final"] for r in said.values()):
            continue
        if len(said) == 1 and all(r[c] == line[c] for r in said.values() for c in _SAYS):
            continue
        of = tuple(sorted(set(said) - superseded))
        superseded |= set(of)
        changed.append(Changed(line, of))
    return changed


_SAYS = ("order_id", "result", "reason", "package_id")


class ReturnWork:
    """Writes the returns of batches of which nothing is left in work."""

    def __init__(self, queries: Queries) -> None:
        self._queries = queries

    def next(self, batch_id: str) -> Writing | None:
        """The first return of a batch, or a revision if some line of it has become untrue. Guarded
        by what of others was read: a correction or a recount may come in between."""
        q = self._queries
        revision = returns_written(q, batch_id)
        orders, bodies = self._orders(batch_id), q.bodies("b.batch_id = ?", batch_id)
        here = [b for b in bodies if not b.place.startswith("factory/")]
        lines = return_lines(orders, here, self._refused(batch_id))
        said = q.rows("select * from return_line where batch_id = ? order by position", batch_id)
        changed = changed_lines(lines, [r for r in said if not r["superseded_by"]])
        if revision and not changed:
            return None
        writing = _write(batch_id, revision, len(said), changed)
        came = [
            {"file_id": r["file_id"], "closed": 1, "expect_closed": 0}
            for r in q.rows(
                "select file_id from file_in where batch_id = ? and closed = 0 order by file_id",
                batch_id,
            )
        ]
        if came:
            writing.update(Update("file_in", ("file_id",), ("closed",), ("closed",), came))
        writing.guard("orders", {"batch_id": batch_id}, len(orders))
        writing.guard("delivery", {"batch_id": batch_id}, len(q.deliveries(batch_id)))
        writing.guard("body", {"batch_id": batch_id}, len(bodies))
        for place in BEFORE_INSPECTION:
            writing.guard("body", {"batch_id": batch_id, "place": place}, 0)
        return writing

    def _orders(self, batch_id: str) -> list[LineRow]:
        return self._queries.rows(
            # Never null: a driver that meets a null first calls the whole column a text.
            "select o.order_id, o.bank, o.branch,"
            " case when s.reason = 'CANCELLED' then 1 else 0 end as cancelled from orders o"
            " left join order_stop s on s.order_id = o.order_id where o.batch_id = ?"
            " order by o.order_id",
            batch_id,
        )

    def _refused(self, batch_id: str) -> dict[str, LineRow]:
        found = self._queries.rows(
            # Not under an order that was accepted by another record or a correction: it has
            # its own line.
            "select order_id, bank, code, identification_code from refused_record r"
            " where batch_id = ? and identification_code <> ''"
            " and not exists (select 1 from orders o where o.order_id = r.order_id)",
            batch_id,
        )
        return {r["identification_code"]: r for r in found}


def _write(batch_id: str, revision: int, last: int, changed: Sequence[Changed]) -> Writing:
    """Positions run on through the revisions of a batch, from 1 and without a gap; `last` is the
    last one so far."""
    file_id = return_id(batch_id, revision)
    writing = Writing(Line.SORTING, f"return:{file_id}")
    rows = [
        {
            "file_id": file_id,
            "position": position,
            "batch_id": batch_id,
            **c.line,
            "revision": revision,
            "superseded_by": 0,
        }
        for position, c in enumerate(changed, start=last + 1)
    ]
    for row in rows:
        writing.insert("return_line", row)
    superseded = {old: r["position"] for r, c in zip(rows, changed, strict=True)
                  for old in c.supersedes}  # fmt: skip
    if superseded:
        # A line that is final, or was superseded by another, refuses the whole commit.
        marks = [
            {"batch_id": batch_id, "position": old, "superseded_by": new,
             "expect_superseded_by": 0, "expect_final": 0}
            for old, new in sorted(superseded.items())
        ]  # fmt: skip
        columns = ("batch_id", "position"), ("superseded_by",), ("superseded_by", "final")
        writing.update(Update("return_line", *columns, marks))
    outbox = {file_id: "centre_return"}
    if not revision or any(c.line["package_id"] for c in changed):
        outbox[lists_id(batch_id, revision)] = "lists"
    data = {
        "file_id": file_id,
        "batch_id": batch_id,
        "revision": revision,
        "lines": len(rows),
        "results": Counter(str(c.line["result"]) for c in changed),
        "rows": digest_of(rows),
        "superseded": {str(old): new for old, new in superseded.items()},
        "outbox": outbox,
    }
    writing.event(Event(EventType.RETURN_WRITTEN, data=data))
    for outbox_id, kind in outbox.items():
        row = {"id": outbox_id, "kind": kind, "batch_id": batch_id, "acknowledged": 0}
        writing.insert("outbox", row)
    return writing


def return_id(batch_id: str, revision: int) -> str:
    """The file of a return: the first is number 1."""
    return f"RETURN-{batch_id}-{revision + 1}"


def lists_id(batch_id: str, revision: int) -> str:
    """No id has a colon, so those that a command of card management changed have other ids."""
    return f"LISTS-{batch_id}" + (f"::{revision + 1}" if revision else "")
