"""The stations' door, simulated: the real gathering of turns before the lines, and a network that
loses, delays, doubles and reorders what passes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial

from domain.turns import CentreTurn, StationTurn
from gateways.floor import Limits
from gateways.gathering import Collector
from proof.simulation.actors import LineActor, Nursery
from proof.simulation.faults import Faults

LATEST = 3600.0
"""Seconds by which a turn or its answer may be late."""
GATHER_MILLISECONDS = 250.0
"""As long as this turns wait for others: fewer calls, so that a simulated day takes seconds."""

Take = Callable[[CentreTurn], None]


class Gateway:
    def __init__(self, lines: Mapping[str, LineActor], faults: Faults) -> None:
        self._lines, self._faults = lines, faults
        self._limits = Limits(gather_milliseconds=GATHER_MILLISECONDS)
        self._life = 0
        self._up = False
        self._work = Nursery()
        self._network = Nursery()
        self._open()

    def _open(self) -> None:
        self._life += 1
        self._collectors = {
            stage: Collector(stage, line, self._limits) for stage, line in self._lines.items()
        }
        for collector in self._collectors.values():
            self._work.spawn(collector.run())
        self._up = True

    async def die(self) -> None:
        """All that waits in it is gone, and no answer leaves it any more."""
        self._faults.trace.fault("gateway died", "gateway")
        self._up, self._life = False, self._life + 1
        await self._work.kill()
        await asyncio.sleep(self._faults.random.uniform(0.2, 5.0))
        self._open()

    def send(self, turn: StationTurn, take: Take, *cards: str) -> None:
        """A turn leaves a station; whatever comes back goes to `take`, perhaps late, twice, or
        never. It goes on when its station loses its power."""
        self._network.spawn(self._carry(turn, take, *cards))

    async def _carry(self, turn: StationTurn, take: Take, *cards: str) -> None:
        route = f"{turn.station_id} {turn.reader} turn {turn.number}"
        fate = self._faults.message(route, LATEST, *cards)
        await asyncio.sleep(fate.out)
        if not fate.lost:
            self._arrive(turn, take, fate.back, lost=fate.answer_lost)
        if fate.again is not None:
            await asyncio.sleep(fate.again)
            self._arrive(turn, take, fate.back, lost=False)

    def _arrive(self, turn: StationTurn, take: Take, back: float, *, lost: bool) -> None:
        if self._up:
            deliver = partial(self._leave, self._life, take, back, lost)
            self._collectors[turn.stage].offer(turn, deliver)

    def _leave(self, life: int, take: Take, back: float, lost: bool, reply: CentreTurn) -> None:
        if life == self._life and not lost:
            self._network.spawn(self._carry_back(take, back, reply))

    async def _carry_back(self, take: Take, seconds: float, reply: CentreTurn) -> None:
        await asyncio.sleep(seconds)
        take(reply)

    async def close(self) -> None:
        self._life += 1
        await self._work.kill()
        await self._network.kill()
