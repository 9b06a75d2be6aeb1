"""Simulated time: an event loop that never waits, and the clock on the wall of the ledger."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from datetime import UTC, datetime, timedelta
from typing import Any

MORNING = datetime(2026, 3, 2, 0, 30, tzinfo=UTC)
"""When a simulation begins: a Monday, half past eight in Hunan."""


class _NoWaiting(selectors.BaseSelector):
    """Nothing ever happens on a file: to wait is to let the simulated time pass."""

    def __init__(self, passed: Callable[[float], None]) -> None:
        self._passed = passed
        self._files: dict[Any, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        self._files[fileobj] = selectors.SelectorKey(fileobj, 0, events, data)
        return self._files[fileobj]

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._files.pop(fileobj)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._files

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("the simulation stands still: everybody waits for somebody else")
        self._passed(timeout)
        return []


class SimulatedLoop(asyncio.SelectorEventLoop):
    """An event loop whose time jumps to the next thing that is due. What is ready runs in the
    order in which it became so, so the same program with the same random numbers runs the same
    way. What would go to a thread is done at once."""

    def __init__(self) -> None:
        self._simulated = 0.0
        super().__init__(_NoWaiting(self._pass))

    def _pass(self, seconds: float) -> None:
        self._simulated += max(0.0, seconds)

    def time(self) -> float:
        return self._simulated

    def run_in_executor(  # type: ignore[override]  # a future of this loop is all that is awaited
        self, executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        done = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as e:  # noqa: BLE001  # it is raised where it is awaited
            done.set_exception(e)
        return done


class WallClock:
    """What the ledger is told the time is. `jump` sets it forward or back, as a bad time server
    does; the simulated time goes on as it was."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self._loop = loop
        self._off = timedelta()

    def jump(self, seconds: float) -> None:
        self._off += timedelta(seconds=seconds)

    def now(self) -> datetime:
        return MORNING + timedelta(seconds=self._loop.time()) + self._off

    def text(self) -> str:
        """ISO 8601 in UTC with milliseconds, as the ledger wants it."""
        return self.now().isoformat(timespec="milliseconds")
