"""What every test may use. Whatever only one folder needs lives in that folder."""

from __future__ import annotations

import os
import random
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from proof.postgres import PostgresServer, running
from tests.ledgers import DATABASES, Databases, within

# On a loaded machine an example that waits for the processor is no fault of the code. Where changes
# are judged (CI=true) examples are the same each time; elsewhere every run looks for new ones.
settings.register_profile("centre", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("centre")


@pytest.fixture
def short_directory() -> Iterator[Path]:
    """A directory of a few characters, removed afterwards.

    The path of a unix socket holds 107 bytes; those of `tmp_path` are often longer already.
    """
    path = Path(tempfile.mkdtemp(prefix="cc-", dir="/tmp"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _memory_directory() -> Path:
    memory = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix="cc-", dir=memory if memory.is_dir() else "/tmp"))


@pytest.fixture
def memory_directory() -> Iterator[Path]:
    """A short directory in memory where there is some: making and dropping databases, which waits
    for the disk at each file, takes seconds elsewhere."""
    path = _memory_directory()
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One private server for all tests; whoever needs it fails where PostgreSQL is missing."""
    path = _memory_directory()
    try:
        with running(path) as server:
            yield server
    finally:
        shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def databases(postgres: PostgresServer) -> Databases:
    return Databases(postgres)


@pytest.fixture(scope="module", params=DATABASES)
def each_database(request: pytest.FixtureRequest) -> Iterator[None]:
    """The tests of a module are run over each database."""
    if request.param == "sqlite":
        yield
        return
    with within(request.getfixturevalue("databases")):
        yield


@pytest.fixture(autouse=True)
def _databases_of_one_test(request: pytest.FixtureRequest) -> Iterator[None]:
    """Those that a test made go when it ends; those of its module stay until that does."""
    if "each_database" not in request.fixturenames:
        yield
        return
    with request.getfixturevalue("databases").dropped():
        yield


@pytest.fixture
def free_port() -> Callable[[], int]:
    """A function that gives, at each call, another TCP port on which nobody listens.

    Ports lie below the range that the kernel takes for outgoing connections (32768 upwards), so
    that none of those occupies one between this call and the moment when a test listens on it.
    """
    given: set[int] = set()

    def choose() -> int:
        for _ in range(1_000):
            port = random.randrange(20_000, 32_000)
            if port not in given and _is_free(port):
                given.add(port)
                return port
        raise RuntimeError("1,000 ports tried between 20000 and 31999, and none is free")

    return choose


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
