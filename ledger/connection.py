"""Connections to the ledger's database over ODBC (SQLite on one machine)."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyodbc

from domain.changes import Row

pyodbc.pooling = False

DRIVERS = (
    "/usr/lib/x86_64-linux-gnu/odbc/libsqlite3odbc.so",
    "/usr/lib/aarch64-linux-gnu/odbc/libsqlite3odbc.so",
    "/usr/lib/odbc/libsqlite3odbc.so",
)
BUSY_MILLISECONDS = 20_000
ROWS_PER_STATEMENT = 1_000
FREE_AT_MOST = 0.25
"""Of the pages of an SQLite file, before it is written anew."""


class LedgerUnusable(Exception):
    """The database can't be used as it is; the message says how to mend it."""


def driver() -> str:
    """The path of the SQLite ODBC driver. Raises LedgerUnusable if it is not installed."""
    for path in DRIVERS:
        if Path(path).exists():
            return path
    raise LedgerUnusable("the SQLite ODBC driver is missing: apt-get install libsqliteodbc")


def connect(path: Path, *, write: bool) -> pyodbc.Connection:
    """A connection with autocommit on; transactions are explicit (`begin immediate`).

    WAL lets readers go on beside the one writer; `synchronous` FULL makes a commit durable
    before it is acknowledged. Both are asserted. A reader can't change anything.
    """
    if not write and not path.exists():
        raise LedgerUnusable(f"there is no ledger at {path}")
    if write:
        # Hashes of passwords and sealed parts are in it; SQLite gives its other files this mode.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    connection = pyodbc.connect(
        f"DRIVER={driver()};DATABASE={path};Timeout={BUSY_MILLISECONDS};", autocommit=True
    )
    if write:
        mode = connection.execute("pragma journal_mode=wal").fetchval()
        connection.execute("pragma synchronous=full").close()
        # What is wiped (components, hashes of passwords) leaves no copy in free pages.
        connection.execute("pragma secure_delete=on").close()
        level = connection.execute("pragma synchronous").fetchval()
        if mode != "wal" or int(level) != 2:
            raise LedgerUnusable(f"SQLite refuses WAL or FULL (journal {mode}, level {level})")
    else:
        connection.execute("pragma query_only=1").close()
    return connection


def reclaim(connection: pyodbc.Connection) -> bool:
    """Deleted rows were overwritten in their pages (`secure_delete`); older copies of these pages
    go with the WAL here. Where a quarter of the file is free pages, they are given back, which
    takes as long as writing the file anew. False: a reader still reads in the WAL."""
    connection.execute("pragma busy_timeout=0").close()
    try:
        free, pages = (
            int(connection.execute(f"pragma {name}").fetchval())
            for name in ("freelist_count", "page_count")
        )
        if free > pages * FREE_AT_MOST:
            connection.execute("vacuum").close()
        return int(connection.execute("pragma wal_checkpoint(truncate)").fetchval()) == 0
    except pyodbc.Error:
        return False
    finally:
        connection.execute(f"pragma busy_timeout={BUSY_MILLISECONDS}").close()


def rows(
    connection: pyodbc.Connection, sql: str, parameters: Sequence[Any] = ()
) -> list[dict[str, Any]]:
    """All rows of a query, as dicts by column name."""
    cursor = connection.execute(sql, *parameters)
    try:
        columns = [c[0] for c in cursor.description]
        return [dict(zip(columns, r, strict=True)) for r in cursor.fetchall()]
    finally:
        cursor.close()


def as_json(items: Sequence[Row] | Sequence[str]) -> str:
    """Rows or values as the one parameter of a set-based statement (`json_each(?)`)."""
    return json.dumps(items, ensure_ascii=False)
