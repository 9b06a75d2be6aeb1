"""A PostgreSQL that is killed under a connection is away, and used again when it is back."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from domain.changes import Away
from ledger.connection import Connection
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
