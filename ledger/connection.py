"""Connections to the ledger's database over ODBC, whichever it is.

Autocommit is on; transactions are explicit. Nothing is kept of a connection that broke: the next
statement opens another.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyodbc

from domain.changes import Away, Refused, Row
from domain.codes import Code
from ledger import postgres, sqlite
from ledger.database import Database, LedgerUnusable, Trouble

__all__ = [
    "Again", "Connection", "Database", "LedgerUnusable", "as_json", "connect", "database",
    "ledger_file",
]  # fmt: skip

pyodbc.pooling = False

ROWS_PER_STATEMENT = 1_000


class Again(Away):
    """Another transaction came between; nothing changed, and begun anew it can succeed."""


@lru_cache
def database(url: str | Path) -> Database:
    """The database that a URL names (a path: a file of SQLite). Raises LedgerUnusable for a URL
    that names none."""
    if isinstance(url, Path):
        return sqlite.Sqlite(url)
    if url.startswith(sqlite.SCHEME):
        return sqlite.Sqlite(Path(url.removeprefix(sqlite.SCHEME)))
    if url.startswith(postgres.SCHEME):
        return postgres.from_url(url)
    raise LedgerUnusable(
        '[ledger] url: "sqlite:FILE" or "postgresql://USER@HOST:PORT/DATABASE" is needed'
    )


def ledger_file(url: str | Path) -> Path | None:
    """The file of a ledger on SQLite; None for one on a server."""
    found = database(url)
    return found.path if isinstance(found, sqlite.Sqlite) else None


class Connection:
    """One connection. Not for use by two threads at once."""

    def __init__(self, url: str | Path, *, write: bool) -> None:
        """Raises LedgerUnusable, and Away while the database does not answer."""
        self.database = database(url)
        self._write = write
        self._odbc: pyodbc.Connection | None = None
        self._in_transaction = False
        self._open()

    def close(self) -> None:
        odbc, self._odbc, self._in_transaction = self._odbc, None, False
        if odbc is not None:
            odbc.close()

    def execute(self, sql: str, *parameters: Any) -> pyodbc.Cursor:
        """Run a statement. Raises pyodbc.Error; Away if the connection is lost and the database
        does not answer, or a transaction broke with it."""
        for again in (True, False):
            try:
                return self._open().execute(self.database.spoken(sql), *parameters)
            except pyodbc.Error as e:
                if self.database.trouble(e) is not Trouble.LOST:
                    raise
                # Out of a transaction it may have been lost since the last statement, as after a
                # restart of the server.
                broken = self._in_transaction or not again
                self.close()
                if broken:
                    raise Away(Trouble.LOST.value) from None
        raise AssertionError("unreachable")

    def rows(self, sql: str, *parameters: Any) -> list[dict[str, Any]]:
        """All rows of a query, as dicts by column name. Sums are integers here as in SQLite."""
        cursor = self.execute(sql, *parameters)
        try:
            names = [c[0] for c in cursor.description]
            found = [dict(zip(names, r, strict=True)) for r in cursor.fetchall()]
            sums = [c[0] for c in cursor.description if c[1] is Decimal]
        finally:
            cursor.close()
        for row in found if sums else ():
            row.update({name: int(row[name]) for name in sums if row[name] is not None})
        return found

    def row(self, sql: str, *parameters: Any) -> Any:
        """The first row, or None."""
        cursor = self.execute(sql, *parameters)
        try:
            return cursor.fetchone()
        finally:
            cursor.close()

    def value(self, sql: str, *parameters: Any) -> Any:
        """The first value of the first row, or None."""
        row = self.row(sql, *parameters)
        return None if row is None else row[0]

    def run(self, sql: str, *parameters: Any) -> int:
        """Run one statement and answer how many rows it touched."""
        cursor = self.execute(sql, *parameters)
        try:
            return cursor.rowcount
        finally:
            cursor.close()

    def insert(self, table: str, columns: Mapping[str, str], rows: Sequence[Row]) -> int:
        """Insert rows, those that are there already left as they are; answers how many came.
        `columns`: the type of each."""
        names = ", ".join(columns)
        return self.run(
            f"insert into {table} ({names}) select {names} from {self.database.chunk(columns)}"
            " where true on conflict do nothing",
            as_json(rows),
        )

    def begin_reading(self) -> None:
        """From here on all reads see one snapshot, until `close`."""
        self.execute(self.database.begin_reading).close()
        self._in_transaction = True

    @contextmanager
    def writing(self) -> Iterator[None]:
        """One transaction: all that is run inside takes effect at its end, or, if anything is
        raised, nothing. Raises Refused if a constraint broke, Again, and Away: then it may have
        taken effect if the connection was lost at the commit itself."""
        try:
            self.run(self.database.begin_writing)
            self._in_transaction = True
            yield
            self.run("commit")
            self._in_transaction = False
        except pyodbc.Error as e:
            self._roll_back()
            # The driver's text can quote bound values; only its state goes on.
            match self.database.trouble(e):
                case Trouble.BROKEN_RULE as trouble:
                    raise Refused(Code.GUARD_FAILED, trouble.value) from None
                case Trouble.AGAIN as trouble:
                    raise Again(trouble.value) from None
                case trouble:
                    raise Away(f"the ledger: {trouble.value} ({e.args[0]})") from None
        except BaseException:
            self._roll_back()
            raise

    def _roll_back(self) -> None:
        """Without a connection, or if it fails, the database has done so by itself."""
        if self._odbc is not None and self._in_transaction:
            try:
                self._odbc.execute("rollback").close()
            except pyodbc.Error:
                self.close()
        self._in_transaction = False

    def _open(self) -> pyodbc.Connection:
        if self._odbc is None:
            try:
                self._odbc = self.database.open(write=self._write)
            except pyodbc.Error as e:
                if self.database.trouble(e) is not Trouble.LOST:
                    raise
                raise Away(f"{self.database.name} does not answer") from None
        return self._odbc


def connect(url: str | Path, *, write: bool) -> Connection:
    """A connection to the ledger that a URL names."""
    return Connection(url, write=write)


def as_json(items: Row | Sequence[Row] | Sequence[str]) -> str:
    """Rows or values as the one parameter of a set-based statement (`json_each(?)`)."""
    return json.dumps(items, ensure_ascii=False)
