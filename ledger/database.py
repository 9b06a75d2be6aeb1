"""What a database must do to hold a ledger. `ledger.sqlite` and `ledger.postgres` do it.

The SQL of the house is what SQLite and PostgreSQL have in common, with the few forms of SQLite that
`Database.spoken` turns into the other's: `x in (select value from json_each(?))`, rows
`from json_each(?) j` with `j.value->>'column'`, `cast(… as integer)`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Protocol

import pyodbc


class LedgerUnusable(Exception):
    """The database can't be used as it is; the message says how to mend it."""


class Held(Exception):
    """Another head has the ledger; the message says which one, and what to do."""


class Hold(Protocol):
    """That a ledger has one head, wherever homes and machines are; what it writes is fenced by
    epochs all the same. It ends with `close`, and with the process. Not for use by two threads at
    once."""

    def keep(self) -> None:
        """Take it, or see that it is still ours; where it was lost with a connection it is taken
        again. Raises Held, LedgerUnusable; Away while the database does not answer."""

    def close(self) -> None: ...


class Trouble(Enum):
    """What an error of the driver means for who committed."""

    BROKEN_RULE = "a constraint of the schema"
    """A unique index or a check refused a row: asked again, it will again."""
    AGAIN = "another transaction came between"
    """Nothing changed; the same transaction, begun anew, can succeed."""
    LOST = "the connection to the database is lost"
    """Nothing changed, unless it broke at the commit itself: then perhaps everything."""
    FULL = "the disk of the database is full: make room"
    OTHER = "the database refuses"


class Reading(Protocol):
    """What looks into a database: `ledger.connection.Connection`, `ledger.queries.Queries`."""

    def rows(self, sql: str, *parameters: Any) -> list[dict[str, Any]]: ...


class Running(Reading, Protocol):
    """What runs statements: `ledger.connection.Connection`."""

    def run(self, sql: str, *parameters: Any) -> int: ...

    def value(self, sql: str, *parameters: Any) -> Any: ...


class Database(Protocol):
    """One database, by its URL. Has no connection itself."""

    name: str
    """As people call it."""
    present: str
    """SQL that answers whether there is a ledger in it: 0 or 1."""
    begin_writing: str
    """Nobody else's commit comes between what this transaction reads and what it writes."""
    begin_reading: str
    """All that this transaction reads is one snapshot."""
    copy_name: str
    """What the file of a copy is called."""

    @property
    def url(self) -> str: ...

    def open(self, *, write: bool) -> pyodbc.Connection:
        """A connection with autocommit on. A writing one is durable: what was committed is on the
        disk; a reading one can't change anything. Raises LedgerUnusable, pyodbc.Error."""

    def hold(self, who: str) -> Hold:
        """Not taken yet. `who`: what another head learns of this one."""

    def spoken(self, sql: str) -> str:
        """SQL of the house as this database has it."""

    def defined(self, ddl: str) -> str:
        """A statement of `ledger.schema` as this database has it."""

    def chunk(self, columns: Mapping[str, str]) -> str:
        """What stands after `from` to have the rows of a JSON array (one parameter) as table `j`
        with these columns (types by name, as in `ledger.schema`)."""

    def trouble(self, error: pyodbc.Error) -> Trouble: ...

    def shapes(self, reading: Reading) -> dict[str, str]:
        """Everything that is defined beside the rows, by name (tables, indexes, triggers …)."""

    def expected_shapes(self, tables: Sequence[str]) -> dict[str, str]:
        """What `shapes` would say of a ledger that these statements have just made."""

    def damage(self, reading: Reading) -> str:
        """What the database itself finds damaged in its files, as far as it can tell; or ""."""

    def standing(self, reading: Reading) -> str:
        """Version and settings on which durability rests, for `centre doctor`."""

    def reclaim(self, running: Running) -> bool:
        """Leave nothing of deleted personal data in the database's files, as far as it can. False:
        somebody reads there now, ask again later; nobody waits for that meanwhile."""

    def copy(self, target: Path, snapshot: Reading) -> None:
        """Write what `snapshot`, a transaction that reads, sees (SQLite: what is committed by now)
        into a new file (0600), while others go on committing. Raises LedgerUnusable."""

    def take_copy(self, source: Path) -> None:
        """Bring what `copy` wrote into this database, which holds no ledger. Raises
        LedgerUnusable."""
