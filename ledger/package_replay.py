"""The packages against their events, and against the bodies that are in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from domain.changes import EventType
from domain.places import PACKING
from ledger import schema
from ledger.connection import as_json
from ledger.faults import Fault
from ledger.queries import Queries
from ledger.tables import Row, Said, by_key, check_count, compare, events_of, only

_EMPTY = {"numbered": 0, "unnumbered": 0, "packing": 0}


def check_packages(queries: Queries) -> None:
    """Table `package` is what PACKAGE_OPENED and PACKAGE_CLOSED say. The bodies of an open package
    wait to be counted; those of a closed one were, and as many as were scanned. (Table `body` is
    what its events say: that was checked before.)"""
    packages = 0
    for chunk in events_of(queries, EventType.PACKAGE_OPENED):
        _check_opened(queries, chunk)
        packages += len(chunk)
    check_count(queries, "package", packages)
    closed = 0
    for chunk in events_of(queries, EventType.PACKAGE_CLOSED):
        _check_closed(queries, chunk)
        closed += len(chunk)
    twice = queries.one(
        "select data->>'package_id' as package_id, max(line) as line, max(number) as number"
        " from event where type = ? group by data->>'package_id' having count(*) > 1 limit 1",
        EventType.PACKAGE_CLOSED,
    )
    if twice:
        raise Fault(
            "包重复封装", "closed twice", table="package", line=twice["line"],
            number=twice["number"], subject=f"编号 id {twice['package_id']}",
        )  # fmt: skip
    if queries.one("select count(*) as n from package where state = 'closed'") != {"n": closed}:
        raise Fault("包未封而称已封", "a package is closed that no event closed", table="package")
    stray = queries.one(
        "select b.package_id from body b where b.package_id <> '' and not exists"
        " (select 1 from package p where p.package_id = b.package_id) limit 1"
    )
    if stray:
        compare("package", stray["package_id"], None, {}, None)


def _check_opened(queries: Queries, chunk: Sequence[Said]) -> None:
    ids = [said.data["package_id"] for said in chunk]
    rows, inside = by_key(queries, "package", "package_id", ids), _inside(queries, ids)
    for said in chunk:
        package_id = said.data["package_id"]
        expected = {c: said.data[c] for c in schema.COLUMNS["package"] if c != "state"}
        row, cards = only(rows, package_id), inside.get(package_id, _EMPTY)
        compare("package", package_id, said, expected, row)
        assert row is not None
        if row["state"] != "closed":
            compare("package", package_id, said, {"state": "open"}, row)
            if cards["packing"] != cards["numbered"] + cards["unnumbered"]:
                raise _of_package(said, "未封包而已装", "a card of an open package was packed")


def _check_closed(queries: Queries, chunk: Sequence[Said]) -> None:
    ids = [said.data["package_id"] for said in chunk]
    rows, inside = by_key(queries, "package", "package_id", ids), _inside(queries, ids)
    for said in chunk:
        package_id = said.data["package_id"]
        compare("package", package_id, said, {"state": "closed"}, only(rows, package_id))
        cards = inside.get(package_id, _EMPTY)
        if cards["packing"]:
            raise _of_package(said, "已封包而未点", "a card of a closed package was not counted")
        if (said.data["scanned"], said.data["without_number"]) != (
            cards["numbered"],
            cards["unnumbered"],
        ):
            raise _of_package(said, "包内卡数不符", "another number of bodies is in the package")


def _inside(queries: Queries, package_ids: Sequence[str]) -> Mapping[str, Row]:
    """How many bodies with and without an order each package has, and how many of all are still to
    be counted."""
    found = queries.rows(
        "select package_id, sum(case when order_id <> '' then 1 else 0 end) as numbered,"
        " sum(case when order_id = '' then 1 else 0 end) as unnumbered,"
        " sum(case when place = ? then 1 else 0 end) as packing from body"
        " where package_id <> '' and package_id in (select value from json_each(?))"
        " group by package_id",
        PACKING, as_json(package_ids),
    )  # fmt: skip
    return {r["package_id"]: r for r in found}


def _of_package(said: Said, chinese: str, english: str) -> Fault:
    subject = f"编号 id {said.data['package_id']}"
    return Fault(
        chinese, english, table="package", line=said.line, number=said.number, subject=subject
    )
