"""The only writing door: `commit(changes, epoch)`.

In one transaction: the epoch is compared, the command id looked up, what was decided upon compared
with what is there now, rows inserted and changed under their guards, events and movements
appended, and the whole linked to what came before.
After a crash at any instant either all of it is there or nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from time import sleep
from typing import TypeVar

from domain.changes import (
    Away,
    Changes,
    Committed,
    Delete,
    Guard,
    Insert,
    Refused,
    Row,
    Update,
    canonical_json,
    event_row,
    movement_row,
)
from domain.codes import Code
from ledger import metrics, schema
from ledger.connection import ROWS_PER_STATEMENT, Again, Connection, Database, as_json

GENESIS = "0" * 64
TRIES = 8
"""Of one transaction that others came between; after each a pause, the first of PAUSE_SECONDS, each
twice the one before."""
PAUSE_SECONDS = 0.002
OUTRUN = 1_000_000
"""Epochs: more than a line is ever started between two backups."""

ResultT = TypeVar("ResultT")


def link_hash(previous: str, head: Row, events: Sequence[Row], movements: Sequence[Row]) -> str:
    """The hash of one commit: SHA-256 over the canonical JSON of what it holds and the link
    before. `head` has line, number, epoch, at, command_id, payload_hash and reply."""
    return hashlib.sha256(
        canonical_json([previous, dict(head), list(events), list(movements)])
    ).hexdigest()


def _chunks(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    for at in range(0, len(rows), ROWS_PER_STATEMENT):
        yield rows[at : at + ROWS_PER_STATEMENT]


class Ledger:
    """One writing connection. Not for use by two threads at once."""

    def __init__(self, url: str | Path, now: Callable[[], str]) -> None:
        """`now` gives the time of a commit as ISO 8601 in UTC with milliseconds."""
        self._now = now
        self._connection = Connection(url, write=True)
        schema.create(self._connection)
        metrics.expect_commits()

    @property
    def database(self) -> Database:
        return self._connection.database

    def close(self) -> None:
        self._connection.close()

    def open_epoch(self, line: str) -> int:
        """A new epoch for `line`: from here on, commits under any older epoch are refused."""

        def take() -> int:
            self._connection.run(
                "insert into epoch (line, epoch) values (?, 1)"
                " on conflict (line) do update set epoch = epoch.epoch + 1",
                line,
            )
            return int(self._connection.value("select epoch from epoch where line = ?", line))

        return self._once(take)

    @metrics.measured
    def commit(self, changes: Changes, epoch: int) -> Committed:
        """Take `changes` into the ledger, once.

        Raises Refused (nothing changed): EPOCH_STALE, COMMAND_DIFFERS, GUARD_FAILED. Raises Away
        when the database can't be reached or is full: nothing changed, or (if the connection
        broke at the commit itself) everything; asking again under the same command id is safe.
        """
        payload_hash = hashlib.sha256(changes.canonical()).hexdigest()
        return self._once(lambda: self._take(changes, epoch, payload_hash))

    def _once(self, work: Callable[[], ResultT]) -> ResultT:
        """`work` in a transaction, begun anew as long as other transactions come between."""
        for tried in range(TRIES):
            try:
                with self._connection.writing():
                    return work()
            except Again:
                sleep(PAUSE_SECONDS * 2**tried)
        raise Away(f"the ledger: others came between {TRIES} times")

    def _take(self, changes: Changes, epoch: int, payload_hash: str) -> Committed:
        c = self._connection
        current = c.value("select epoch from epoch where line = ?", changes.line)
        if current != epoch:
            raise Refused(Code.EPOCH_STALE, f"{changes.line}: epoch {epoch}, now {current}")
        known = c.row(
            "select number, payload_hash, reply from commit_link where line = ? and command_id = ?",
            changes.line,
            changes.command_id,
        )
        if known is not None:
            if known[1] != payload_hash:
                raise Refused(Code.COMMAND_DIFFERS, changes.command_id)
            return Committed(json.loads(known[2]), known[0], True)
        for guard in changes.guards:
            _check(c, guard)
        for insert in changes.inserts:
            _insert(c, insert)
        for update in changes.updates:
            _update(c, update)
        for delete in changes.deletes:
            _delete(c, delete)
        number = self._append(changes, epoch, payload_hash)
        return Committed(changes.reply, number, False)

    def _append(self, changes: Changes, epoch: int, payload_hash: str) -> int:
        last = self._connection.row(
            "select number, hash from commit_link where line = ? order by number desc limit 1",
            changes.line,
        )
        number, previous = (last[0] + 1, last[1]) if last else (1, GENESIS)
        events = [event_row(e) for e in changes.events]
        movements = [movement_row(m) for m in changes.movements]
        head = {
            "line": changes.line,
            "number": number,
            "epoch": epoch,
            "at": self._now(),
            "command_id": changes.command_id,
            "payload_hash": payload_hash,
            "reply": changes.reply,
        }
        place = {"line": changes.line, "number": number}
        for kind, items in (("event", events), ("movement", movements)):
            for first, chunk in enumerate(_chunks(items)):
                at = first * ROWS_PER_STATEMENT
                stored = [
                    {**r, **place, "position": at + i, **_data_text(r)} for i, r in enumerate(chunk)
                ]
                self._connection.insert(kind, _types(kind, stored[0]), stored)
        link = {
            **head,
            "reply": canonical_json(changes.reply).decode(),
            "previous": previous,
            "hash": link_hash(previous, head, events, movements),
        }
        self._connection.insert("commit_link", schema.TYPES["commit_link"], [link])
        return int(number)

    def outrun(self) -> None:
        """Raise the epochs of all lines beyond any that an instance may hold which took one from
        this ledger after the copy was made that it was restored from."""
        self._once(lambda: self._connection.run("update epoch set epoch = epoch + ?", OUTRUN))

    def reclaim(self) -> bool:
        """See `Database.reclaim`."""
        return self._connection.database.reclaim(self._connection)

    def record_heads(self, heads: Sequence[Row]) -> None:
        """Keep signed heads (line, number, hash, at, signature). A head that is there stays."""
        self._once(lambda: self._connection.insert("head", schema.TYPES["head"], heads))


def _data_text(row: Row) -> dict[str, str]:
    return {"data": canonical_json(row["data"]).decode()} if "data" in row else {}


def _types(table: str, columns: Iterable[str]) -> dict[str, str]:
    return {name: schema.TYPES[table][name] for name in columns}


def _check(c: Connection, guard: Guard) -> None:
    if not {*guard.equal} <= set(schema.COLUMNS[guard.table]):
        raise ValueError(f"{guard.table}: unknown column")
    where = " and ".join(f"{column} = ?" for column in guard.equal)
    found = c.row(f"select count(*) from {guard.table} where {where}", *guard.equal.values())
    if found[0] != guard.rows:
        raise Refused(
            Code.GUARD_FAILED, f"{guard.table}: {found[0]} rows, {guard.rows} when it was decided"
        )


def _insert(c: Connection, insert: Insert) -> None:
    columns = _types(insert.table, schema.COLUMNS[insert.table])
    for chunk in _chunks(insert.rows):
        inserted = c.insert(insert.table, columns, chunk)
        if inserted != len(chunk):
            raise Refused(
                Code.GUARD_FAILED,
                f"{insert.table}: {len(chunk) - inserted} of {len(chunk)} rows are there already",
            )


def _update(c: Connection, update: Update) -> None:
    known = schema.COLUMNS[update.table]
    if not {*update.key, *update.set, *update.expect} <= set(known):
        raise ValueError(f"{update.table}: unknown column")
    types = _types(update.table, (*update.key, *update.set))
    types |= {f"expect_{n}": kind for n, kind in _types(update.table, update.expect).items()}
    source = c.database.chunk(types)
    where = " and ".join(
        [f"{update.table}.{n} = j.{n}" for n in update.key]
        + [f"{update.table}.{n} = j.expect_{n}" for n in update.expect]
    )
    sets = ", ".join(f"{n} = j.{n}" for n in update.set)
    for chunk in _chunks(update.rows):
        changed = c.run(
            f"update {update.table} set {sets} from {source} where {where}", as_json(chunk)
        )
        if changed != len(chunk):
            raise Refused(
                Code.GUARD_FAILED,
                f"{update.table}: {len(chunk) - changed} of {len(chunk)} rows had changed",
            )


def _delete(c: Connection, delete: Delete) -> None:
    if delete.column not in schema.COLUMNS[delete.table]:
        raise ValueError(f"{delete.table}: unknown column")
    gone = 0
    for at in range(0, len(delete.values), ROWS_PER_STATEMENT):
        gone += c.run(
            f"delete from {delete.table} where {delete.column} in (select value from json_each(?))",
            as_json(delete.values[at : at + ROWS_PER_STATEMENT]),
        )
    if gone != delete.rows:
        raise Refused(
            Code.GUARD_FAILED, f"{delete.table}: {gone} rows, {delete.rows} when it was decided"
        )
