"""Whatever is changed in a ledger behind its back, verification says so and names the table."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ledger import chain, schema, tables
from ledger import verify as verification
from ledger.commit import GENESIS, link_hash
from ledger.connection import Connection, connect
from ledger.heads import read_head_file
from ledger.verify import Report, verify
from tests.ledger.building import one_of_each
from tests.ledger.tampering import ADDED_TO, TABLES, put_in

COLUMNS = [(table, column) for table, columns in TABLES.items() for column in columns]
Run = Callable[[Connection], None]


@dataclass(frozen=True)
class Finished:
    """A finished small ledger; each test tampers with a copy."""

    folder: Path
    public_key: bytes

    def verify(self, copy: Path) -> Report:
        return verify(copy / "ledger.db", copy / "heads.jsonl", self.public_key)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    building = one_of_each(tmp_path_factory.mktemp("finished"))
    building.sign_heads()
    building.close()
    return Finished(building.folder, building.public_key)


@pytest.fixture
def copy(finished: Finished, tmp_path: Path) -> Path:
    for name in ("ledger.db", "heads.jsonl"):
        shutil.copy(finished.folder / name, tmp_path / name)
    return tmp_path


@contextmanager
def opened(folder: Path) -> Iterator[Connection]:
    """As somebody with the file and any SQLite tool has it; nothing is checked on the way."""
    connection = connect(folder / "ledger.db", write=True)
    connection.execute("pragma synchronous=off").close()
    connection.execute("pragma ignore_check_constraints=on").close()
    try:
        yield connection
    finally:
        connection.close()


def run(folder: Path, *statements: str) -> None:
    with opened(folder) as connection:
        for sql in statements:
            connection.execute(sql).close()


def test_an_untouched_ledger_holds(finished: Finished, copy: Path) -> None:
    """The finished ledger fits, with every commit under a signed head."""
    report = finished.verify(copy)
    assert report.ok, report.finding
    assert (report.bodies, report.unsigned_commits, report.unsigned_seconds) == (25, 0, 0.0)
    assert report.commits > 50
    assert report.signatures == 2 * len(read_head_file(copy / "heads.jsonl"))


@pytest.mark.parametrize(("table", "column"), COLUMNS, ids=[f"{t}.{c}" for t, c in COLUMNS])
def test_each_column_changed_is_found_and_its_table_named(
    finished: Finished, copy: Path, table: str, column: str
) -> None:
    """One value of one row of each table and column is changed: verification names the table. A
    number goes down by one (an epoch that goes up only refuses more), a text gets a character."""
    with opened(copy) as connection:
        chosen = f"select rowid from {table} order by rowid desc limit 1 offset ?"
        n = connection.execute(f"select count(*) from {table}").fetchval()
        kind = connection.execute(f"select typeof({column}) from {table}").fetchval()
        rowid = connection.execute(chosen, n // 2).fetchval()
        value = f"{column} - 1" if kind == "integer" else f"{column} || 'x'"
        changed = connection.execute(
            f"update or ignore {table} set {column} = {value} where rowid = ?", rowid
        ).rowcount
        if not changed:  # the one below is taken: far away from all others
            connection.execute(
                f"update {table} set {column} = {column} + 1000000 where rowid = ?", rowid
            ).close()
    report = finished.verify(copy)
    assert not report.ok
    assert table in report.finding


@pytest.mark.parametrize("table", sorted(TABLES))
def test_each_row_taken_away_is_found(finished: Finished, copy: Path, table: str) -> None:
    """The newest row of each table is deleted."""
    run(copy, f"delete from {table} where rowid = (select max(rowid) from {table})")
    report = finished.verify(copy)
    if table == "head":
        # The head file has it too, and the links that it covered are all there.
        assert report.ok
        return
    assert not report.ok
    assert table in report.finding


@pytest.mark.parametrize("table", ADDED_TO)
def test_each_row_put_in_is_found(finished: Finished, copy: Path, table: str) -> None:
    """A row is put in beside the newest of each table, with keys of its own."""
    run(copy, put_in(table, f"rowid = (select max(rowid) from {table})"))
    report = finished.verify(copy)
    assert not report.ok
    assert table in report.finding


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        *((f"drop table {table}", table) for table in sorted(TABLES)),
        ("drop index commit_command", "commit_command"),
        ("create table another (x)", "another"),
        (
            "create trigger quiet after insert on body begin delete from event; end",
            "quiet",
        ),
        ("alter table body add column note text", "body"),
        ("update ledger_version set version = version + 1", "ledger_version"),
    ],
)
def test_another_schema_is_found(
    finished: Finished, copy: Path, statement: str, named: str
) -> None:
    """Tables, indexes and columns are ours to the letter, and no trigger waits among them."""
    run(copy, statement)
    report = finished.verify(copy)
    assert not report.ok
    assert named in report.finding


GARBAGE = (
    "", "{", "[]", "null", "12", '"x"', "{}", '{"a": 1}', "[" * 100_000, '{"a":NaN}', "\ud7ff\x00",
)  # fmt: skip


@pytest.mark.parametrize(
    "garbage", GARBAGE, ids=lambda g: g[:10].encode("unicode_escape").decode() or "empty"
)
@pytest.mark.parametrize(("table", "column"), [("event", "data"), ("commit_link", "reply")])
def test_garbage_for_json_is_reported_and_breaks_nothing(
    finished: Finished, copy: Path, table: str, column: str, garbage: str
) -> None:
    """Whatever stands where JSON should: a finding, never a traceback."""
    with opened(copy) as connection:
        connection.execute(
            f"update {table} set {column} = ? where rowid = 5 and {column} <> ?", garbage, garbage
        ).close()
    report = finished.verify(copy)
    if report.ok:  # the reply of some commits is `null` as it stands
        assert garbage == "null"
        return
    assert table in report.finding


def compute_anew(connection: Connection) -> None:
    """What somebody does who knows the format: every link again, so that all hashes are right."""
    lines = [r[0] for r in connection.execute("select distinct line from commit_link").fetchall()]
    for line in lines:
        previous = GENESIS
        ordered = "select * from commit_link where line = ? order by number"
        for link in dicts(connection, ordered, line):
            events = dicts(
                connection,
                "select type, body_id, order_id, place, condition, data from event"
                " where line = ? and number = ? order by position",
                line,
                link["number"],
            )
            for event in events:
                event["data"] = json.loads(event["data"])
            movements = dicts(
                connection,
                "select source_place, source_condition, target_place, target_condition, kind, bank,"
                " count from movement where line = ? and number = ? order by position",
                line,
                link["number"],
            )
            names = ("line", "number", "epoch", "at", "command_id", "payload_hash")
            head = {**{c: link[c] for c in names}, "reply": json.loads(link["reply"])}
            now = link_hash(previous, head, events, movements)
            connection.execute(
                "update commit_link set previous = ?, hash = ? where line = ? and number = ?",
                previous, now, line, link["number"],
            ).close()  # fmt: skip
            previous = now


def dicts(connection: Connection, sql: str, *parameters: Any) -> list[dict[str, Any]]:
    cursor = connection.execute(sql, *parameters)
    columns = [c[0] for c in cursor.description]
    found = [dict(zip(columns, row, strict=True)) for row in cursor.fetchall()]
    cursor.close()
    return found


SHIPPED = "where type = 'body_shipped' and body_id = 'C1.0001'"
NEVER_HAPPENED: list[tuple[list[str], str]] = [
    (["update event set place = 'sorting/work' " + SHIPPED], "not a legal transition"),
    (["update event set place = 'nowhere' " + SHIPPED], "legal transition"),
    (["update event set body_id = 'C9.0001' " + SHIPPED], "never received"),
    (["update event set order_id = 'B1-000099' " + SHIPPED], "changes"),
    (["update event set type = 'unheard_of' " + SHIPPED], "no such event"),
    (["update event set condition = 'CHIP_SILENT' " + SHIPPED], "reason"),
    (["update event set data = '{\"lease\":7}' " + SHIPPED], "lease"),
    (["update event set data = '{\"carton_id\":1}' where type = 'body_received'"], "shape"),
    (["update event set data = '[]' where type = 'order_advised'"], "shape"),
    (
        ["update event set data = json_set(data, '$.cartons', 7) where type = 'note_accepted'"],
        "shape",
    ),
    (
        [
            "update event set data = (select e.data from event e where e.type = 'package_closed'"
            " order by e.id limit 1) where id = (select max(id) from event"
            " where type = 'package_closed')"
        ],
        "closed twice",
    ),
    (["update movement set count = count + 1 where id = 9"], "sum"),
    (["update movement set bank = '999' where id = 9"], "sum"),
    (["update commit_link set command_id = 'same' where line = 'sorting'"], "damaged"),
    (["update commit_link set epoch = 9 where line = 'sorting' and number = 2"], "epoch"),
]


@pytest.mark.parametrize(("statements", "words"), NEVER_HAPPENED)
def test_what_never_can_have_happened_is_found_with_all_hashes_right(
    finished: Finished, copy: Path, statements: list[str], words: str
) -> None:
    """Somebody changes history and computes every link anew, and there is no signed head: the
    meaning of the events gives it away."""
    change_history(copy, statements, words)
    report = verify(copy / "ledger.db", None, None)
    assert not report.ok
    if "damaged" not in words:
        assert words in report.finding


@pytest.mark.parametrize(("statements", "words"), [([], "fits"), *NEVER_HAPPENED])
def test_the_size_of_a_page_changes_no_verdict(
    finished: Finished,
    copy: Path,
    monkeypatch: pytest.MonkeyPatch,
    statements: list[str],
    words: str,
) -> None:
    """With a page of one commit or row, everything leaves memory as soon as it can."""
    for module, limit in (
        (verification, "COMMITS_AT_ONCE"),
        (chain, "EVENTS_AT_ONCE"),
        (tables, "ROWS_AT_ONCE"),
    ):
        monkeypatch.setattr(module, limit, 1)
    change_history(copy, statements, words)
    assert verify(copy / "ledger.db", None, None).ok is (words == "fits")


def change_history(folder: Path, statements: list[str], words: str) -> None:
    with opened(folder) as connection:
        connection.execute("drop index commit_command").close()
        for sql in statements:
            connection.execute(sql).close()
        compute_anew(connection)
        connection.execute("delete from head").close()
        index = next(d for d in schema.TABLES if "index commit_command" in d)
        if "damaged" not in words:
            connection.execute(index).close()


def test_the_finding_names_line_commit_body_and_table(finished: Finished, copy: Path) -> None:
    """What does not fit can be looked up by what the finding says."""
    run(copy, "update body set place = 'sorting/work' where body_id = 'C1.0002'")
    finding = finished.verify(copy).finding
    with opened(copy) as connection:
        last = connection.execute(
            "select number from event where body_id = 'C1.0002' order by id desc limit 1"
        ).fetchval()
    for part in ("body", "C1.0002", "sorting", f"commit {last}", "place"):
        assert part in finding


def test_history_computed_anew_contradicts_the_signed_heads(finished: Finished, copy: Path) -> None:
    """A legal history (another station) with right hashes is not the one that was signed."""
    with opened(copy) as connection:
        connection.execute(
            "update event set data = replace(data, 'S1', 'S2') where type = 'inspected'"
        ).close()
        compute_anew(connection)
    assert "head" in finished.verify(copy).finding
    run(copy, "delete from head")
    assert "head file" in finished.verify(copy).finding


CUT = [
    "create temp table gone as select line, max(number) as number from commit_link"
    " where line = 'sorting'",
    "delete from event where (line, number) in (select line, number from gone)",
    "delete from movement where (line, number) in (select line, number from gone)",
    "delete from commit_link where (line, number) in (select line, number from gone)",
    "update outbox set acknowledged = 0",
]


def test_an_end_cut_off_after_a_head_was_kept_is_found(finished: Finished, copy: Path) -> None:
    """The last commit is taken away with everything that it did and the heads over it: what is
    left is whole by itself, and only the head kept outside tells."""
    run(copy, *CUT, "delete from head where (line, number) in (select line, number from gone)")
    alone = verify(copy / "ledger.db", None, finished.public_key)
    assert alone.ok, alone.finding
    report = finished.verify(copy)
    assert not report.ok
    assert "cut off" in report.finding
    assert "sorting" in report.finding


def test_a_head_that_was_not_kept_outside_is_found(finished: Finished, copy: Path) -> None:
    """A head file that is shorter than the table was cut."""
    lines = (copy / "heads.jsonl").read_bytes().splitlines(keepends=True)
    (copy / "heads.jsonl").write_bytes(b"".join(lines[:-1]))
    assert "not in the head file" in finished.verify(copy).finding
    (copy / "heads.jsonl").unlink()
    assert "not in the head file" in finished.verify(copy).finding


@pytest.mark.parametrize(
    "text", [b"garbage\n", b"{}\n", b"\xff\xfe\n", b'{"line": 1}\n', b"[" * 100_000 + b"\n"]
)
def test_a_damaged_head_file_is_reported(finished: Finished, copy: Path, text: bytes) -> None:
    """A line that is not a head is named by its number."""
    path = copy / "heads.jsonl"
    path.write_bytes(path.read_bytes() + text)
    count = path.read_bytes().count(b"\n")
    assert f"line {count} is not a head" in finished.verify(copy).finding


def test_another_key_has_signed_nothing(finished: Finished, copy: Path, tmp_path: Path) -> None:
    """Signatures are checked against the key that is given, and nothing but P-256 is a key."""
    other = one_of_each(tmp_path / "other")
    other.close()
    path, head_file = copy / "ledger.db", copy / "heads.jsonl"
    report = verify(path, head_file, other.public_key)
    assert "signature" in report.finding
    assert not verify(path, head_file, b"no key").ok
    unsigned = verify(path, head_file, None)
    assert unsigned.ok
    assert unsigned.unsigned_commits == unsigned.commits


@pytest.mark.parametrize("content", [b"", b"SQLite format 3\x00", b"no database\n" * 1_000, None])
def test_what_is_no_ledger_is_reported(tmp_path: Path, content: bytes | None) -> None:
    """An empty, broken, foreign or absent file is a finding."""
    path = tmp_path / "ledger.db"
    if content is not None:
        path.write_bytes(content)
    assert not verify(path, None, None).ok


def test_bytes_of_the_file_changed_at_will_break_nothing(finished: Finished, copy: Path) -> None:
    """Pages of the file are overwritten here and there: each time a report comes back."""
    path = copy / "ledger.db"
    whole = path.read_bytes()
    for at in range(100, len(whole), len(whole) // 40):
        path.write_bytes(whole[:at] + b"\xa5" * 64 + whole[at + 64 :])
        (copy / "ledger.db-wal").unlink(missing_ok=True)
        (copy / "ledger.db-shm").unlink(missing_ok=True)
        report = finished.verify(copy)
        # What is overwritten may be free space; else something is said.
        assert report.ok is (report.finding == "")
