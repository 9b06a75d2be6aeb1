"""A ledger on SQLite: one file, one machine."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyodbc

from ledger.database import Held, Hold, LedgerUnusable, Reading, Running, Trouble

SCHEME = "sqlite:"
DRIVERS = (
    "/usr/lib/x86_64-linux-gnu/odbc/libsqlite3odbc.so",
    "/usr/lib/aarch64-linux-gnu/odbc/libsqlite3odbc.so",
    "/usr/lib/odbc/libsqlite3odbc.so",
)
BUSY_MILLISECONDS = 20_000
FREE_AT_MOST = 0.25
"""Of the pages of a file, before it is written anew."""


def driver() -> str:
    """The path of the SQLite ODBC driver. Raises LedgerUnusable if it is not installed."""
    for path in DRIVERS:
        if Path(path).exists():
            return path
    raise LedgerUnusable("the SQLite ODBC driver is missing: apt-get install libsqliteodbc")


class Sqlite:
    """`sqlite:/path/of/file`."""

    name = "SQLite"
    present = "select count(*) from sqlite_master where name = 'ledger_version'"
    # A read-then-write in a deferred transaction burns the whole busy time and fails.
    begin_writing = "begin immediate"
    begin_reading = "begin"
    copy_name = "ledger.db"

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def url(self) -> str:
        return f"{SCHEME}{self.path}"

    def open(self, *, write: bool) -> pyodbc.Connection:
        """WAL lets readers go on beside the one writer; `synchronous` FULL makes a commit durable
        before it is acknowledged. Both are asserted."""
        if not write and not self.path.exists():
            raise LedgerUnusable(f"there is no ledger at {self.path}")
        if write:
            # Hashes of passwords and sealed parts are in it; SQLite gives its other files this
            # mode.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        connection = pyodbc.connect(
            f"DRIVER={driver()};DATABASE={self.path};Timeout={BUSY_MILLISECONDS};", autocommit=True
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

    def hold(self, who: str) -> Hold:
        """A lock on a file beside it."""
        return _FileHold(self.path.with_name(f"{self.path.name}-head"), who)

    def spoken(self, sql: str) -> str:
        return sql

    def defined(self, ddl: str) -> str:
        return ddl

    def chunk(self, columns: Mapping[str, str]) -> str:
        values = ", ".join(f"value->>'{name}' as {name}" for name in columns)
        return f"(select {values} from json_each(?)) j"

    def trouble(self, error: pyodbc.Error) -> Trouble:
        """The driver has one state for everything: what happened shows in the text alone."""
        text = str(error)
        if "constraint failed" in text:
            return Trouble.BROKEN_RULE
        return Trouble.FULL if "disk is full" in text else Trouble.OTHER

    def shapes(self, reading: Reading) -> dict[str, str]:
        """By name, the statement that made it, in one spelling."""
        return {
            r["name"]: _one_spelling(r["sql"])
            for r in reading.rows(
                "select name, sql from sqlite_master where name not like 'sqlite^_%' escape '^'"
            )
        }

    def expected_shapes(self, tables: Sequence[str]) -> dict[str, str]:
        return {_name(ddl): _one_spelling(ddl) for ddl in tables}

    def damage(self, reading: Reading) -> str:
        """SQLite's own check of the file: types, unique keys, indexes that hold what the tables
        hold."""
        for row in reading.rows("pragma integrity_check(1)"):
            (text,) = row.values()
            if text != "ok":
                return str(text)
        return ""

    def standing(self, reading: Reading) -> str:
        (row,) = reading.rows("select sqlite_version() as version")
        return f"SQLite {row['version']}, WAL, synchronous FULL"

    def reclaim(self, running: Running) -> bool:
        """Deleted rows were overwritten in their pages (`secure_delete`); older copies of these
        pages go with the WAL here. Where a quarter of the file is free pages it is written anew,
        for which commits wait."""
        running.run("pragma busy_timeout=0")
        try:
            free = running.value("pragma freelist_count")
            if int(free) > int(running.value("pragma page_count")) * FREE_AT_MOST:
                running.run("vacuum")
            return int(running.value("pragma wal_checkpoint(truncate)")) == 0
        except pyodbc.Error:
            return False
        finally:
            running.run(f"pragma busy_timeout={BUSY_MILLISECONDS}")

    def copy(self, target: Path, snapshot: Reading) -> None:
        """One snapshot, without free pages and WAL."""
        if not self.path.exists():
            raise LedgerUnusable(f"there is no ledger at {self.path}")
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        # A connection that may not write cannot make a copy either.
        connection = pyodbc.connect(
            f"DRIVER={driver()};DATABASE={self.path};Timeout={BUSY_MILLISECONDS};", autocommit=True
        )
        try:
            connection.execute("vacuum into ?", str(target)).close()
        except pyodbc.Error as e:
            raise LedgerUnusable(f"the ledger can't be copied: {e.args[0]}") from None
        finally:
            connection.close()

    def take_copy(self, source: Path) -> None:
        if self.path.exists():
            raise LedgerUnusable(f"{self.path} is there already")
        shutil.copyfile(source, self.path)
        self.path.chmod(0o600)


class _FileHold:
    def __init__(self, file: Path, who: str) -> None:
        self._file, self._who = file, who
        self._lock: int | None = None

    def keep(self) -> None:
        if self._lock is not None:
            return
        lock = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(lock, 0)
            os.pwrite(lock, self._who.encode(), 0)
        except BlockingIOError:
            holder = os.pread(lock, 1_000, 0).decode("utf-8", "replace")
            os.close(lock)
            raise Held(f"{holder}: 先停止它 stop that one first") from None
        self._lock = lock

    def close(self) -> None:
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)


def _one_spelling(ddl: str) -> str:
    return " ".join(ddl.split()).lower()


def _name(ddl: str) -> str:
    words = ddl.split()
    return words[3] if words[1] == "unique" else words[2]
