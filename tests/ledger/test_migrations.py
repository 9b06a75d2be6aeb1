"""A ledger of an older program becomes one of this program, whole or not at all."""

from __future__ import annotations

import gzip
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from centre.wiring import now
from domain.changes import Away
from ledger import migrations
from ledger.commit import Ledger
from ledger.connection import LedgerUnusable, connect
from ledger.queries import Queries
from ledger.returns import interim_lines
from ledger.verify import Report, verify
from tests.ledger.building import Building, Clock
from tests.lines.test_returns import take_correction

FINISHED = Path(__file__).parent / "version_6"
"""A ledger of the release before, as its own `tests/ledger/building.py` left it: B1
(`one_of_each`), whose return is taken; B2, where the card of a cancelled order is held; and B3 in
the middle of work. With its heads, and the key that proves them."""
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


@pytest.fixture
def finished(tmp_path: Path) -> Iterator[Building]:
    """What the release before left, taken over by this one."""
    for file in ("heads.jsonl", "head-public.pem"):
        shutil.copy(FINISHED / file, tmp_path)
    path = tmp_path / "ledger.db"
    path.write_bytes(gzip.decompress((FINISHED / "ledger.db.gz").read_bytes()))
    assert version_of(path) == migrations.FIRST
    ledger = Ledger(path, Clock())
    b = Building(
        tmp_path, f"sqlite:{path}", ledger, Queries(path), ec.generate_private_key(ec.SECP256R1())
    )
    b.prefixes = 100  # command ids of its own
    b.restart()
    yield b
    b.close()


def verified(b: Building) -> Report:
    report = verify(b.url, b.head_file, (b.folder / "head-public.pem").read_bytes())
    assert report.ok, report.finding
    return report


def results(b: Building, where: str) -> Counter[tuple[str, str, int, int]]:
    """Result, reason, whether final, and revision of the lines of returns."""
    rows = b.queries.rows(f"select * from return_line where {where}")
    return Counter((r["result"], r["reason"], r["final"], r["revision"]) for r in rows)


def test_a_finished_ledger_still_verifies(finished: Building) -> None:
    """All that the release before wrote and signed is proven by this one, nothing of it unsigned,
    and what is open in its returns is what was."""
    report = verified(finished)
    assert report.signatures > 0
    assert report.unsigned_commits == 0
    assert sum(r["lines"] for r in interim_lines(finished.queries)) == 6


def test_what_was_open_is_brought_to_its_end(finished: Building) -> None:
    """The batch in work is finished and returned; the cancelled order gets its final line in a
    revision; a correction brings a card of a batch that was returned long ago, whose line it
    supersedes. Each time the ledger verifies."""
    b = finished
    b.sort()
    assert results(b, "batch_id = 'B2' and revision > 0") == {("cancelled", "CANCELLED", 1, 1): 1}
    verified(b)
    for number in (44, 45):
        b.replace_keys("G1", number, f"B3-{number:06d}", "102-430102")
    b.inspect()
    b.sort()
    assert results(b, "batch_id = 'B3'") == {("shipped", "", 1, 0): 5}
    verified(b)
    assert take_correction(b, "F9")
    b.sort()
    assert results(b, "order_id = 'B1-000090' and superseded_by = 0") == {("shipped", "", 1, 1): 1}
    assert results(b, "superseded_by > 0 and batch_id = 'B1'")
    verified(b)
