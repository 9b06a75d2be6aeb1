"""The tables against the events: every row is what its event says, and no row has none."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from domain.bodies import Body
from domain.changes import SENDING, EventType
from ledger import schema
from ledger.connection import as_json
from ledger.digests import digest_of
from ledger.faults import Fault
from ledger.queries import Queries

ROWS_AT_ONCE = 1_000
Row = dict[str, Any]


@dataclass(frozen=True)
class Said:
    """What an event says, and where it stands."""

    line: str
    number: int
    order_id: str
    data: Mapping[str, Any]


def events_of(queries: Queries, event_type: EventType) -> Iterator[list[Said]]:
    """All events of a type, ROWS_AT_ONCE at a time, oldest first."""
    after = 0
    while True:
        rows = queries.rows(
            "select id, line, number, order_id, data from event where type = ? and id > ?"
            " order by id limit ?",
            event_type, after, ROWS_AT_ONCE,
        )  # fmt: skip
        if not rows:
            return
        after = rows[-1]["id"]
        yield [Said(r["line"], r["number"], r["order_id"], json.loads(r["data"])) for r in rows]


def compare(
    table: str, key: str, said: Said | None, expected: Mapping[str, Any] | None, row: Row | None
) -> None:
    """Raise Fault unless `row` holds what `expected` says, in every column that it names."""

    def fault(chinese: str, english: str) -> Fault:
        place = (said.line, said.number) if said else ("", None)
        return Fault(
            chinese, english, table=table, line=place[0], number=place[1], subject=f"编号 id {key}"
        )

    if row is None:
        raise fault("缺少一行", "a row is missing that an event made")
    if expected is None:
        raise fault("多出一行", "a row that no event made")
    for column, value in expected.items():
        if row[column] != value or type(row[column]) is not type(value):
            raise fault(f"列 {column} 与事件不符", f"column {column} is not what the events say")


def check_count(queries: Queries, table: str, expected: int) -> None:
    found = queries.one(f"select count(*) as n from {table}")
    if found is None or found["n"] != expected:
        raise Fault("行数与事件不符", "has rows that no event made", table=table)


def by_key(queries: Queries, table: str, key: str, keys: list[str]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in queries.rows(
        f"select * from {table} where {key} in (select value from json_each(?)) order by 1, 2, 3",
        as_json(keys),
    ):
        found.setdefault(row[key], []).append(row)
    return found


def only(found: dict[str, list[Row]], key: str) -> Row | None:
    rows = found.get(key)
    return rows[0] if rows else None


def check_bodies(queries: Queries, bodies: Sequence[Body]) -> None:
    """Table `body` has these, column for column."""
    rows = by_key(queries, "body", "body_id", [body.body_id for body in bodies])
    for body in bodies:
        expected, row = body.row(), only(rows, body.body_id)
        if row != expected:
            compare("body", body.body_id, _last_event(queries, body.body_id), expected, row)


def check_no_other_body(queries: Queries, checked: int) -> None:
    """Table `body` has those that were checked, and no more."""
    other = queries.one(
        "select b.body_id from body b where not exists (select 1 from event e"
        " where e.body_id = b.body_id and e.body_id <> '' and e.type = ?)"
        " order by b.body_id limit 1",
        EventType.BODY_RECEIVED,
    )
    if other:
        compare("body", other["body_id"], None, None, other)
    check_count(queries, "body", checked)


def check_stops(queries: Queries, stops: Mapping[str, str]) -> None:
    """Table `order_stop` has these reasons, by order."""
    if not stops:
        return
    found = queries.rows(
        "select * from order_stop where order_id in (select value from json_each(?))",
        as_json(list(stops)),
    )
    rows = {r["order_id"]: r for r in found}
    for order_id, reason in stops.items():
        compare("order_stop", order_id, None, {"reason": reason}, rows.get(order_id))


def _last_event(queries: Queries, body_id: str) -> Said | None:
    row = queries.one(
        "select line, number, order_id from event where body_id = ? order by id desc limit 1",
        body_id,
    )
    return Said(row["line"], row["number"], row["order_id"], {}) if row else None


def check_orders(queries: Queries, destroyed: Set[str]) -> None:
    """Tables `orders`, `personal` and `number_index` are what ORDER_ADVISED says. The last two
    may lack rows of batches whose personal data were destroyed, and of no other."""
    orders = 0
    kept = Counter[str]()
    for chunk in events_of(queries, EventType.ORDER_ADVISED):
        ids = [said.order_id for said in chunk]
        rows = {t: by_key(queries, t, "order_id", ids) for t in ("orders", "personal")}
        numbers = by_key(queries, "number_index", "order_id", ids)
        for said in chunk:
            order_id = said.order_id
            columns = (c for c in schema.COLUMNS["orders"] if c != "order_id")
            expected = {c: said.data[c] for c in columns}
            order = only(rows["orders"], order_id)
            compare("orders", order_id, said, expected, order)
            personal = rows["personal"].get(order_id, [])
            index = numbers.get(order_id, [])
            _check_sealed(said, personal, index, said.data["batch_id"] in destroyed)
            kept["personal"] += len(personal)
            kept["number_index"] += len(index)
        orders += len(chunk)
    check_count(queries, "orders", orders)
    for table in ("personal", "number_index"):
        check_count(queries, table, kept[table])


def _check_sealed(said: Said, personal: list[Row], index: list[Row], destroyed: bool) -> None:
    def fault(table: str, chinese: str, english: str) -> Fault:
        subject = f"订单 order {said.order_id}"
        return Fault(
            chinese, english, table=table, line=said.line, number=said.number, subject=subject
        )

    for row in personal:
        if digest_of([row]) != said.data["personal"]:
            raise fault("personal", "密封记录被改动", "the sealed record was changed")
    if not personal and not destroyed:
        raise fault("personal", "密封记录未销毁而缺失", "the sealed record is gone undestroyed")
    pairs = sorted((row["kind"], row["value"]) for row in index)
    # Both go in one commit.
    gone = not personal and not pairs
    if not gone and digest_of(pairs) != said.data["numbers"]:
        raise fault("number_index", "查询索引被改动", "the look-up values were changed")


def check_replayed(
    queries: Queries,
    table: str,
    key: Sequence[str],
    rows: Mapping[tuple[str, ...], Row],
    as_said: Callable[[Row], Row] = dict,
) -> None:
    """A table is what the replay ended with: `rows`, the other columns by those of `key`.
    `as_said` turns a row into what the events say of it."""
    found = {tuple(r[c] for c in key): as_said(r) for r in queries.rows(f"select * from {table}")}
    for names, expected in rows.items():
        compare(table, " / ".join(names), None, expected, found.get(names))
    check_count(queries, table, len(rows))


def check_files(queries: Queries) -> None:
    """Tables `file_in` and `refused_record` are what RETURN_ACCEPTED, CORRECTION_ACCEPTED,
    NOTE_ACCEPTED, RECORD_REFUSED and RECORD_CORRECTED say. A file is closed by the next
    RETURN_WRITTEN of its batch; a correction may have come after the last."""
    closed = {
        said.data["batch_id"]
        for chunk in events_of(queries, EventType.RETURN_WRITTEN)
        for said in chunk
    }
    files = 0
    for event_type, kind, key in (
        (EventType.RETURN_ACCEPTED, "factory_return", "file_id"),
        (EventType.CORRECTION_ACCEPTED, "correction", "file_id"),
        (EventType.NOTE_ACCEPTED, "delivery_note", "delivery_id"),
    ):
        for chunk in events_of(queries, event_type):
            rows = by_key(queries, "file_in", "file_id", [s.data[key] for s in chunk])
            for said in chunk:
                expected = {
                    "kind": kind,
                    "batch_id": said.data["batch_id"],
                    "digest": said.data["digest"],
                    "records": said.data["records"]
                    if "records" in said.data
                    else len(said.data["cartons"]),
                }
                if kind != "correction":
                    expected["closed"] = int(said.data["batch_id"] in closed)
                row = only(rows, said.data[key])
                compare("file_in", said.data[key], said, expected, row)
            files += len(chunk)
    check_count(queries, "file_in", files)
    _check_refused(queries)


def _check_refused(queries: Queries) -> None:
    refused = 0
    for chunk in events_of(queries, EventType.RECORD_REFUSED):
        found = _refused(queries, chunk)
        for said in chunk:
            record = said.data["file_id"], said.data["record"]
            row = found.get(record)
            name = f"{record[0]} / {record[1]}"
            compare("refused_record", name, said, {"code": said.data["code"]}, row)
            assert row is not None
            # The digest is of the row as it was refused.
            if digest_of([{**row, "corrected_by": ""}]) != said.data["row"]:
                raise Fault(
                    "被拒记录与事件不符", "the refused record was changed", table="refused_record",
                    line=said.line, number=said.number, subject=f"编号 id {name}",
                )  # fmt: skip
        refused += len(chunk)
    check_count(queries, "refused_record", refused)
    _check_corrected(queries)


def _check_corrected(queries: Queries) -> None:
    corrected = 0
    for chunk in events_of(queries, EventType.RECORD_CORRECTED):
        found = _refused(queries, chunk)
        for said in chunk:
            record = said.data["file_id"], said.data["record"]
            expected = {"corrected_by": said.data["corrected_by"]}
            name = f"{record[0]} / {record[1]}"
            compare("refused_record", name, said, expected, found.get(record))
        corrected += len(chunk)
    marked = queries.one("select count(*) as n from refused_record where corrected_by <> ''")
    if marked != {"n": corrected}:
        raise Fault("更正标记与事件不符", "corrected by no event, or twice", table="refused_record")


def _refused(queries: Queries, chunk: Sequence[Said]) -> dict[tuple[str, int], Row]:
    """The refused records that these events name, by file and number."""
    found = queries.rows(
        "select r.* from json_each(?) j join refused_record r on"
        " r.file_id = j.value->>'file_id'"
        " and r.record_number = cast(j.value->>'record' as integer)",
        as_json([dict(s.data) for s in chunk]),
    )
    return {(r["file_id"], r["record_number"]): r for r in found}


def check_deliveries(queries: Queries) -> None:
    """Tables `delivery` and `carton` are what NOTE_ACCEPTED, CARTON_SIGNED_FOR and, after
    it, CARTON_RECOUNTED say."""
    signed: dict[str, Said] = {
        said.data["carton_id"]: said
        for event_type in (EventType.CARTON_SIGNED_FOR, EventType.CARTON_RECOUNTED)
        for chunk in events_of(queries, event_type)
        for said in chunk
    }
    deliveries = cartons = 0
    for chunk in events_of(queries, EventType.NOTE_ACCEPTED):
        ids = [said.data["delivery_id"] for said in chunk]
        rows = by_key(queries, "delivery", "delivery_id", ids)
        carton_rows = by_key(queries, "carton", "delivery_id", ids)
        for said in chunk:
            delivery_id = said.data["delivery_id"]
            mine = {r["carton_id"]: r for r in carton_rows.get(delivery_id, [])}
            for noted in said.data["cartons"]:
                sign = signed.get(noted["carton_id"])
                expected = {
                    **noted,
                    "batch_id": said.data["batch_id"],
                    "counted": sign.data["counted"] if sign else 0,
                }
                row = mine.get(noted["carton_id"])
                compare("carton", noted["carton_id"], sign or said, expected, row)
            states = {
                "signed" if n["carton_id"] in signed else "advised" for n in said.data["cartons"]
            }
            delivery = only(rows, delivery_id)
            expected = {c: said.data[c] for c in ("batch_id", "factory_id")}
            if len(states) == 1:
                expected["state"] = states.pop()
            compare("delivery", delivery_id, said, expected, delivery)
            cartons += len(said.data["cartons"])
        deliveries += len(chunk)
    check_count(queries, "delivery", deliveries)
    check_count(queries, "carton", cartons)


def check_outbox(queries: Queries) -> None:
    """Table `outbox` is what PACKAGE_OPENED (all packages of one commit send the same lists),
    LISTS_CHANGED, RETURN_WRITTEN and RETURN_ACKNOWLEDGED say."""
    taken = {
        said.data["outbox_id"]: said
        for chunk in events_of(queries, EventType.RETURN_ACKNOWLEDGED)
        for said in chunk
    }
    sent: set[str] = set()
    for event_type in SENDING:
        for chunk in events_of(queries, event_type):
            new = {
                outbox_id: (said, kind)
                for said in chunk
                for outbox_id, kind in said.data["outbox"].items()
                if outbox_id not in sent
            }
            rows = by_key(queries, "outbox", "id", list(new))
            for outbox_id, (said, kind) in new.items():
                expected = {
                    "kind": kind,
                    "batch_id": said.data["batch_id"],
                    "acknowledged": int(outbox_id in taken),
                }
                row = only(rows, outbox_id)
                compare("outbox", outbox_id, taken.get(outbox_id, said), expected, row)
            sent |= set(new)
    check_count(queries, "outbox", len(sent))
