"""The actor around a line, and a line as others reach it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import structlog

from actors import metrics
from actors.hsm.pool import KeyPool
from actors.shell import PAUSES, call, fault_of, packed, this_process, unpacked
from actors.shell_ledger import LineDoor, Write, writing
from actors.shell_provider import health_of_keys, key_pool
from domain.changes import Away, Refused
from domain.lines import LedgerDoor
from ledger.connection import LedgerUnusable
from ledger.queries import Queries

log = structlog.get_logger()


class MakeLine(Protocol):
    """Builds a line from its door, its eyes, its keys and its epoch."""

    def __call__(
        self, ledger: LedgerDoor, queries: Queries, keys: KeyPool, epoch: int, /
    ) -> Any: ...


class LineShell:
    """The actor around one line. `stepping`: the line has a `step` to be called again and again
    (at once while it says that there is more, else after a pause).

    An instance whose epoch is stale moves nothing any more: its commits are refused, and it
    answers Away. If it is this one that Ray means, and not one that was cut off, it is asked for
    its health, and takes the line over again under a new epoch.
    """

    STEP_SECONDS = 0.5

    def __init__(
        self,
        name: str,
        ledger: str,
        make: MakeLine,
        now: Callable[[], str],
        stepping: bool,
        providers: Sequence[str],
        prepare: Callable[[], None],
    ) -> None:
        """`ledger`: its URL."""
        self._name, self._ledger, self._make, self._now = name, ledger, make, now
        self._prepare, self._stepping, self._providers = prepare, stepping, providers
        self._keys: KeyPool | None = None
        self._write: Write | None = None
        self._line: Any = None
        self._door: LineDoor | None = None
        self._task: asyncio.Task[None] | None = None
        self._note = "not started"

    async def call(self, method: str, args: bytes) -> bytes:
        """Call a method of the line. Away until it has loaded."""
        line = self._loaded()
        with metrics.call_seconds(self._name, method).time():
            return packed(await getattr(line, method)(*unpacked(args)))

    async def health(self) -> dict[str, Any]:
        """Also starts the line: the first call after a restart does."""
        if self._retired:
            self._line = self._door = None
        self._start()
        if self._line is None or self._keys is None:
            return {**this_process(), "state": "loading", "note": self._note}
        return {**this_process(), **health_of_keys(self._keys, self._note)}

    @property
    def _retired(self) -> bool:
        return self._door is not None and self._door.retired

    def _start(self) -> None:
        if self._task is not None and not self._task.done():
            return
        if self._line is None or self._stepping:
            self._note = fault_of(self._task, self._name) or self._note
            self._task = asyncio.ensure_future(self._run())

    def _loaded(self) -> Any:
        if self._retired:
            raise Away(f"{self._name}: another instance took over")
        self._start()
        if self._line is None:
            raise Away(f"{self._name} is loading: {self._note}")
        return self._line

    async def _run(self) -> None:
        self._prepare()
        attempt = 0
        while self._line is None:
            try:
                await self._load()
            except (Away, OSError, LedgerUnusable) as e:
                self._note = f"waits: {e}"
                log.warning("line.loading", line=self._name, reason=str(e))
                await asyncio.sleep(PAUSES[min(attempt, len(PAUSES) - 1)])
                attempt += 1
        line = self._line
        while self._stepping and line is self._line and not self._retired:
            if not await self._step(line):
                await asyncio.sleep(self.STEP_SECONDS)

    async def _load(self) -> None:
        if self._write is None:
            self._write = writing(self._ledger, self._now)
        if self._keys is None:
            self._keys = key_pool(self._providers)
        epoch = await self._write("open_epoch", self._name)
        self._door = LineDoor(self._write, self._name, epoch)
        self._line = self._make(self._door, Queries(self._ledger), self._keys, epoch)
        self._note = f"epoch {epoch}"
        log.info("line.ready", line=self._name, epoch=epoch)

    async def _step(self, line: Any) -> bool:
        try:
            with metrics.call_seconds(self._name, "step").time():
                return bool(await line.step())
        except (Away, Refused) as e:
            log.warning("line.step", line=self._name, reason=str(e))
            return False


class RayLine:
    """A line as others reach it: any method of its Protocol, through `LineShell.call`."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def __getattr__(self, method: str) -> Any:
        return partial(call, self._actor, method)
