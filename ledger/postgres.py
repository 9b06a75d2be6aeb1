"""A ledger on PostgreSQL, through psqlodbc: several processes and machines write it at once."""

from __future__ import annotations

import getpass
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

import pyodbc

from ledger.database import Hold, LedgerUnusable, Reading, Running, Trouble
from ledger.postgres_hold import ServerHold

SCHEME = "postgresql:"
DRIVERS = (
    "/usr/lib/x86_64-linux-gnu/odbc/psqlodbcw.so",
    "/usr/lib/aarch64-linux-gnu/odbc/psqlodbcw.so",
)
OLDEST_SERVER = 130_000
LOCK_MILLISECONDS = 20_000
CLIENT: Mapping[str, str] = {
    "application_name": "card-centre",
    "connect_timeout": "5",
    # A server that vanished with its machine is noticed within half a minute.
    "keepalives_idle": "10", "keepalives_interval": "5", "keepalives_count": "3",
    "tcp_user_timeout": "20000",
}  # fmt: skip
"""Options of libpq; those of the URL come on top."""
SESSION = (
    # Nothing here runs long enough that compiling it would pay.
    "set jit = off",
)
READER = ("set default_transaction_read_only = on",)
WRITER = (
    # A process that hangs with a transaction open does not hold up the others for ever.
    "set idle_in_transaction_session_timeout = '60s'",
    # A commit finds its rows by their keys. To read a whole table instead, which the planner
    # prefers while it is small, would make every other line's commit look like a conflict.
    "set enable_seqscan = off",
)
DURABLE = {"fsync": ("on",), "full_page_writes": ("on",),
           "synchronous_commit": ("on", "remote_apply")}  # fmt: skip

_IN_VALUES = re.compile(r"\bin \(select value from json_each\(\?\)\)")
_NOT_IN_A_WORD = re.compile(r"[\s;{}'\\]")
"""What psqlodbc would take for the end of a word; it knows no quotes."""
_HUNG_UP = re.compile(
    "terminating connection|closed the connection|no connection to the server|could not receive"
)
_ROWS = re.compile(r"\bjson_each\(\?\) (\w+)")


def driver() -> str:
    """The path of the PostgreSQL ODBC driver. Raises LedgerUnusable if it is not installed."""
    for path in DRIVERS:
        if Path(path).exists():
            return path
    raise LedgerUnusable("the PostgreSQL ODBC driver is missing: apt-get install odbc-postgresql")


def from_url(url: str) -> Postgres:
    """`postgresql://USER@HOST:PORT/DATABASE?OPTION=VALUE`; for a unix socket `host` is an option,
    its directory. Raises LedgerUnusable for a URL without database, or with a password."""
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query))
    if parts.password is not None or any("password" in name for name in options):
        raise LedgerUnusable(
            "[ledger] url: no password in it; put it into the passfile of libpq"
            " (~/.pgpass, mode 0600; another file: ?passfile=FILE)"
        )
    try:
        port = parts.port
    except ValueError:
        raise LedgerUnusable("[ledger] url: the port is no number") from None
    name = unquote(parts.path.strip("/"))
    if _NOT_IN_A_WORD.search(unquote(url)):
        raise LedgerUnusable("[ledger] url: no blanks, quotes, semicolons or braces in it")
    if not name:
        raise LedgerUnusable(
            "[ledger] url: it names no database, as postgresql://USER@HOST:PORT/DATABASE does"
        )
    return Postgres(
        url,
        host=unquote(parts.hostname or "") or options.pop("host", "/var/run/postgresql"),
        port=str(port or options.pop("port", "5432")),
        user=unquote(parts.username or "") or options.pop("user", getpass.getuser()),
        database=name,
        options=tuple(options.items()),
    )


