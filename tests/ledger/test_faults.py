"""What befalls the database never leaves a commit half done, on a real server.

Connections are killed, transactions collide, the disk fills up, the server stops: what was
acknowledged stays, what was not can be asked again under the same command id, once.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from domain.changes import Away, Changes, Guard, Insert, Update
from domain.places import Line
from ledger import commit as commits
from ledger.chain import check_links
from ledger.commit import Ledger
from ledger.connection import Connection, LedgerUnusable, connect
from ledger.queries import Queries
from ledger.verify import verify
from proof.postgres import running
from tests.conformance.ledger_suite import receive
from tests.ledgers import Databases

AT = "2024-03-01T08:00:00.000Z"
OUTBOX = {"kind": "k", "batch_id": "B", "acknowledged": 0}


@pytest.fixture
def url(databases: Databases) -> Iterator[str]:
    with databases.dropped():
        yield databases.new()


class Interrupted(Ledger):
    """A ledger whose connection is killed by the server right before or right after the statement
    that begins with `at`."""

    def __init__(self, url: str, at: str, *, after: bool) -> None:
        super().__init__(url, lambda: AT)
        self._killer = connect(url, write=True)
        self.epoch = self.open_epoch(Line.INVENTORY)
        run = Connection.run
        pid = self._connection.value("select pg_backend_pid()")
        self.killed = False

        def killing(connection: Connection, sql: str, *parameters: Any) -> int:
            hit = sql.startswith(at) and not self.killed
            if hit and not after:
                self._kill(pid)
            touched = run(connection, sql, *parameters)
            if hit and after:
                self._kill(pid)
                raise Away("the answer was lost on the way")
            return touched

        self._connection.run = killing.__get__(self._connection)  # type: ignore[method-assign]

    def _kill(self, pid: int) -> None:
        self.killed = True
        assert self._killer.value("select pg_terminate_backend(?, 5000)", pid)

    def close(self) -> None:
        super().close()
        self._killer.close()


def counted(url: str) -> tuple[int, int, int]:
    """Bodies, events and links."""
    queries = Queries(url)
    try:
        (row,) = queries.rows(
            "select (select count(*) from body) as bodies, (select count(*) from event) as events,"
            " (select count(*) from commit_link) as links"
        )
        return row["bodies"], row["events"], row["links"]
    finally:
        queries.close()


@pytest.mark.parametrize("at", ["insert into body", "insert into movement", "commit"])
def test_a_connection_killed_before_the_end_leaves_nothing(url: str, at: str) -> None:
    """In the midst of a transaction and right before its end: Away, no row of it is there, and
    asked again over another connection it takes effect once."""
    ledger = Interrupted(url, at, after=False)
    with pytest.raises(Away):
        ledger.commit(receive("a", 1, 2), ledger.epoch)
    assert ledger.killed
    assert counted(url) == (0, 0, 0)
    first = ledger.commit(receive("a", 1, 2), ledger.epoch)
    assert (first.number, first.repeated) == (1, False)
    assert counted(url) == (2, 2, 1)
    ledger.close()
    assert verify(url, None, None).ok


def test_a_connection_lost_after_the_commit_is_answered_as_before(url: str) -> None:
    """The commit took effect and its answer was lost: the same command id gets the same reply, and
    nothing happens twice."""
    ledger = Interrupted(url, "commit", after=True)
    command = receive("a", 1, 2)
    with pytest.raises(Away):
        ledger.commit(command, ledger.epoch)
    assert counted(url) == (2, 2, 1)
    again = ledger.commit(command, ledger.epoch)
    assert (again.number, again.repeated, again.reply) == (1, True, command.reply)
    assert counted(url) == (2, 2, 1)
    ledger.close()


def guarded(line: Line, other: Line, n: int) -> Changes:
    """A line opens an outbox entry as long as the other has none: of two at once one may."""
    row = {**OUTBOX, "id": f"{line}-{n}", "kind": f"{line}-{n}"}
    return Changes(
        line,
        f"c{n}",
        inserts=(Insert("outbox", [row]),),
        guards=(Guard("outbox", {"kind": f"{other}-{n}"}, 0),),
    )


def side_by_side(*work: Any) -> list[BaseException | Any]:
    """Each in a thread; what each answered or raised."""
    answers: list[Any] = [None] * len(work)

    def run(n: int) -> None:
        try:
            answers[n] = work[n]()
        except BaseException as e:  # noqa: BLE001 - handed to the test
            answers[n] = e

    threads = [threading.Thread(target=run, args=(n,)) for n in range(len(work))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def test_lines_that_decide_upon_each_others_rows_take_turns(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two lines guard each other's rows and write at the same moment: the database lets one pass;
    the other is begun anew inside `commit`, sees what has come, and is refused. Never do both
    pass, which each alone would have allowed."""
    again = count_of_repeats(monkeypatch)
    lines = (Line.INVENTORY, Line.SORTING)
    ledgers = [Ledger(url, lambda: AT) for _ in lines]
    epochs = [ledger.open_epoch(line) for ledger, line in zip(ledgers, lines, strict=True)]
    rounds = 12
    for n in range(rounds):
        meet_in_the_middle(ledgers)
        answers = side_by_side(
            *(
                lambda i=i, n=n: ledgers[i].commit(guarded(lines[i], lines[1 - i], n), epochs[i])
                for i in (0, 1)
            )
        )
        passed = [a for a in answers if not isinstance(a, BaseException)]
        assert len(passed) == 1, answers
        assert {getattr(a, "code", "passed") for a in answers} == {"GUARD_FAILED", "passed"}
    assert again() >= rounds
    for ledger in ledgers:
        ledger.close()
    queries = Queries(url)
    assert check_links(queries).commits == rounds
    queries.close()


