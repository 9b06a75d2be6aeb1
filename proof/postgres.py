"""A private PostgreSQL server: for tests, benches and runs in which it is killed.

It listens on a unix socket in its own directory and on no port, so any number of them live beside
one another and beside the machine's own. Nothing is switched off that makes a commit durable.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

USER = "centre"
OS_USER = "postgres"
"""As whom the server runs when root starts it: it refuses to be root."""
START_SECONDS = 60.0
MEND = "apt-get install postgresql odbc-postgresql (deploy/setup does)"


class PostgresError(Exception):
    """The server can't be made or started; the message says what mends it."""


def program(name: str) -> str:
    """The path of a program of PostgreSQL, of the newest version that is installed."""
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=_version)
    found = str(versions[-1]) if versions else shutil.which(name)
    if found is None:
        raise PostgresError(f"缺少 {name} ({name} of PostgreSQL is missing): {MEND}")
    return found


def _version(path: Path) -> float:
    try:
        return float(path.parents[1].name)
    except ValueError:
        return 0.0


def _as_server() -> list[str]:
    """The server ends with the process that started it, however that ends."""
    command = ["setpriv", "--pdeathsig", "KILL"]
    if os.geteuid() == 0:
        try:
            account = pwd.getpwnam(OS_USER)
        except KeyError:
            raise PostgresError(f"there is no OS account {OS_USER}: {MEND}") from None
        ids = (f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups")
        command += ids
    return command


class PostgresServer:
    """One server over `directory` (made if there is none; a short path: it holds a socket)."""

    def __init__(self, directory: Path, settings: Sequence[str] = ()) -> None:
        """`settings`: more of postgresql.conf, as `name=value`."""
        self.directory = directory
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the postmaster. Raises PostgresError when the server is not running."""
        if self._process is None or self._process.poll() is not None:
            raise PostgresError("the server is not running")
        return self._process.pid

    @property
    def log(self) -> Path:
        return self.directory / "log"

    @property
    def _data(self) -> Path:
        return self.directory / "data"

    def start(self) -> None:
        """Make the cluster if there is none, start it, and wait until it takes connections (after
        a kill: until it has recovered)."""
        self.directory.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:
            account = pwd.getpwnam(OS_USER)
            os.chown(self.directory, account.pw_uid, account.pw_gid)
        if not (self._data / "PG_VERSION").exists():
            self._initialise()
        command = [program("postgres"), "-D", str(self._data), "-k", str(self.directory)]
        for setting in ("listen_addresses=", "unix_socket_permissions=0700", *self._settings):
            command += ["-c", setting]
        # What a killed postmaster left says nothing of the one to come.
        (self._data / "postmaster.pid").unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*_as_server(), *command], stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                cwd="/",
            )  # fmt: skip
        self._wait()

    def _initialise(self) -> None:
        made = subprocess.run(
            [*_as_server(), program("initdb"), "-D", str(self._data), "-U", USER, "--auth=trust",
             "--locale=C", "--encoding=UTF8", "--no-instructions"],
            capture_output=True, text=True, cwd="/",
        )  # fmt: skip
        if made.returncode:
            raise PostgresError(f"initdb failed: {made.stderr.strip()}")

    def _wait(self) -> None:
        """The postmaster says in its pid file when it is ready; it has no other event for us."""
        process, deadline = self._process, time.monotonic() + START_SECONDS
        assert process is not None
        while time.monotonic() < deadline:
            if process.poll() is not None:
                break
            try:
                lines = (self._data / "postmaster.pid").read_text("utf-8").splitlines()
            except FileNotFoundError:
                lines = []
            if len(lines) >= 8 and int(lines[0]) == process.pid and lines[7].strip() == "ready":
                return
            time.sleep(0.02)
        raise PostgresError(f"the server did not start: see {self.log}")

    def stop(self) -> None:
        """Shut down, connections closed (`fast`), everything on the disk."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """SIGKILL of the postmaster; its backends end by themselves. Waits until they have: a
        server over the same data directory can be started only then."""
        backends = self.backends()
        self._end(signal.SIGKILL)
        deadline = time.monotonic() + START_SECONDS
        while any(Path(f"/proc/{pid}").exists() for pid in backends):
            if time.monotonic() > deadline:
                raise PostgresError("backends of the killed server do not end")
            time.sleep(0.01)  # they are no children of ours: there is no event to wait for

    def backends(self) -> list[int]:
        """Process ids of the postmaster's children."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        return [int(pid) for pid in children.read_text("ascii").split()]

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(number)
        self._process.wait()
        self._process = None

    def url(self, database: str) -> str:
        """As `[ledger] url` names this database."""
        return f"postgresql://{USER}@/{database}?host={quote(str(self.directory))}"

    def create(self, database: str, template: str = "template0") -> str:
        """Make a database, as a copy of `template`; its URL."""
        self.run(f'create database "{database}" template "{template}"')
        return self.url(database)

    def drop(self, database: str) -> None:
        """With all connections to it."""
        self.run(f'drop database if exists "{database}" with (force)')

    def run(self, sql: str, database: str = "postgres") -> str:
        """Run SQL as the owner of the server; what it answers, without decoration."""
        done = subprocess.run(
            [program("psql"), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1",
             "-h", str(self.directory), "-U", USER, "-d", database, "-c", sql],
            capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode:
            raise PostgresError(done.stderr.strip())
        return done.stdout.strip()


@contextmanager
def running(directory: Path, settings: Sequence[str] = ()) -> Iterator[PostgresServer]:
    """A server that is up within this block."""
    server = PostgresServer(directory, settings)
    server.start()
    try:
        yield server
    finally:
        server.stop()
