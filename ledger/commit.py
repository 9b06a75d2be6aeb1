"""The only writing door: `commit(changes, epoch)`.

In one transaction: the epoch is compared, the command id looked up, what was decided upon compared
with what is there now, rows inserted and changed under their guards, events and movements
appended, and the whole linked to what came before.
After a crash at any instant either all of it is there or nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyodbc

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
from ledger.connection import ROWS_PER_STATEMENT, as_json, connect, reclaim

GENESIS = "0" * 64


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

    def __init__(self, path: Path, now: Callable[[], str]) -> None:
        """`now` gives the time of a commit as ISO 8601 in UTC with milliseconds."""
        self._now = now
        self._connection = connect(path, write=True)
        schema.create(self._connection)
        metrics.expect_commits()

    def close(self) -> None:
        self._connection.close()

    def open_epoch(self, line: str) -> int:
        """A new epoch for `line`: from here on, commits under any older epoch are refused."""
        with _Transaction(self._connection) as t:
            t.run(
                "insert into epoch (line, epoch) values (?, 1)"
                " on conflict (line) do update set epoch = epoch.epoch + 1",
                line,
            )
            return int(t.value("select epoch from epoch where line = ?", line))

    @metrics.measured
    def commit(self, changes: Changes, epoch: int) -> Committed:
        """Take `changes` into the ledger, once.

        Raises Refused (nothing changed): EPOCH_STALE, COMMAND_DIFFERS, GUARD_FAILED. Raises Away
        when the database can't be reached or is full: nothing changed, or (if the connection
        broke at the commit itself) everything; asking again under the same command id is safe.
        """
        payload_hash = hashlib.sha256(changes.canonical()).hexdigest()
        with _Transaction(self._connection) as t:
            current = t.value("select epoch from epoch where line = ?", changes.line)
            if current != epoch:
                raise Refused(Code.EPOCH_STALE, f"{changes.line}: epoch {epoch}, now {current}")
            known = t.row(
                "select number, payload_hash, reply from commit_link"
                " where line = ? and command_id = ?",
                changes.line,
                changes.command_id,
            )
            if known is not None:
                if known[1] != payload_hash:
                    raise Refused(Code.COMMAND_DIFFERS, changes.command_id)
                return Committed(json.loads(known[2]), known[0], True)
            for guard in changes.guards:
                _check(t, guard)
            for insert in changes.inserts:
                _insert(t, insert)
            for update in changes.updates:
                _update(t, update)
            for delete in changes.deletes:
                _delete(t, delete)
            number = self._append(t, changes, epoch, payload_hash)
        return Committed(changes.reply, number, False)

    def _append(self, t: _Transaction, changes: Changes, epoch: int, payload_hash: str) -> int:
        last = t.row(
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
                t.insert(kind, list(stored[0]), stored)
        link = {
            **head,
            "reply": canonical_json(changes.reply).decode(),
            "previous": previous,
            "hash": link_hash(previous, head, events, movements),
        }
        t.insert("commit_link", list(link), [link])
        return int(number)

    def reclaim(self) -> bool:
        """Leave nothing of deleted rows in the database's files. False: a reader kept some of it
        there; ask again later. Nobody's commit waits for a reader meanwhile."""
        return reclaim(self._connection)

    def record_heads(self, heads: Sequence[Row]) -> None:
        """Keep signed heads (line, number, hash, at, signature). A head that is there stays."""
        with _Transaction(self._connection) as t:
            for head in heads:
                t.run(
                    "insert into head (line, number, hash, at, signature) values (?, ?, ?, ?, ?)"
                    " on conflict do nothing",
                    head["line"], head["number"], head["hash"], head["at"], head["signature"],
                )  # fmt: skip


def _data_text(row: Row) -> dict[str, str]:
    return {"data": canonical_json(row["data"]).decode()} if "data" in row else {}


def _check(t: _Transaction, guard: Guard) -> None:
    if not {*guard.equal} <= set(schema.COLUMNS[guard.table]):
        raise ValueError(f"{guard.table}: unknown column")
    where = " and ".join(f"{column} = ?" for column in guard.equal)
    found = t.row(f"select count(*) from {guard.table} where {where}", *guard.equal.values())
    if found[0] != guard.rows:
        raise Refused(
            Code.GUARD_FAILED, f"{guard.table}: {found[0]} rows, {guard.rows} when it was decided"
        )


