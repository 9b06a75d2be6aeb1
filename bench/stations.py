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
class Job:
    """What to offer. `delivery`: directory of a delivery that the centre at `door` has signed
    for; `skip`: its first cards, used by a job before this one."""

    door: str
    delivery: str
    skip: int
    stations: int
    cards_per_second: float
    """Of each station."""
    warm_seconds: float
    """Before counting begins."""
    seconds: float
    """Counted."""
    grace_seconds: float
    """How long turns that are due but not answered at the end are still waited for."""

    @property
    def cards_each(self) -> int:
        return int(self.cards_per_second * (self.warm_seconds + self.seconds)) + 1


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
class _Load:
    """What all stations of a job share. Moments are those of the event loop."""

    job: Job
    hopper: deque[Plastic]
    begin: float = 0.0
    spent: ChipTime = field(default_factory=ChipTime)
    milliseconds: list[float] = field(default_factory=list)
    unanswered: int = 0
    answered: int = 0
    answered_in_time: int = 0

    @property
    def first(self) -> float:
        return self.begin + self.job.warm_seconds

    @property
    def last(self) -> float:
        return self.first + self.job.seconds

    def counts(self, moment: float) -> bool:
        return self.first <= moment < self.last


class _Station:
    def __init__(self, load: _Load, number: int) -> None:
        self._load, self._number = load, number
        job = load.job
        self._gap = 1 / job.cards_per_second / TURNS_OF_A_CARD
        self._sent = 0

    def _due(self, turn: int) -> float:
        """Stations begin one after another, evenly over the time of one card."""
        job = self._load.job
        phase = self._number / job.stations / job.cards_per_second
        return self._load.begin + phase + turn * self._gap

    async def run(self, stream: Any) -> None:
        load, loop = self._load, asyncio.get_running_loop()
        while self._due(self._sent) < load.last and load.hopper:
            chip = Chip(load.hopper.popleft(), f"station-{self._number}", load.spent)
            while not chip.done:
                due = self._due(self._sent)
                if due >= load.last:
                    return
                await asyncio.sleep(due - loop.time())
                await self._turn(chip, stream, due)
                self._sent += 1

    async def _turn(self, chip: Chip, stream: Any, due: float) -> None:
        load, loop = self._load, asyncio.get_running_loop()
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
        load.answered += 1
        load.answered_in_time += load.counts(now)
        if load.counts(due):
            load.milliseconds.append((now - due) * 1_000)
        chip.take(content)

    def left(self, moment: float) -> list[float]:
        """Of the turns that were due and have no answer: how long they have waited."""
        waited = []
        while (due := self._due(self._sent)) < self._load.last:
            if self._load.counts(due):
                waited.append((moment - due) * 1_000)
            self._sent += 1
        return waited


async def run(job: Job) -> Offered:
    """Offer the load of `job`. Raises BenchError if a sound card does not end as good."""
    cards = sound_cards(load_delivery(Path(job.delivery)))[job.skip :]
    if len(cards) < job.stations * job.cards_each:
        raise BenchError("the delivery has too few cards for this job")
    load = _Load(job, deque(cards))
    stations = [_Station(load, number) for number in range(job.stations)]
    channels = [grpc.aio.insecure_channel(job.door, options=_OPTIONS) for _ in stations]
    # grpc-stubs want the iterator that this way of writing does without.
    streams = [StationStub(channel).Work() for channel in channels]  # type: ignore[call-arg]
    await asyncio.wait_for(
        asyncio.gather(*(stream.wait_for_connection() for stream in streams)), CONNECT_SECONDS
    )
    load.begin = asyncio.get_running_loop().time() + 0.2
    started = time.process_time()
    tasks = [
        asyncio.create_task(station.run(stream))
        for station, stream in zip(stations, streams, strict=True)
    ]
    _, late = await asyncio.wait(
        tasks, timeout=0.2 + job.warm_seconds + job.seconds + job.grace_seconds
    )
    used = time.process_time() - started
    for task in late:
        task.cancel()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    faults = [e for e in ended if isinstance(e, Exception)]
    if faults:
        raise faults[0]
    _count_left(load, stations)
    for channel in channels:
        await channel.close(None)
    return _offered(load, used)


def _count_left(load: _Load, stations: Sequence[_Station]) -> None:
    moment = asyncio.get_running_loop().time()
    for station in stations:
        waited = station.left(moment)
        load.unanswered += len(waited)
        load.milliseconds += waited


def _offered(load: _Load, used: float) -> Offered:
    waited = sorted(load.milliseconds)
    return Offered(
        offered=load.job.stations * load.job.cards_per_second,
        carried=load.answered_in_time / TURNS_OF_A_CARD / load.job.seconds,
        turns=len(waited),
        unanswered=load.unanswered,
        p50=waited[len(waited) // 2],
        p99=waited[len(waited) * 99 // 100],
        most=waited[-1],
        generator_cpu=used - load.spent.seconds,
        chip_cpu=load.spent.seconds,
        cards=load.answered / TURNS_OF_A_CARD,
    )


def main() -> None:
    job = Job(**json.load(sys.stdin))
    json.dump(asdict(asyncio.run(run(job))), sys.stdout)


if __name__ == "__main__":
    main()