def meet_in_the_middle(ledgers: list[Ledger]) -> None:
    """At its next transaction each has read before any writes."""
    barrier = threading.Barrier(len(ledgers))
    for ledger in ledgers:
        seen: list[bool] = []

        def meeting(
            sql: str, *parameters: Any, c: Connection = ledger._connection, seen: list[bool] = seen
        ) -> int:
            if sql.startswith(("insert into outbox", "update body")) and not seen:
                seen.append(True)
                barrier.wait(10)
            return Connection.run(c, sql, *parameters)

        ledger._connection.run = meeting  # type: ignore[method-assign]


def count_of_repeats(monkeypatch: pytest.MonkeyPatch) -> Any:
    """How often a transaction was begun anew."""
    repeats: list[float] = []
    monkeypatch.setattr(commits, "sleep", repeats.append)
    return lambda: len(repeats)


def test_a_deadlock_is_begun_anew(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two lines change the same two rows in opposite order: the database ends one of the two, and
    it takes effect all the same, after the other, on what that left."""
    again = count_of_repeats(monkeypatch)
    setup = Ledger(url, lambda: AT)
    rows = [{**OUTBOX, "id": i} for i in ("x", "y")]
    setup.commit(
        Changes(Line.CUSTODY, "s", inserts=(Insert("outbox", rows),)),
        setup.open_epoch(Line.CUSTODY),
    )
    setup.close()
    lines = (Line.INVENTORY, Line.SORTING)
    ledgers = [Ledger(url, lambda: AT) for _ in lines]
    epochs = [ledger.open_epoch(line) for ledger, line in zip(ledgers, lines, strict=True)]
    first = threading.Barrier(2)
    for ledger in ledgers:
        done: list[int] = []

        def stepping(
            sql: str, *parameters: Any, c: Connection = ledger._connection, done: list[int] = done
        ) -> int:
            touched = Connection.run(c, sql, *parameters)
            if sql.startswith("update outbox"):
                done.append(1)
                if len(done) == 1:
                    first.wait(10)  # each holds one row before it asks for the other
            return touched

        ledger._connection.run = stepping  # type: ignore[method-assign]

    def changes(line: Line, order: tuple[str, str]) -> Changes:
        return Changes(
            line,
            "d",
            updates=tuple(
                Update("outbox", ("id",), ("kind",), (), [{"id": i, "kind": str(line)}])
                for i in order
            ),
        )

    answers = side_by_side(
        lambda: ledgers[0].commit(changes(lines[0], ("x", "y")), epochs[0]),
        lambda: ledgers[1].commit(changes(lines[1], ("y", "x")), epochs[1]),
    )
    assert [getattr(a, "repeated", a) for a in answers] == [False, False]
    assert again() >= 1
    queries = Queries(url)
    kinds = {r["kind"] for r in queries.rows("select kind from outbox")}
    queries.close()
    assert len(kinds) == 1
    for ledger in ledgers:
        ledger.close()


def test_a_server_that_stops_and_starts_again(memory_directory: Path) -> None:
    """While it is down commits, reads and new connections are Away; when it is up again the same
    objects go on, with what was acknowledged there and what was not free to be asked again."""
    with running(memory_directory) as server:
        url = server.create("ledger")
        ledger, queries = Ledger(url, lambda: AT), Queries(url)
        epoch = ledger.open_epoch(Line.INVENTORY)
        ledger.commit(receive("a", 1), epoch)
        for down in (server.stop, server.kill):
            before = counted(url)
            down()
            with pytest.raises(Away):
                ledger.commit(receive("b", 2), epoch)
            with pytest.raises(Away):
                queries.rows("select * from body")
            with pytest.raises(Away):
                Queries(url)
            assert "can't be opened" in verify(url, None, None).finding
            server.start()
            assert queries.rows("select count(*) as n from body") == [{"n": before[0]}]
            assert ledger.commit(receive("a", 1), epoch).repeated
            number = ledger.commit(receive(down.__name__, before[0] + 9), epoch).number
            assert number == before[2] + 1
            assert verify(url, None, None).ok
        queries.close()
        ledger.close()


def fill(ledger: Ledger, epoch: int) -> int:
    """Commit until there is no room; how many were acknowledged."""
    for n in range(10_000):
        try:
            ledger.commit(receive(f"f{n}", *range(n * 500, n * 500 + 500)), epoch)
        except Away as away:
            if "disk" not in str(away):
                raise
            return n
    raise AssertionError("the disk never was full")


def test_a_full_file_of_sqlite_takes_whole_commits_only(tmp_path: Path) -> None:
    """SQLite may not grow any more: the commit that has no room is Away, the ones before are there
    to the last row, and with room it goes on under the same command id."""
    url = f"sqlite:{tmp_path / 'ledger.db'}"
    ledger = Ledger(url, lambda: AT)
    epoch = ledger.open_epoch(Line.INVENTORY)
    limit = ledger._connection.value("pragma max_page_count = 500")
    assert limit == 500
    taken = fill(ledger, epoch)
    assert counted(url) == (taken * 500, taken * 500, taken)
    ledger._connection.value("pragma max_page_count = 100000")
    again = ledger.commit(receive(f"f{taken}", *range(taken * 500, taken * 500 + 500)), epoch)
    assert (again.repeated, again.number) == (False, taken + 1)
    ledger.close()
    assert verify(url, None, None).ok


def test_a_server_that_would_lose_commits_is_not_written(memory_directory: Path) -> None:
    """The setting is named with what mends it, before anything is written."""
    for name in ("fsync", "full_page_writes", "synchronous_commit"):
        with running(memory_directory, (f"{name}=off",)) as server:
            with pytest.raises(LedgerUnusable, match=f"{name} = off.*alter system"):
                Ledger(server.url("postgres"), lambda: AT)
            assert server.run("select count(*) from pg_class where relname = 'epoch'") == "0"