def _insert(t: _Transaction, insert: Insert) -> None:
    columns = schema.COLUMNS[insert.table]
    for chunk in _chunks(insert.rows):
        inserted = t.insert(insert.table, columns, chunk)
        if inserted != len(chunk):
            raise Refused(
                Code.GUARD_FAILED,
                f"{insert.table}: {len(chunk) - inserted} of {len(chunk)} rows are there already",
            )


def _update(t: _Transaction, update: Update) -> None:
    known = schema.COLUMNS[update.table]
    if not {*update.key, *update.set, *update.expect} <= set(known):
        raise ValueError(f"{update.table}: unknown column")
    source = ", ".join(
        f"value->>'{name}' as {name}"
        for name in (*update.key, *update.set, *(f"expect_{c}" for c in update.expect))
    )
    where = " and ".join(
        [f"{update.table}.{c} = j.{c}" for c in update.key]
        + [f"{update.table}.{c} = j.expect_{c}" for c in update.expect]
    )
    sets = ", ".join(f"{c} = j.{c}" for c in update.set)
    for chunk in _chunks(update.rows):
        changed = t.run(
            f"update {update.table} set {sets} from (select {source} from json_each(?)) j"
            f" where {where}",
            as_json(chunk),
        )
        if changed != len(chunk):
            raise Refused(
                Code.GUARD_FAILED,
                f"{update.table}: {len(chunk) - changed} of {len(chunk)} rows had changed",
            )


def _delete(t: _Transaction, delete: Delete) -> None:
    if delete.column not in schema.COLUMNS[delete.table]:
        raise ValueError(f"{delete.table}: unknown column")
    gone = 0
    for at in range(0, len(delete.values), ROWS_PER_STATEMENT):
        gone += t.run(
            f"delete from {delete.table} where {delete.column} in (select value from json_each(?))",
            as_json(delete.values[at : at + ROWS_PER_STATEMENT]),
        )
    if gone != delete.rows:
        raise Refused(
            Code.GUARD_FAILED, f"{delete.table}: {gone} rows, {delete.rows} when it was decided"
        )


class _Transaction:
    """`begin immediate` … `commit`, or `rollback` when anything is raised."""

    def __init__(self, connection: pyodbc.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> _Transaction:
        try:
            self._connection.execute("begin immediate").close()
        except pyodbc.Error as e:
            raise Away(f"the ledger does not begin a transaction: {e.args[0]}") from e
        return self

    def __exit__(self, kind: type[BaseException] | None, value: Any, trace: Any) -> None:
        if kind is None:
            try:
                self._connection.execute("commit").close()
                return
            except pyodbc.Error as e:
                self._rollback()
                raise Away(f"the ledger does not commit: {e.args[0]}") from e
        self._rollback()
        if isinstance(value, pyodbc.Error):
            # The driver's text can quote bound values; only its state goes on. SQLite's driver
            # has one state for everything, so what broke a unique index shows in the text alone.
            if "constraint failed" in str(value):
                raise Refused(Code.GUARD_FAILED, "a constraint of the schema") from None
            raise Away(f"the ledger refused a statement: {value.args[0]}") from None

    def _rollback(self) -> None:
        try:
            self._connection.execute("rollback").close()
        except pyodbc.Error:
            return  # SQLite has rolled back by itself (disk full, lock lost)

    def run(self, sql: str, *parameters: Any) -> int:
        """Run one statement and answer how many rows it touched."""
        cursor = self._connection.execute(sql, *parameters)
        try:
            return cursor.rowcount
        finally:
            cursor.close()

    def insert(self, table: str, columns: Sequence[str], rows: Sequence[Row]) -> int:
        """Insert rows, those that are there already left as they are; answers how many came."""
        names = ", ".join(columns)
        values = ", ".join(f"value->>'{c}'" for c in columns)
        return self.run(
            f"insert into {table} ({names}) select {values} from json_each(?) where true"
            " on conflict do nothing",
            as_json(rows),
        )

    def row(self, sql: str, *parameters: Any) -> Any:
        cursor = self._connection.execute(sql, *parameters)
        try:
            return cursor.fetchone()
        finally:
            cursor.close()

    def value(self, sql: str, *parameters: Any) -> Any:
        row = self.row(sql, *parameters)
        return None if row is None else row[0]
