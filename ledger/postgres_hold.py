"""The hold of a head on a ledger of PostgreSQL: an advisory lock of a session of its own."""

from __future__ import annotations

from collections.abc import Callable

import pyodbc

from domain.changes import Away
from ledger.database import Held

CENTRE = int.from_bytes(b"card")
LOCK = f"{CENTRE}, cast(cast(cast(current_schema() as regnamespace) as oid) as integer)"
"""Of the ledger in this schema; locks of one database do not meet those of another."""
TAKE = f"select pg_try_advisory_lock({LOCK})"
HOLDER = f"""
select a.application_name, coalesce(host(a.client_addr), 'unix socket'), a.pid
    from pg_locks l join pg_database d on d.oid = l.database and d.datname = current_database()
    join pg_stat_activity a on a.pid = l.pid
    where l.locktype = 'advisory' and l.granted and l.objsubid = 2 and l.classid = {CENTRE}
    and l.objid = cast(cast(current_schema() as regnamespace) as oid)
"""
KEEPALIVE = {
    "tcp_keepalives_idle": "10s", "tcp_keepalives_interval": "5s", "tcp_keepalives_count": "3",
    "tcp_user_timeout": "20s",
}  # fmt: skip
"""The server's side of `postgres.CLIENT`: a process that is killed is noticed at once, a machine
that vanished within 25 s."""


class ServerHold:
    """See `ledger.database.Hold`."""

    def __init__(self, connect: Callable[[], pyodbc.Connection], who: str) -> None:
        """`connect` makes a writing connection: a lock of a standby would hold nothing."""
        self._connect, self._who = connect, who
        self._odbc: pyodbc.Connection | None = None

    def keep(self) -> None:
        try:
            if self._odbc is None:
                self._odbc = self._connect()
                self._take(self._odbc)
            else:
                # The lock lives as long as its session does.
                self._odbc.execute("select 1").close()
        except pyodbc.Error:
            self.close()
            raise Away("PostgreSQL does not answer") from None
        except Held:
            self.close()
            raise

    def _take(self, odbc: pyodbc.Connection) -> None:
        for name, value in {**KEEPALIVE, "application_name": self._who}.items():
            odbc.execute("select set_config(?, ?, false)", name, value).close()
        if odbc.execute(TAKE).fetchval():
            return
        who, address, pid = odbc.execute(HOLDER).fetchone() or ("it ended this moment", "", "")
        raise Held(
            f"{who} ({address}, server process {pid}): 先停止它 stop that one first; if its machine"
            f" is gone for good: select pg_terminate_backend({pid})"
        )

    def close(self) -> None:
        odbc, self._odbc = self._odbc, None
        if odbc is not None:
            odbc.close()
