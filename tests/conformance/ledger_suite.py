"""What every ledger must do, whatever database stands behind it: `check_ledger(make)`.

Each check has a fresh ledger. It looks at all tables, before and after, and at the end of each
the ledger is verified as a whole.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Protocol

import pytest

from domain.bodies import Body, Writing
from domain.changes import (
    Changes,
    Committed,
    EventType,
    Insert,
    Refused,
    Update,
)
from domain.codes import Code
from domain.places import SURPLUS_COUNTED, VAULT, Account, Kind, Line, transit
from ledger.verify import Report

LINE = Line.INVENTORY
ISSUED = transit(Line.INVENTORY, Line.KEY_REPLACEMENT)
KILLS = 6
SOURCE = Account(SURPLUS_COUNTED, Kind.TEMPORARY_CARD, "102")


class Writer(Protocol):
    """The writing door of a ledger (`ledger.commit.Ledger`)."""

    def open_epoch(self, line: str) -> int: ...

    def commit(self, changes: Changes, epoch: int) -> Committed: ...

    def record_heads(self, heads: Sequence[dict[str, Any]]) -> None: ...

    def close(self) -> None: ...


class Reader(Protocol):
    """A reading connection (`ledger.queries.Queries`)."""

    def rows(self, sql: str, *parameters: Any) -> list[dict[str, Any]]: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Specimen:
    """An empty ledger. `open_writer` can be called in another process (it is pickled there);
    `tables`: all that it has."""

    open_writer: Callable[[], Writer]
    open_reader: Callable[[], Reader]
    verify: Callable[[], Report]
    tables: tuple[str, ...]

    @contextmanager
    def writer(self) -> Iterator[Writer]:
        writer = self.open_writer()
        try:
            yield writer
        finally:
            writer.close()

    @contextmanager
    def reader(self) -> Iterator[Reader]:
        reader = self.open_reader()
        try:
            yield reader
        finally:
            reader.close()

    def everything(self) -> dict[str, list[dict[str, Any]]]:
        """All rows of all tables, in an order that tells one content from another."""
        with self.reader() as reader:
            return {t: sorted(reader.rows(f"select * from {t}"), key=repr) for t in self.tables}


Make = Callable[[], AbstractContextManager[Specimen]]


def check_ledger(make: Make) -> None:
    """Run every check, each over a ledger of its own."""
    for check in CHECKS:
        with make() as specimen:
            check(specimen)
            report = specimen.verify()
            assert report.ok, f"{check.__name__}: {report.finding}"


def body_of(number: int, **more: Any) -> Body:
    return Body(f"T.{number:06d}", Kind.TEMPORARY_CARD, "102", "B", "T", VAULT, **more)


def receive(command_id: str, *numbers: int) -> Changes:
    """New bodies in the vault."""
    writing = Writing(LINE, command_id)
    for number in numbers:
        writing.receive(body_of(number), SOURCE)
    writing.reply = {"received": len(numbers), "名": "𠀀·"}
    return writing.changes()


def issue(command_id: str, *bodies: Body) -> Changes:
    writing = Writing(LINE, command_id)
    for body in bodies:
        writing.change(body, EventType.BODY_ISSUED, place=ISSUED)
    return writing.changes()


def check_a_command_takes_effect_once(s: Specimen) -> None:
    """Same id and content: the first reply again, and not a row changes; also after a restart."""
    command = receive("a", 1, 2)
    with s.writer() as writer:
        epoch = writer.open_epoch(LINE)
        first = writer.commit(command, epoch)
        assert (first.number, first.repeated, first.reply) == (1, False, command.reply)
        before = s.everything()
        again = writer.commit(command, epoch)
        assert (again.number, again.repeated, again.reply) == (1, True, command.reply)
        assert s.everything() == before
    with s.writer() as writer:
        epoch = writer.open_epoch(LINE)
        later = writer.commit(command, epoch)
        assert (later.number, later.repeated, later.reply) == (1, True, command.reply)
        assert len(s.everything()["body"]) == 2


def check_an_id_with_other_content_is_refused(s: Specimen) -> None:
    """A used command id takes no other content, not even another reply; under another line it is
    another command."""
    with s.writer() as writer:
        epoch = writer.open_epoch(LINE)
        writer.commit(receive("a", 1), epoch)
        before = s.everything()
        other_reply = Changes(**{**vars(receive("a", 1)), "reply": None})
        for changes in (receive("a", 2), receive("a"), issue("a", body_of(1)), other_reply):
            with pytest.raises(Refused) as refused:
                writer.commit(changes, epoch)
            assert refused.value.code == Code.COMMAND_DIFFERS
            assert s.everything() == before
        writer.commit(Changes(Line.SORTING, "a"), writer.open_epoch(Line.SORTING))


def check_a_stale_epoch_is_refused(s: Specimen) -> None:
    """Who was replaced, or never took an epoch, changes nothing; not even a repeat is answered
    (its answer may be wrong by now). Epochs of other lines go on."""
    with s.writer() as old, s.writer() as new:
        for never in (0, 1):
            with pytest.raises(Refused, match=Code.EPOCH_STALE):
                old.commit(receive("a", 1), never)
        old_epoch = old.open_epoch(LINE)
        old.commit(receive("a", 1), old_epoch)
        sorting = old.open_epoch(Line.SORTING)
        new_epoch = new.open_epoch(LINE)
        assert new_epoch > old_epoch
        before = s.everything()
        for command in (receive("a", 1), receive("b", 2)):
            with pytest.raises(Refused) as refused:
                old.commit(command, old_epoch)
            assert refused.value.code == Code.EPOCH_STALE
        with pytest.raises(Refused):
            new.commit(receive("b", 2), new_epoch + 1)
        assert s.everything() == before
        new.commit(receive("b", 2), new_epoch)
        old.commit(Changes(Line.SORTING, "c"), sorting)


def check_a_failed_guard_leaves_nothing(s: Specimen) -> None:
    """One row that does not fit refuses the whole commit: no row, event, movement or link of it
    is there afterwards, and the same command id is free for what fits."""
    moved = body_of(1, lease=0)
    with s.writer() as writer:
        epoch = writer.open_epoch(LINE)
        writer.commit(receive("a", 1, 2, 3), epoch)
        writer.commit(issue("b", moved), epoch)
        before = s.everything()
        outbox = {"id": "o", "kind": "k", "batch_id": "B", "acknowledged": 0}
        absent = Update(
            "outbox", ("id",), ("acknowledged",), ("acknowledged",),
            [{"id": "x", "acknowledged": 1, "expect_acknowledged": 0}],
        )  # fmt: skip
        bad = (
            receive("c", 4, 5, 1),  # body 1 is there
            issue("c", body_of(2), moved),  # body 1 is not in the vault any more
            issue("c", body_of(2), body_of(3, lease=1)),  # another lease
            issue("c", body_of(9)),  # no such body
            Changes(LINE, "c", inserts=(Insert("outbox", [outbox, outbox]),)),
            Changes(LINE, "c", inserts=(Insert("outbox", [outbox]),), updates=(absent,)),
        )
        for changes in bad:
            with pytest.raises(Refused) as refused:
                writer.commit(changes, epoch)
            assert refused.value.code == Code.GUARD_FAILED
            assert s.everything() == before
        assert writer.commit(issue("c", body_of(2)), epoch).number == 3


def check_a_broken_constraint_leaves_nothing(s: Specimen) -> None:
    """A change that would give two bodies one chip is refused like any other guard."""
    writing = Writing(LINE, "a")
    for number in (1, 2):
        writing.receive(body_of(number, identification_code=f"code{number}"), SOURCE)
    with s.writer() as writer:
        epoch = writer.open_epoch(LINE)
        writer.commit(writing.changes(), epoch)
        before = s.everything()
        second = Writing(LINE, "b")
        second.change(
            body_of(2, identification_code="code2"),
            EventType.BODY_ISSUED,
            place=ISSUED,
            identification_code="code1",
        )
        with pytest.raises(Refused) as refused:
            writer.commit(second.changes(), epoch)
        assert refused.value.code == Code.GUARD_FAILED
        assert s.everything() == before


def check_large_commits_are_whole(s: Specimen) -> None:
    """More rows than one statement takes; positions run on, and the link covers them all."""
    with s.writer() as writer:
        epoch = writer.open_epoch(LINE)
        writer.commit(receive("a", *range(2_345)), epoch)
    everything = s.everything()
    assert len(everything["body"]) == 2_345
    assert sorted(e["position"] for e in everything["event"]) == list(range(2_345))


def check_readers_see_whole_commits(s: Specimen) -> None:
    """While commits go on, a reader never sees half of one, nothing goes backwards, and who
    follows the events by their ids misses none."""
    commits, each = 60, 5
    trouble: list[BaseException] = []
    with s.writer() as writer:
        epoch = writer.open_epoch(LINE)

    def write() -> None:
        try:
            with s.writer() as mine:
                for n in range(commits):
                    mine.commit(receive(f"c{n}", *range(n * each, (n + 1) * each)), epoch)
        except BaseException as e:  # noqa: BLE001 - handed to the test below
            trouble.append(e)

    thread = threading.Thread(target=write)
    thread.start()
    followed: list[int] = []
    with s.reader() as reader:
        seen = -1
        while seen < commits * each:
            # Read before the look, so that the last look comes after the last commit.
            ended = not thread.is_alive()
            (row,) = reader.rows(
                "select (select count(*) from body) as bodies,"
                " (select count(*) from event) as events,"
                " (select coalesce(sum(count), 0) from movement) as moved,"
                " (select count(*) from commit_link) as links"
            )
            assert row["bodies"] == row["events"] == row["moved"] == row["links"] * each
            assert row["bodies"] >= seen
            seen = row["bodies"]
            last = followed[-1] if followed else 0
            new = reader.rows("select id from event where id > ? order by id", last)
            followed += [r["id"] for r in new]
            assert not trouble, trouble
            assert not ended or seen == commits * each
    thread.join()
    assert len(followed) == commits * each


def _commit_for_ever(open_writer: Callable[[], Writer], round_: int, told: Connection) -> None:
    """What the killed process does: commit, then say so."""
    writer = open_writer()
    epoch = writer.open_epoch(LINE)
    n = 0
    while True:
        number = round_ * 1_000_000 + n * 10
        committed = writer.commit(receive(f"r{round_}c{n}", *range(number, number + 7)), epoch)
        told.send((n, committed.number))
        n += 1


def check_a_killed_process_loses_nothing_it_acknowledged(s: Specimen) -> None:
    """A committing process is killed with SIGKILL at random moments, round after round: what it
    acknowledged is there, what it did not is there whole or not at all, and the links hold."""
    context = multiprocessing.get_context("spawn")
    chance = random.Random(7)
    for round_ in range(KILLS):
        mine, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_commit_for_ever, args=(s.open_writer, round_, theirs))
        process.start()
        theirs.close()
        acknowledged = [mine.recv() for _ in range(chance.randrange(1, 12))]
        threading.Event().wait(chance.uniform(0, 0.004))
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        try:
            while True:
                acknowledged.append(mine.recv())
        except EOFError:
            mine.close()
        _check_after_kill(s, round_, acknowledged)


def _check_after_kill(s: Specimen, round_: int, acknowledged: list[tuple[int, int]]) -> None:
    report = s.verify()
    assert report.ok, report.finding
    with s.reader() as reader:
        stored = {
            r["command_id"]: r["number"]
            for r in reader.rows(
                "select command_id, number from commit_link where command_id like ?",
                f"r{round_}c%",
            )
        }
    told = {f"r{round_}c{n}": number for n, number in acknowledged}
    assert told.items() <= stored.items()
    # At most the one commit that was under way is there beyond what was told.
    assert len(stored) <= len(told) + 1
    with s.writer() as writer:
        epoch = writer.open_epoch(LINE)
        n, number = acknowledged[-1]
        first = round_ * 1_000_000 + n * 10
        again = writer.commit(receive(f"r{round_}c{n}", *range(first, first + 7)), epoch)
        assert (again.repeated, again.number) == (True, number)


CHECKS = (
    check_a_command_takes_effect_once,
    check_an_id_with_other_content_is_refused,
    check_a_stale_epoch_is_refused,
    check_a_failed_guard_leaves_nothing,
    check_a_broken_constraint_leaves_nothing,
    check_large_commits_are_whole,
    check_readers_see_whole_commits,
    check_a_killed_process_loses_nothing_it_acknowledged,
)
