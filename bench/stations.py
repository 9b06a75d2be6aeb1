"""Many stations at one centre: seconds a turn, counted from when the turn was due.

    python -m bench.stations        (a job as JSON on standard input, the result on standard output)

Each station has one reader and a stream of its own, speaks the real contract, and has a timetable:
its k-th turn is due at a fixed moment, whatever the centre does. A turn that is sent late because
the one before it was answered late has waited all the same, and a turn that was never answered
counts with what it had waited at the end. The chips are virtual, in this process; a real chip's
time is the gap between two turns of the timetable.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import grpc

from bench.chips import TURNS_OF_A_CARD, BenchError, Chip, ChipTime, sound_cards
from counterparts.factory import load_delivery
from domain.turns import Wait
from gateways.turns_wire import centre_turn_from_wire, station_turn_to_wire
from station_agents.virtual.tray_file import Plastic
from stubs import station_pb2 as pb
from stubs.station_pb2_grpc import StationStub

CONNECT_SECONDS = 60.0
# One connection a station, as agents on machines of their own have.
_OPTIONS = (("grpc.use_local_subchannel_pool", 1),)


@dataclass(frozen=True)
class Load:
    """What is offered."""

    stations: int
    cards_per_second: float
    """Of each station."""
    warm_seconds: float
    """Before counting begins; longer than a card takes its station."""
    seconds: float
    """Counted. As long again turns that are due and not answered are waited for."""

    @property
    def cards(self) -> int:
        """That all stations together can need."""
        each = int(self.cards_per_second * (self.warm_seconds + self.seconds)) + 1
        return self.stations * each


@dataclass(frozen=True)
class Job:
    """`delivery`: directory of a delivery that the centre at `door` has signed for; `skip`: its
    first sound cards, used by a job before this one."""

    door: str
    delivery: str
    skip: int
    load: Load

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Job:
        return cls(**{**row, "load": Load(**row["load"])})


@dataclass(frozen=True)
class Offered:
    """What came of it. Rates in cards a second over the counted time (a card is as many turns as
    it takes), times in milliseconds, processor time in seconds over the whole job."""

    offered: float
    carried: float
    turns: int
    unanswered: int
    p50: float
    p99: float
    most: float
    generator_cpu: float
    chip_cpu: float
    cards: float


@dataclass
class _Run:
    """What all stations share. Moments are those of the event loop."""

    offered: Load
    hopper: deque[Plastic]
    begin: float = 0.0
    spent: ChipTime = field(default_factory=ChipTime)
    milliseconds: list[float] = field(default_factory=list)
    unanswered: int = 0
    answered: int = 0
    answered_in_time: int = 0

    @property
    def first(self) -> float:
        return self.begin + self.offered.warm_seconds

    @property
    def last(self) -> float:
        return self.first + self.offered.seconds

    def counts(self, moment: float) -> bool:
        return self.first <= moment < self.last


class _Station:
    def __init__(self, run: _Run, number: int) -> None:
        self._run, self._number = run, number
        self._gap = 1 / run.offered.cards_per_second / TURNS_OF_A_CARD
        self._sent = 0

    def _due(self, turn: int) -> float:
        """Stations begin one after another, evenly over the time of one card."""
        offered = self._run.offered
        phase = self._number / offered.stations / offered.cards_per_second
        return self._run.begin + phase + turn * self._gap

    async def work(self, stream: Any) -> None:
        run, loop = self._run, asyncio.get_running_loop()
        while self._due(self._sent) < run.last and run.hopper:
            chip = Chip(run.hopper.popleft(), f"station-{self._number}", run.spent)
            while not chip.done:
                due = self._due(self._sent)
                if due >= run.last:
                    return
                await asyncio.sleep(due - loop.time())
                await self._turn(chip, stream, due)
                self._sent += 1

    async def _turn(self, chip: Chip, stream: Any, due: float) -> None:
        run, loop = self._run, asyncio.get_running_loop()
        wire = pb.StationTurns(turns=[station_turn_to_wire(chip.turn)])
        while True:
            await stream.write(wire)
            message = await stream.read()
            if not isinstance(message, pb.CentreTurns):
                raise BenchError("the centre ended a stream")
            content = centre_turn_from_wire(message.turns[0]).content
            if not isinstance(content, Wait):
                break
            await asyncio.sleep(content.milliseconds / 1_000)
        now = loop.time()
        run.answered += 1
        run.answered_in_time += run.counts(now)
        if run.counts(due):
            run.milliseconds.append((now - due) * 1_000)
        chip.take(content)

    def left(self, moment: float) -> list[float]:
        """Of the turns that were due and have no answer: how long they have waited."""
        waited = []
        while (due := self._due(self._sent)) < self._run.last:
            if self._run.counts(due):
                waited.append((moment - due) * 1_000)
            self._sent += 1
        return waited


async def offer(job: Job) -> Offered:
    """Offer the load of `job`. Raises BenchError if a sound card does not end as good."""
    cards = sound_cards(load_delivery(Path(job.delivery)))[job.skip :]
    if len(cards) < job.load.cards:
        raise BenchError("the delivery has too few cards for this job")
    run = _Run(job.load, deque(cards))
    stations = [_Station(run, number) for number in range(job.load.stations)]
    channels = [grpc.aio.insecure_channel(job.door, options=_OPTIONS) for _ in stations]
    # type: ignore, since grpc-stubs want the iterator that this way of writing does without.
    streams = [StationStub(channel).Work() for channel in channels]  # type: ignore[call-arg]
    await asyncio.wait_for(
        asyncio.gather(*(stream.wait_for_connection() for stream in streams)), CONNECT_SECONDS
    )
    loop = asyncio.get_running_loop()
    run.begin = loop.time() + 0.2
    started = time.process_time()
    tasks = [
        asyncio.create_task(station.work(stream))
        for station, stream in zip(stations, streams, strict=True)
    ]
    grace = job.load.seconds
    _, late = await asyncio.wait(tasks, timeout=run.last - loop.time() + grace)
    used = time.process_time() - started
    for task in late:
        task.cancel()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    faults = [e for e in ended if isinstance(e, Exception)]
    if faults:
        raise faults[0]
    _count_left(run, stations)
    for channel in channels:
        await channel.close(None)
    return _offered(run, used)


def _count_left(run: _Run, stations: Sequence[_Station]) -> None:
    moment = asyncio.get_running_loop().time()
    for station in stations:
        waited = station.left(moment)
        run.unanswered += len(waited)
        run.milliseconds += waited


def _offered(run: _Run, used: float) -> Offered:
    waited = sorted(run.milliseconds)
    return Offered(
        offered=run.offered.stations * run.offered.cards_per_second,
        carried=run.answered_in_time / TURNS_OF_A_CARD / run.offered.seconds,
        turns=len(waited),
        unanswered=run.unanswered,
        p50=waited[len(waited) // 2],
        p99=waited[len(waited) * 99 // 100],
        most=waited[-1],
        generator_cpu=used - run.spent.seconds,
        chip_cpu=run.spent.seconds,
        cards=run.answered / TURNS_OF_A_CARD,
    )


def main() -> None:
    job = Job.from_row(json.load(sys.stdin))
    json.dump(asdict(asyncio.run(offer(job))), sys.stdout)


if __name__ == "__main__":
    main()
