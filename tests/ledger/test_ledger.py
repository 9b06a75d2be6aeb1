"""The ledger on SQLite does what every ledger must."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from itertools import count
from pathlib import Path

import pytest

from domain.changes import Away, Changes, Update
from domain.places import Line
from ledger.commit import Ledger
from ledger.connection import LedgerUnusable, connect
from ledger.queries import Queries
from ledger.schema import TABLES
from ledger.verify import verify
from tests.conformance.ledger_suite import CHECKS, Specimen, check_ledger, receive

AT = "2024-03-01T08:00:00.000Z"
NAMES = tuple(ddl.split()[2] for ddl in TABLES if ddl.startswith("create table"))


def fixed_time() -> str:
    return AT


def on_sqlite(path: Path) -> Specimen:
    Ledger(path, fixed_time).close()
    return Specimen(
        partial(Ledger, path, fixed_time),
        partial(Queries, path),
        partial(verify, path, None, None),
        NAMES,
    )


@pytest.fixture
def make(tmp_path: Path) -> Callable[[], AbstractContextManager[Specimen]]:
    numbers = count()

    @contextmanager
    def fresh() -> Iterator[Specimen]:
        yield on_sqlite(tmp_path / f"ledger-{next(numbers)}.db")

    return fresh


def test_sqlite_is_a_ledger(make: Callable[[], AbstractContextManager[Specimen]]) -> None:
    """The conformance suite holds over the SQLite ODBC driver."""
    assert len(CHECKS) == 8
    check_ledger(make)


def test_commits_are_durable_and_readers_cannot_write(tmp_path: Path) -> None:
    """WAL and `synchronous` FULL stand on the writing connection, and a reading one changes
    nothing."""
    path = tmp_path / "ledger.db"
    ledger = Ledger(path, fixed_time)
    connection = ledger._connection
    assert connection.execute("pragma journal_mode").fetchval() == "wal"
    assert int(connection.execute("pragma synchronous").fetchval()) == 2
    ledger.close()
    reading = connect(path, write=False)
    with pytest.raises(Exception, match="readonly"):
        reading.execute("delete from epoch")
    reading.close()


def test_a_recorded_head_stays(tmp_path: Path) -> None:
    """Another signature over the same link does not replace the first."""
    specimen = on_sqlite(tmp_path / "ledger.db")
    head = {"line": "sorting", "number": 1, "hash": "h", "at": AT, "signature": "first"}
    with specimen.writer() as writer:
        writer.record_heads([head])
        writer.record_heads([{**head, "signature": "second"}])
    assert [h["signature"] for h in specimen.everything()["head"]] == ["first"]


def test_a_ledger_that_is_locked_is_away_and_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While another holds the lock, a commit says Away after the busy time, and nothing changed;
    asked again afterwards it takes effect."""
    monkeypatch.setattr("ledger.sqlite.BUSY_MILLISECONDS", 100)
    path = tmp_path / "ledger.db"
    ledger = Ledger(path, fixed_time)
    epoch = ledger.open_epoch(Line.INVENTORY)
    other = connect(path, write=True)
    other.execute("begin immediate").close()
    with pytest.raises(Away):
        ledger.commit(receive("a", 1), epoch)
    other.execute("rollback").close()
    other.close()
    assert ledger.commit(receive("a", 1), epoch).repeated is False
    ledger.close()


def test_another_schema_version_is_refused(tmp_path: Path) -> None:
    """A ledger of another program is not opened for writing."""
    path = tmp_path / "ledger.db"
    Ledger(path, fixed_time).close()
    connection = connect(path, write=True)
    connection.execute("update ledger_version set version = 99").close()
    connection.close()
    with pytest.raises(LedgerUnusable, match="99"):
        Ledger(path, fixed_time)


def test_unknown_columns_reach_no_statement(tmp_path: Path) -> None:
    """Names come out of the schema, never out of what a caller says."""
    ledger = Ledger(tmp_path / "ledger.db", fixed_time)
    epoch = ledger.open_epoch(Line.INVENTORY)
    update = Update("body", ("body_id",), ("place = 'x', lease",), (), [])
    with pytest.raises(ValueError, match="unknown column"):
        ledger.commit(Changes(Line.INVENTORY, "a", updates=(update,)), epoch)
    ledger.close()