@dataclass(frozen=True)
class Postgres:
    """One database of a server."""

    url: str
    host: str
    port: str
    user: str
    database: str
    options: tuple[tuple[str, str], ...] = ()

    name = "PostgreSQL"
    present = (
        "select count(*) from pg_class where relname = 'ledger_version'"
        " and relnamespace = current_schema()::regnamespace"
    )
    begin_writing = "begin isolation level serializable read write"
    begin_reading = "begin isolation level repeatable read read only"
    copy_name = "ledger.dump"

    def open(self, *, write: bool) -> pyodbc.Connection:
        """Durability is asserted: a commit waits for the disk (`synchronous_commit`), and the
        server does (`fsync`, `full_page_writes`)."""
        odbc = self._connect()
        try:
            for setting in (*SESSION, *(WRITER if write else READER)):
                odbc.execute(setting).close()
            if write:
                odbc.execute(f"set lock_timeout = {LOCK_MILLISECONDS}").close()
                self._check(odbc)
        except BaseException:
            odbc.close()
            raise
        return odbc

    def _connect(self) -> pyodbc.Connection:
        client = {**CLIENT, **dict(self.options)}
        mode = client.pop("sslmode", "prefer")
        words = {
            "DRIVER": driver(),
            "SERVERNAME": self.host,
            "PORT": self.port,
            "DATABASE": self.database,
            "UID": self.user,
            "SSLmode": mode,
            # An error leaves the transaction to us; the driver would set a savepoint before each
            # statement.
            "Protocol": "7.4-0",
            "BoolsAsChar": "0",
            "pqopt": "{" + " ".join(f"{k}={v}" for k, v in client.items()) + "}",
        }
        text = ";".join(f"{k}={v}" for k, v in words.items())
        try:
            return pyodbc.connect(text, autocommit=True)
        except pyodbc.Error as e:
            said = str(e)
            if "does not exist" in said or "authentication failed" in said:
                raise LedgerUnusable(
                    f"PostgreSQL at {self.host} does not let {self.user} into {self.database}:"
                    f" createuser {self.user}; createdb -O {self.user} -E UTF8 {self.database}"
                ) from None
            raise

    def _check(self, odbc: pyodbc.Connection) -> None:
        row = odbc.execute(
            "select current_setting('server_version_num')::int, current_setting('server_encoding'),"
            " pg_is_in_recovery()," + ", ".join(f"current_setting('{name}')" for name in DURABLE)
        ).fetchone()
        assert row is not None
        version, encoding, standby, *settings = row
        if version < OLDEST_SERVER:
            raise LedgerUnusable(f"PostgreSQL {version} is too old: {OLDEST_SERVER} is needed")
        if encoding != "UTF8":
            raise LedgerUnusable(
                f"the database {self.database} has encoding {encoding}:"
                " createdb -E UTF8 -T template0"
            )
        if standby:
            raise LedgerUnusable(f"PostgreSQL at {self.host} is a standby: name the primary")
        for (name, durable), value in zip(DURABLE.items(), settings, strict=True):
            if value not in durable:
                raise LedgerUnusable(
                    f"PostgreSQL would lose what it has confirmed ({name} = {value}):"
                    f" alter system set {name} = on; select pg_reload_conf();"
                    + (
                        f" alter database {self.database} reset {name}"
                        if name == "synchronous_commit"
                        else ""
                    )
                )

    def hold(self, who: str) -> Hold:
        return ServerHold(lambda: self.open(write=True), who)

    def spoken(self, sql: str) -> str:
        return _spoken(sql)

    def defined(self, ddl: str) -> str:
        """Text in byte order, whole numbers of 64 bits, ids from a sequence, and `data` of an
        event as JSON that keeps its spelling."""
        ddl = re.sub(r"\) strict$", ")", ddl)
        if not ddl.startswith(("create table", "alter table")):
            return ddl
        ddl = ddl.replace(
            "id integer primary key", "id bigint generated by default as identity primary key"
        )
        ddl = re.sub(r"\binteger\b", "bigint", ddl).replace("data text", "data json")
        return re.sub(r"\btext\b", 'text collate "C"', ddl)

    def chunk(self, columns: Mapping[str, str]) -> str:
        # `data` comes as text, so that its spelling stays.
        kinds = {n: "bigint" if kind == "integer" else "text" for n, kind in columns.items()}
        names = ", ".join("cast(data as json) as data" if n == "data" else n for n in columns)
        typed = ", ".join(f"{n} {kind}" for n, kind in kinds.items())
        return f"(select {names} from json_to_recordset(cast(? as json)) r({typed})) j"

    def trouble(self, error: pyodbc.Error) -> Trouble:
        """By SQLSTATE (PostgreSQL, appendix A). Where a statement breaks while it is prepared, the
        driver has none (HY000) and hands on what libpq says."""
        state = str(error.args[0]) if error.args else ""
        if state.startswith("23"):
            return Trouble.BROKEN_RULE
        if state in ("40001", "40P01"):
            return Trouble.AGAIN
        if state.startswith(("08", "57P")):
            return Trouble.LOST
        # 25P03: idle for too long inside a transaction; the server has hung up.
        if state == "25P03":
            return Trouble.LOST
        if state == "HY000" and _HUNG_UP.search(str(error.args[1:])):
            return Trouble.LOST
        return Trouble.FULL if state == "53100" else Trouble.OTHER

    def shapes(self, reading: Reading) -> dict[str, str]:
        return _shapes(reading.rows(_CATALOGUE))

    def expected_shapes(self, tables: Sequence[str]) -> dict[str, str]:
        """Makes them in a schema of its own, in a transaction that is rolled back: the server
        spells both. A server is asked once in a process."""
        odbc = self.open(write=True)
        try:
            key = (str(odbc.execute("show server_version").fetchval()), *tables)
            if key in _EXPECTED:
                return _EXPECTED[key]
            for statement in (
                "begin",
                "create schema ledger_as_expected",
                "set local search_path = ledger_as_expected",
                *(self.defined(ddl) for ddl in tables),
            ):
                odbc.execute(statement).close()
            cursor = odbc.execute(_CATALOGUE)
            names = [c[0] for c in cursor.description]
            found = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
            odbc.execute("rollback").close()
        finally:
            odbc.close()
        return _EXPECTED.setdefault(key, _shapes(found))

    def damage(self, reading: Reading) -> str:
        """What it can't read it says when it is read; its pages have checksums of their own."""
        invalid = reading.rows(
            "select c.relname as name from pg_index i join pg_class c on c.oid = i.indexrelid"
            " where c.relnamespace = current_schema()::regnamespace"
            " and not (i.indisvalid and i.indisready) limit 1"
        )
        return invalid[0]["name"] if invalid else ""

    def standing(self, reading: Reading) -> str:
        (row,) = reading.rows(
            "select current_setting('server_version') as version, "
            + ", ".join(f"current_setting('{name}') as {name}" for name in DURABLE)
        )
        version = row.pop("version")
        return f"PostgreSQL {version}, " + ", ".join(f"{k} {v}" for k, v in row.items())

    def reclaim(self, running: Running) -> bool:
        """The two tables of personal data are written anew, which is as long as the retention
        time, not as history, makes them; who reads them waits. What the server wrote to its WAL
        goes as it recycles that."""
        running.run("set lock_timeout = '200ms'")
        try:
            for table in ("personal", "number_index"):
                running.run(f"vacuum (full) {table}")
        except pyodbc.Error as e:
            if str(e.args[0]) != _LOCK_NOT_AVAILABLE:
                raise
            return False
        finally:
            running.run(f"set lock_timeout = {LOCK_MILLISECONDS}")
        return True

    def copy(self, target: Path, snapshot: Reading) -> None:
        """By pg_dump: a restore needs no server of the same version, or of the same machine."""
        (exported,) = snapshot.rows("select pg_export_snapshot() as id")
        plain = ("--no-owner", "--no-privileges", f"--dbname={self.url}")
        what = ("--format=custom", f"--snapshot={exported['id']}", f"--file={target}")
        self._tool("pg_dump", *what, *plain)
        target.chmod(0o600)

    def take_copy(self, source: Path) -> None:
        """By pg_restore, in one transaction."""
        odbc = self.open(write=True)
        try:
            if odbc.execute(self.present).fetchval():
                raise LedgerUnusable(f"the database {self.database} holds a ledger already")
        finally:
            odbc.close()
        whole = ("--exit-on-error", "--single-transaction", "--no-owner", "--no-privileges")
        self._tool("pg_restore", *whole, f"--dbname={self.url}", str(source))

    def _tool(self, *command: str) -> None:
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            raise LedgerUnusable(
                f"{command[0]} is missing: apt-get install postgresql-client"
            ) from None
        if done.returncode:
            # What it says names tables and files; a row that it could quote is not shown.
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[0]
            raise LedgerUnusable(f"{command[0]}: {reason}")


