"""The ledger does what every ledger must, on each database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from itertools import count
from pathlib import Path

import pytest

from domain.changes import Away, Changes, Update
from domain.places import Line
from ledger import schema
from ledger.commit import Ledger
from ledger.connection import LedgerUnusable, connect, database
from ledger.queries import Queries
from ledger.verify import verify
from tests.conformance.ledger_suite import CHECKS, Specimen, check_ledger, receive
from tests.ledgers import new_ledger

pytestmark = pytest.mark.usefixtures("each_database")

AT = "2024-03-01T08:00:00.000Z"


def fixed_time() -> str:
    return AT


def specimen_of(url: str) -> Specimen:
    Ledger(url, fixed_time).close()
    return Specimen(
        partial(Ledger, url, fixed_time),
        partial(Queries, url),
        partial(verify, url, None, None),
        tuple(schema.TYPES),
    )


@pytest.fixture
def make(tmp_path: Path) -> Callable[[], AbstractContextManager[Specimen]]:
    numbers = count()

    @contextmanager
    def fresh() -> Iterator[Specimen]:
        folder = tmp_path / str(next(numbers))
        folder.mkdir()
        yield specimen_of(new_ledger(folder))

    return fresh


def test_it_is_a_ledger(make: Callable[[], AbstractContextManager[Specimen]]) -> None:
    """The conformance suite holds over the ODBC driver."""
    assert len(CHECKS) == 8
    check_ledger(make)


def test_commits_are_durable_and_readers_cannot_write(tmp_path: Path) -> None:
    """What makes a commit durable stands on the writing connection, and a reading one changes
    nothing."""
    url = new_ledger(tmp_path)
    Ledger(url, fixed_time).close()
    writing = connect(url, write=True)
    if writing.database.name == "SQLite":
        assert writing.value("pragma journal_mode") == "wal"
        assert int(writing.value("pragma synchronous")) == 2
    else:
        assert writing.value("show synchronous_commit") == "on"
        assert writing.value("show fsync") == "on"
    writing.close()
    reading = connect(url, write=False)
    with pytest.raises(Exception, match=r"readonly|read-only"):
        reading.run("delete from epoch")
    reading.close()


def test_a_recorded_head_stays(tmp_path: Path) -> None:
    """Another signature over the same link does not replace the first."""
    specimen = specimen_of(new_ledger(tmp_path))
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
    monkeypatch.setattr("ledger.postgres.LOCK_MILLISECONDS", 100)
    url = new_ledger(tmp_path)
    ledger = Ledger(url, fixed_time)
    epoch = ledger.open_epoch(Line.INVENTORY)
    other = connect(url, write=True)
    other.run("begin immediate" if other.database.name == "SQLite" else "begin")
    other.run("update epoch set epoch = epoch")
    if other.database.name == "PostgreSQL":
        other.run("lock table event in exclusive mode")
    with pytest.raises(Away):
        ledger.commit(receive("a", 1), epoch)
    other.run("rollback")
    other.close()
    assert ledger.commit(receive("a", 1), epoch).repeated is False
    ledger.close()


def test_another_schema_version_is_refused(tmp_path: Path) -> None:
    """A ledger of another program is not opened for writing."""
    url = new_ledger(tmp_path)
    Ledger(url, fixed_time).close()
    connection = connect(url, write=True)
    connection.run("update ledger_version set version = 99")
    connection.close()
    with pytest.raises(LedgerUnusable, match="99"):
        Ledger(url, fixed_time)


def test_unknown_columns_reach_no_statement(tmp_path: Path) -> None:
    """Names come out of the schema, never out of what a caller says."""
    ledger = Ledger(new_ledger(tmp_path), fixed_time)
    epoch = ledger.open_epoch(Line.INVENTORY)
    update = Update("body", ("body_id",), ("place = 'x', lease",), (), [])
    with pytest.raises(ValueError, match="unknown column"):
        ledger.commit(Changes(Line.INVENTORY, "a", updates=(update,)), epoch)
    ledger.close()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://u:secret@h/d", "passfile"),
        ("postgresql://u@h/d?password=secret", "passfile"),
        ("postgresql://u@h", "no database"),
        ("postgresql://u@h/d;x", "no blanks"),
        ("postgresql://u@h:port/d", "port"),
        ("mysql://u@h/d", "is needed"),
    ],
)
def test_a_url_that_names_no_ledger_is_refused(url: str, said: str) -> None:
    """What is wrong with it is said, and a password in it is not said again."""
    with pytest.raises(LedgerUnusable, match=said) as refused:
        database(url)
    assert "secret" not in str(refused.value)
