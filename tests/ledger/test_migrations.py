"""A ledger of an older program becomes one of this program, whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from centre.wiring import now
from domain.changes import Away
from ledger import migrations
from ledger.commit import Ledger
from ledger.connection import LedgerUnusable, connect

SCHEMAS = sorted((Path(__file__).parent / "schemas").glob("*.sql"), key=lambda p: int(p.stem))


def shape(path: Path) -> dict[str, str]:
    """Every table and index with its text, blanks made even."""
    connection = connect(path, write=False)
    try:
        found = connection.execute(
            "select name, sql from sqlite_master where name not like 'sqlite^_%' escape '^'"
        ).fetchall()
        return {name: " ".join(sql.split()) for name, sql in found}
    finally:
        connection.close()


def version_of(path: Path) -> int:
    connection = connect(path, write=False)
    try:
        return int(connection.execute("select version from ledger_version").fetchval())
    finally:
        connection.close()


def old_ledger(path: Path, schema: Path) -> None:
    connection = connect(path, write=True)
    try:
        text = "\n".join(
            line for line in schema.read_text("utf-8").splitlines() if not line.startswith("--")
        )
        for ddl in filter(str.strip, text.split(";\n")):
            connection.execute(ddl.strip().removesuffix(";")).close()
        connection.execute("insert into ledger_version values (?)", int(schema.stem)).close()
    finally:
        connection.close()


def test_the_oldest_schema_is_kept() -> None:
    """Who changes FIRST keeps the schema that it names, or the next test proves nothing."""
    assert int(SCHEMAS[0].stem) == migrations.FIRST


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda p: p.stem)
def test_each_older_schema_becomes_this_one(tmp_path: Path, schema: Path) -> None:
    """Table for table and index for index the text that a new ledger has."""
    old, new = tmp_path / "old.db", tmp_path / "new.db"
    old_ledger(old, schema)
    for path in (old, new):
        Ledger(path, now).close()
    assert shape(old) == shape(new)
    assert version_of(old) == version_of(new) == migrations.VERSION


def test_a_schema_older_than_the_first_step_is_refused(tmp_path: Path) -> None:
    """It is not touched, and the message says what to do."""
    path = tmp_path / "ledger.db"
    old_ledger(path, SCHEMAS[0])
    connection = connect(path, write=True)
    connection.execute("update ledger_version set version = ?", migrations.FIRST - 1).close()
    connection.close()
    before = shape(path)
    with pytest.raises(LedgerUnusable, match="a program in between"):
        Ledger(path, now)
    assert shape(path) == before


def test_a_step_that_breaks_off_leaves_the_version_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The steps before it hold; of the step itself nothing does."""
    path = tmp_path / "ledger.db"
    old_ledger(path, SCHEMAS[0])
    whole = ("create table a (x integer) strict",)
    torn = ("create table b (x integer) strict", "insert into no_such_table values (1)")
    first = migrations.FIRST
    monkeypatch.setattr(migrations, "STEPS", {first + 1: whole, first + 2: torn})
    monkeypatch.setattr(migrations, "VERSION", first + 2)
    with pytest.raises(Away):
        Ledger(path, now)
    assert version_of(path) == first + 1
    assert {"a", "b"} & set(shape(path)) == {"a"}