_LOCK_NOT_AVAILABLE = "55P03"
_EXPECTED: dict[tuple[str, ...], dict[str, str]] = {}
"""By the version of a server and the statements."""

_CATALOGUE = """
with ours as (select c.oid, c.relname, c.relkind, c.relpersistence, c.relrowsecurity
    from pg_class c where c.relnamespace = current_schema()::regnamespace)
select relname as name, 0 as part, concat_ws(' ', relkind, relpersistence, relrowsecurity) as shape
    from ours
union all select o.relname, a.attnum, concat_ws(' ', a.attname,
        format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity, a.attgenerated,
        a.attcollation::regcollation, pg_get_expr(d.adbin, d.adrelid))
    from ours o join pg_attribute a on a.attrelid = o.oid and a.attnum > 0 and not a.attisdropped
    left join pg_attrdef d on d.adrelid = o.oid and d.adnum = a.attnum
    where o.relkind in ('r', 'v', 'm', 'p', 'f')
union all select o.relname, 10000, pg_get_indexdef(o.oid)
    from ours o where o.relkind in ('i', 'I')
union all select o.relname, 20000, pg_get_constraintdef(k.oid)
    from ours o join pg_constraint k on k.conrelid = o.oid
union all select o.relname, 30000, concat_ws(' ', r.rulename, r.definition)
    from ours o join pg_rules r on r.tablename = o.relname and r.schemaname = current_schema()
union all select t.tgname, 0, concat_ws(' ', pg_get_triggerdef(t.oid), t.tgenabled)
    from ours o join pg_trigger t on t.tgrelid = o.oid and not t.tgisinternal
union all select p.proname, 0, pg_get_functiondef(p.oid)
    from pg_proc p where p.pronamespace = current_schema()::regnamespace and p.prokind <> 'a'
order by 1, 2, 3
"""
"""All that is defined in the ledger's schema, as the server spells it."""


def _shapes(found: Sequence[Mapping[str, str]]) -> dict[str, str]:
    shapes: dict[str, str] = {}
    for row in found:
        spelt = re.sub(r" ON \w+\.", " ON ", row["shape"])
        shapes[row["name"]] = f"{shapes.get(row['name'], '')}{spelt}\n"
    return shapes


@lru_cache(maxsize=1_000)
def _spoken(sql: str) -> str:
    sql = _IN_VALUES.sub("= any (array(select json_array_elements_text(cast(? as json))))", sql)

    def rows(match: re.Match[str]) -> str:
        name = match[1]
        are_objects = re.search(rf"\b{name}\.value->>", sql) is not None
        elements = "json_array_elements" + ("" if are_objects else "_text")
        return f"{elements}(cast(? as json)) {name}(value)"

    sql = _ROWS.sub(rows, sql)
    return sql.replace(" as integer)", " as bigint)")
