"""A copy of the ledger as it is at one moment, made while others commit."""

from __future__ import annotations

import os
from pathlib import Path

import pyodbc

from ledger.connection import BUSY_MILLISECONDS, LedgerUnusable, driver


def copy_ledger(path: Path, target: Path) -> None:
    """Write a copy of the SQLite ledger at `path` to `target`, which must not exist: one snapshot,
    without free pages and WAL. Commits go on meanwhile; what comes later is not in it. Raises
    LedgerUnusable."""
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    # A connection that may not write cannot make a copy either.
    connection = pyodbc.connect(
        f"DRIVER={driver()};DATABASE={path};Timeout={BUSY_MILLISECONDS};", autocommit=True
    )
    try:
        connection.execute("vacuum into ?", str(target)).close()
    except pyodbc.Error as e:
        raise LedgerUnusable(f"the ledger can't be copied: {e.args[0]}") from None
    finally:
        connection.close()
    with target.open("rb") as written:
        os.fsync(written.fileno())
