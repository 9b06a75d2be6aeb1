"""A PostgreSQL that is killed under a connection is away, and used again when it is back."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from centre.hold import take
from domain.changes import Away
from ledger.connection import Connection, database
from ledger.database import Held
from proof.postgres import PostgresServer, running

# With a parameter: the driver prepares it first, and says otherwise what broke.
ASK = "select cast(? as integer)"


@pytest.fixture
def server(short_directory: Path) -> Iterator[PostgresServer]:
    short_directory.chmod(0o755)
    with running(short_directory / "db") as server:
        yield server


def test_a_killed_database_is_away_until_it_is_back(server: PostgresServer) -> None:
    """Whatever died (the postmaster under an idle connection, one connection's own process), the
    next statement is done or answers Away, never a driver's error; inside a transaction it is Away.
    The same connection works on as soon as the server does."""
    connection = Connection(server.create("centre"), write=True)
    assert connection.value(ASK, 1) == 1
    server.kill()
    for _ in range(2):
        with pytest.raises(Away):
            connection.value(ASK, 1)
    server.start()
    assert connection.value(ASK, 2) == 2
    os.kill(connection.value("select pg_backend_pid()"), signal.SIGKILL)
    answers = []
    while 3 not in answers:  # the server starts its processes anew meanwhile
        try:
            answers.append(connection.value(ASK, 3))
        except Away:
            continue
    own = connection.value("select pg_backend_pid()")
    with pytest.raises(Away):
        die_within_a_transaction(connection, own)
    connection.close()


def die_within_a_transaction(connection: Connection, own: int) -> None:
    with connection.writing():
        os.kill(own, signal.SIGKILL)
        connection.value(ASK, 4)


def test_a_head_takes_its_hold_again_when_the_database_is_back(server: PostgresServer) -> None:
    """A restart of the server, or the loss of the one connection, costs the hold only if another
    head has it by then: that one is named, and keeps it."""
    db = database(server.create("centre"))
    first, second = db.hold("the first"), db.hold("the second")
    first.keep()
    server.kill()
    with pytest.raises(Away):
        first.keep()
    server.start()
    first.keep()
    with pytest.raises(Held, match="the first"):
        second.keep()
    server.run("select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory'")
    take(second, lambda _: None)
    with pytest.raises(Away):
        first.keep()
    with pytest.raises(Held, match="the second"):
        first.keep()
    for hold in (first, second):
        hold.close()
