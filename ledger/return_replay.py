"""The centre returns against their events: every revision follows the one before, supersedes lines
that were open, and in the end each order has one line that holds."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from domain.changes import EventType
from ledger.digests import digest_of
from ledger.faults import Fault
from ledger.queries import OF_NO_CARD, Queries
from ledger.tables import ROWS_AT_ONCE, Row, Said, check_count, events_of


def check_returns(queries: Queries) -> None:
    """Table `return_line` is what RETURN_WRITTEN says: revisions number from 0 and lines from 1
    without a gap, what is superseded was open, and each order of a batch whose return is out has
    exactly one line that none superseded (or its card, advised since, has an open one). One batch
    in memory."""
    written = Counter(
        said.data["batch_id"]
        for chunk in events_of(queries, EventType.RETURN_WRITTEN)
        for said in chunk
    )
    lines = sum(_check_batch(queries, batch_id, n) for batch_id, n in written.items())
    check_count(queries, "return_line", lines)


def _check_batch(queries: Queries, batch_id: str, revisions: int) -> int:
    """Answers how many lines the return of the batch has, in all its revisions."""
    rows = queries.rows(
        "select line, number, order_id, data from event e where e.data->>'batch_id' = ?"
        f" and {OF_NO_CARD} and e.type = ? order by e.id",
        batch_id, EventType.RETURN_WRITTEN,
    )  # fmt: skip
    last, superseded = 0, dict[int, int]()
    for revision, row in enumerate(rows):
        data = json.loads(row["data"])
        said = Said(row["line"], row["number"], row["order_id"], data)
        if data.get("revision", 0) != revision:
            raise _of(said, "修订号不连续", "the revision does not follow the one before")
        _check_lines(queries, said, last)
        for old, new in data.get("superseded", {}).items():
            if int(old) in superseded or not 0 < int(old) <= last:
                raise _of(said, "回盘行被重复取代", "supersedes a line twice, or none")
            if not last < new <= last + data["lines"]:
                raise _of(said, "取代行不在本次修订", "superseded by no line of this revision")
            superseded[int(old)] = new
        last += data["lines"]
    if len(rows) != revisions:
        raise Fault(
            "回盘属于卡片", "a return that is said of one card or order",
            table="event", subject=f"批次 batch {batch_id}",
        )  # fmt: skip
    _check_superseded(queries, batch_id, superseded)
    _check_orders(queries, batch_id)
    return last


def _check_lines(queries: Queries, said: Said, last: int) -> None:
    results: Counter[str] = Counter()
    rows = _counted(_return_lines(queries, said.data["file_id"]), results)
    written = digest_of(_as_written(row, said.data) for row in rows)
    if results != Counter(said.data["results"]) or written != said.data["rows"]:
        raise _of(said, "回盘与事件不符", "the lines of the return are not those that were written")
    first = queries.one(
        "select min(position) as first, max(position) as last from return_line where file_id = ?",
        said.data["file_id"],
    )
    if said.data["lines"] and first != {"first": last + 1, "last": last + said.data["lines"]}:
        raise _of(said, "回盘行号不连续", "the lines do not follow those before")


def _as_written(row: Row, data: Mapping[str, Any]) -> Row:
    """The digest is of the row as it was written: superseded by none. Before there were revisions
    a row did not have these columns, nor an order's line its body."""
    if "revision" in data:
        return {**row, "superseded_by": 0}
    before = {k: v for k, v in row.items() if k not in ("revision", "superseded_by")}
    return {**before, "body_id": ""} if row["order_id"] else before


def _check_superseded(queries: Queries, batch_id: str, expected: Mapping[int, int]) -> None:
    found = {
        r["position"]: r
        for r in queries.rows(
            "select position, superseded_by, final from return_line"
            " where batch_id = ? and superseded_by <> 0 order by position",
            batch_id,
        )
    }
    marks = {position: r["superseded_by"] for position, r in found.items()}
    if marks != expected or any(r["final"] for r in found.values()):
        raise Fault(
            "回盘取代关系与事件不符", "what superseded what is not what the events say, or a final"
            " line was superseded", table="return_line", subject=f"批次 batch {batch_id}",
        )  # fmt: skip


def _check_orders(queries: Queries, batch_id: str) -> None:
    holds = Counter(
        r["order_id"]
        for r in queries.rows(
            "select order_id from return_line where batch_id = ? and superseded_by = 0"
            " and result <> 'surplus'",
            batch_id,
        )
    )
    advised_since = {
        r["order_id"]
        for r in queries.rows(
            "select o.order_id from return_line l join body b on b.body_id = l.body_id"
            " join orders o on o.identification_code = b.identification_code"
            " where l.batch_id = ? and l.final = 0 and l.superseded_by = 0 and l.body_id <> ''",
            batch_id,
        )
    }
    for row in queries.rows(
        "select order_id from orders where batch_id = ? order by order_id", batch_id
    ):
        order_id = row["order_id"]
        if holds[order_id] != 1 and not (not holds[order_id] and order_id in advised_since):
            raise Fault(
                "订单回盘行不唯一", "an order has not exactly one line that holds",
                table="return_line", subject=f"订单 order {order_id}",
            )  # fmt: skip


def _of(said: Said, chinese: str, english: str) -> Fault:
    subject = f"编号 id {said.data['file_id']}"
    return Fault(
        chinese, english, table="return_line", line=said.line, number=said.number, subject=subject
    )


def _return_lines(queries: Queries, file_id: str) -> Iterator[Row]:
    position = 0
    while True:
        rows = queries.rows(
            "select * from return_line where file_id = ? and position > ?"
            " order by position limit ?",
            file_id, position, ROWS_AT_ONCE,
        )  # fmt: skip
        if not rows:
            return
        position = rows[-1]["position"]
        yield from rows


def _counted(rows: Iterator[Row], results: Counter[str]) -> Iterator[Row]:
    for row in rows:
        results[row["result"]] += 1
        yield row
