"""Micro-batching: turns of all stations that arrive within a few milliseconds go to their line
in one call, and each is answered by itself.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from domain.codes import Code
from domain.lines import ChipLine
from domain.turns import CentreTurn, Content, StationTurn, Wait
from gateways.floor import Limits
from gateways.metrics import StageMeter

log = structlog.get_logger()

RETRY_MILLISECONDS = 300

Deliver = Callable[[CentreTurn], None]
"""Takes the answer to one turn; returns at once. If it raises it has not taken the answer."""


def answer(turn: StationTurn, content: Content) -> CentreTurn:
    return CentreTurn(turn.presentation, turn.number, turn.stage, content)


@dataclass(frozen=True)
class _Waiting:
    turn: StationTurn
    deliver: Deliver
    since: float


class Collector:
    """Gathers the turns of one stage. One call to the line is in flight at a time; every turn
    that was offered is delivered exactly one answer, whatever the line does."""

    def __init__(self, stage: str, line: ChipLine, limits: Limits) -> None:
        self._stage = stage
        self._line = line
        self._limits = limits
        self._queue: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()
        self._enough = asyncio.Event()
        self._meter = StageMeter(stage, lambda: self.waiting)

    @property
    def waiting(self) -> int:
        """Turns in the queue, those of the call in flight not counted."""
        return len(self._queue)

    def offer(self, turn: StationTurn, deliver: Deliver) -> None:
        """Queue a turn. If the queue is full it is answered Wait(BUSY) at once."""
        waiting = _Waiting(turn, deliver, asyncio.get_running_loop().time())
        if len(self._queue) >= self._limits.turns_in_queue:
            self._hand(waiting, answer(turn, Wait(RETRY_MILLISECONDS, Code.BUSY)))
            return
        self._queue.append(waiting)
        self._arrived.set()
        if len(self._queue) >= self._limits.turns_per_call:
            self._enough.set()

    async def run(self) -> None:
        """Serve the queue until cancelled; what is left in it then is answered Wait."""
        called: list[_Waiting] = []
        try:
            while True:
                await self._gather()
                called = self._next_call()
                await self._call(called)
                called = []
        finally:
            for waiting in (*called, *self._queue):
                self._unavailable(waiting)
            self._queue.clear()

    async def _gather(self) -> None:
        """Until the oldest turn has waited long enough, or a call is full."""
        if not self._queue:
            self._arrived.clear()
            await self._arrived.wait()
        if len(self._queue) >= self._limits.turns_per_call:
            return
        self._enough.clear()
        loop = asyncio.get_running_loop()
        left = self._queue[0].since + self._limits.gather_milliseconds / 1_000 - loop.time()
        if left <= 0:
            return
        try:
            async with asyncio.timeout(left):
                await self._enough.wait()
        except TimeoutError:
            return

    def _next_call(self) -> list[_Waiting]:
        """The oldest turns, at most one of a presentation; a second one keeps its place."""
        chosen: dict[str, _Waiting] = {}
        later: list[_Waiting] = []
        while self._queue and len(chosen) < self._limits.turns_per_call:
            waiting = self._queue.popleft()
            if waiting.turn.presentation in chosen:
                later.append(waiting)
            else:
                chosen[waiting.turn.presentation] = waiting
        self._queue.extendleft(reversed(later))
        return list(chosen.values())

    async def _call(self, called: list[_Waiting]) -> None:
        try:
            replies = await self._line.turns([w.turn for w in called])
            if len(replies) != len(called):
                raise RuntimeError("a line answers each turn")
        except Exception as e:  # noqa: BLE001  # stations wait and ask again, whatever it was
            log.warning(
                "station.line_away",
                stage=self._stage,
                stations=sorted({w.turn.station_id for w in called}),
                turns=len(called),
                error=type(e).__name__,
            )
            for waiting in called:
                self._unavailable(waiting)
            return
        for waiting, reply in zip(called, replies, strict=True):
            self._deliver(waiting, reply)

    def _deliver(self, waiting: _Waiting, reply: CentreTurn) -> None:
        try:
            self._hand(waiting, reply)
        except Exception as e:  # noqa: BLE001  # an answer that has no form must not end the stage
            log.error(
                "station.bad_answer",
                stage=self._stage,
                station=waiting.turn.station_id,
                error=type(e).__name__,
            )
            self._unavailable(waiting)

    def _unavailable(self, waiting: _Waiting) -> None:
        self._hand(waiting, answer(waiting.turn, Wait(RETRY_MILLISECONDS, Code.UNAVAILABLE)))

    def _hand(self, waiting: _Waiting, reply: CentreTurn) -> None:
        waiting.deliver(reply)
        seconds = asyncio.get_running_loop().time() - waiting.since
        self._meter.answered(reply.content, seconds)
