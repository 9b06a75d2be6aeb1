"""Where the ledgers of a test live: in files, or in databases of a private PostgreSQL.

A test module that holds for both has `pytestmark = pytest.mark.usefixtures("each_database")`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import count
from pathlib import Path

from centre.wiring import now
from ledger.commit import Ledger
from proof.postgres import PostgresServer

DATABASES = ("sqlite", "postgresql")


def _file(folder: Path) -> str:
    return f"sqlite:{folder / 'ledger.db'}"


class Databases:
    """Databases of one server, each a copy of an empty ledger."""

    TEMPLATE = "empty"

    def __init__(self, server: PostgresServer) -> None:
        self._server, self._numbers, self._names = server, count(1), list[str]()
        Ledger(server.create(self.TEMPLATE), now).close()

    def new(self, _folder: Path | None = None) -> str:
        """The URL of an empty ledger of its own."""
        name = f"t{next(self._numbers)}"
        self._names.append(name)
        return self._server.create(name, self.TEMPLATE)

    @contextmanager
    def dropped(self) -> Iterator[None]:
        """What is made inside is dropped at the end."""
        before = len(self._names)
        try:
            yield
        finally:
            while len(self._names) > before:
                self._server.drop(self._names.pop())


_make: ContextVar[Callable[[Path], str]] = ContextVar("make", default=_file)


def new_ledger(folder: Path) -> str:
    """The URL of a ledger of its own, on the database that the test is run over; in `folder` if it
    is a file."""
    return _make.get()(folder)


@contextmanager
def within(databases: Databases) -> Iterator[None]:
    """Inside, `new_ledger` makes databases, which are dropped at the end."""
    token = _make.set(databases.new)
    try:
        with databases.dropped():
            yield
    finally:
        _make.reset(token)
