"""How commits reach the ledger: on SQLite through one actor that commits for all, on PostgreSQL
through a connection of each process that writes. Who commits does not see which."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Protocol

import structlog

from actors.shell import CALL_SECONDS, PAUSES, call, handle, packed, this_process, unpacked
from domain.changes import Away, Changes, Committed, Fault, Refused
from domain.codes import Code
from ledger.commit import Ledger
from ledger.connection import LedgerUnusable, ledger_file

log = structlog.get_logger()

LEDGER = "ledger"
"""The name of the committing actor of an SQLite ledger."""
COMMIT_TRIES = 6


class Write(Protocol):
    """Calls a method of a `Ledger` wherever it stands. Raises what it raises; Away while it can't
    be reached or gives no answer in time: then it may have taken effect."""

    def __call__(self, method: str, *args: Any) -> Awaitable[Any]: ...


def writing(url: str, now: Callable[[], str]) -> Write:
    """How this process writes to the ledger `url`. Raises Away while its actor is missing."""
    if ledger_file(url) is not None:
        return partial(call, handle(LEDGER))
    return OwnConnection(url, now)


class OwnConnection:
    """A writing connection of this process, in a thread of its own: one commit at a time, while
    the process goes on answering."""

    def __init__(self, url: str, now: Callable[[], str]) -> None:
        self._make = partial(Ledger, url, now)
        self._ledger: Ledger | None = None
        self._thread = ThreadPoolExecutor(1, "ledger")

    async def __call__(self, method: str, *args: Any) -> Any:
        try:
            async with asyncio.timeout(CALL_SECONDS):
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(self._thread, self._call, method, args)
        except TimeoutError:
            # The thread is still at it: what is asked next waits behind it.
            raise Away("no answer in time") from None
        except (Away, Refused, LedgerUnusable):
            raise
        except Exception as e:  # noqa: BLE001 - whatever it is: as of an actor, its type only
            log.error("ledger.fault", error=type(e).__name__)
            raise Fault(f"a fault of the ledger: {type(e).__name__}") from None

    def _call(self, method: str, args: tuple[Any, ...]) -> Any:
        if self._ledger is None:
            self._ledger = self._make()
        return getattr(self._ledger, method)(*args)


class LedgerShell:
    """The one committing process of an SQLite ledger: its lock is unfair among processes."""

    def __init__(self, url: str, now: Callable[[], str], prepare: Callable[[], None]) -> None:
        self._url, self._now, self._prepare = url, now, prepare
        self._ledger: Ledger | None = None

    def _open(self) -> Ledger:
        if self._ledger is None:
            self._prepare()
            self._ledger = Ledger(self._url, self._now)
        return self._ledger

    def call(self, method: str, args: bytes) -> bytes:
        """Call a method of the ledger."""
        return packed(getattr(self._open(), method)(*unpacked(args)))

    def health(self) -> dict[str, Any]:
        self._open()
        return {**this_process(), "state": "ready"}


class LineDoor:
    """`LedgerDoor` of one instance of a line. A commit whose answer was lost is asked again under
    its command id; a stale epoch retires the instance that holds this door."""

    def __init__(self, write: Write, line: str, epoch: int) -> None:
        self._write, self._line, self._epoch = write, line, epoch
        self.retired = False

    async def commit(self, changes: Changes) -> Committed:
        for attempt in range(COMMIT_TRIES):
            try:
                committed: Committed = await self._write("commit", changes, self._epoch)
                return committed
            except Refused as e:
                self.retired = self.retired or e.code == Code.EPOCH_STALE
                raise
            except Away as e:
                log.warning(
                    "commit.away",
                    line=self._line,
                    command_id=changes.command_id,
                    reason=str(e),
                    attempt=attempt,
                )
                await asyncio.sleep(PAUSES[min(attempt, len(PAUSES) - 1)])
        raise Away("the ledger does not answer")

    async def reclaim(self) -> bool:
        reclaimed: bool = await self._write("reclaim")
        return reclaimed
