"""A private PostgreSQL for this folder: its ledgers are written from several machines."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from proof.postgres import PostgresServer, running


@pytest.fixture(scope="session")
def server() -> Iterator[PostgresServer]:
    directory = Path(tempfile.mkdtemp(prefix="cc-", dir="/tmp"))  # short: it holds a unix socket
    try:
        with running(directory) as up:
            yield up
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def new_ledger(server: PostgresServer, numbers: Iterator[int]) -> Callable[[], str]:
    """Makes an empty database; its URL."""
    return lambda: server.create(f"ledger{next(numbers)}")


@pytest.fixture(scope="session")
def numbers() -> Iterator[int]:
    return count(1)
