"""What `test_tampering` proves of a file holds of a server too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ledger import schema
from ledger.connection import connect
from ledger.verify import Report, verify
from tests.ledger.building import Building, one_of_each
from tests.ledger.tampering import TABLES, put_in
from tests.ledgers import Databases, within

FAMILIES = (
    "commit_link", "event", "movement", "body", "orders", "order_stop", "personal",
    "refused_record", "carton", "settled_group", "package", "return_line", "outbox", "act",
)  # fmt: skip
"""At least one table of each sort that verification looks at; the others are alike."""


@pytest.fixture(scope="module")
def finished(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Building]:
    """A finished small ledger; each test tampers with it and puts it right again."""
    with within(databases):
        building = one_of_each(tmp_path_factory.mktemp("finished"))
        building.sign_heads()
        building.close()
        yield building


def verified(b: Building) -> Report:
    return verify(b.url, b.folder / "heads.jsonl", b.public_key)


@contextmanager
def tampered(b: Building, table: str, sql: str) -> Iterator[None]:
    """As somebody with a client and the owner's rights does it."""
    connection = connect(b.url, write=True)
    try:
        connection.execute(f"create temp table kept as select * from {table}").close()
        assert connection.execute(sql).rowcount == 1
        yield
        connection.execute(f"delete from {table}").close()
        connection.execute(f"insert into {table} select * from kept").close()
    finally:
        connection.close()


def newest(table: str) -> str:
    place = "id" if table in ("event", "movement") else "ctid"
    return f"{place} = (select max({place}) from {table})"


def test_an_untouched_ledger_holds(finished: Building) -> None:
    """It fits, with every commit under a signed head."""
    report = verified(finished)
    assert (report.finding, report.bodies, report.unsigned_commits) == ("", 25, 0)


@pytest.mark.parametrize("table", FAMILIES)
def test_a_row_changed_taken_away_or_put_in_is_found(finished: Building, table: str) -> None:
    """The newest row is changed in its last column (of an event that is JSON, which the server
    looks at itself), it is deleted, one is put in beside it: verification names the table."""
    column = "place" if table == "event" else TABLES[table][-1]
    text = schema.TYPES[table][column] == "text"
    value = f"{column} || 'x'" if text else f"{column} {'+' if table == 'movement' else '-'} 1"
    for sql in (
        f"update {table} set {column} = {value} where {newest(table)}",
        f"delete from {table} where {newest(table)}",
        put_in(table, newest(table)),
    ):
        with tampered(finished, table, sql):
            report = verified(finished)
        assert table in report.finding, sql
