"""Processor time a card of the lines, of the floor beneath them, and of the chips, in one process.

*Line*: the real key replacement and inspection over a real ledger and a real token, driven by
virtual chips; the processor time of the whole process while they run, less that of the chips.
*Floor*: the provider calls and commits that the line made, again, in the same order and chunks,
through the same provider code into a copy of the ledger as it was before: the same operations
and the same rows, with nothing around them. Rounds alternate; each has cards of its own.
"""

from __future__ import annotations

import asyncio
import cProfile
import shutil
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from actors.hsm.pkcs11_provider import Pkcs11Provider
from actors.inventory import Inventory
from actors.qa.inspection import Inspection
from actors.qa.sample_reading import SampleReading
from actors.sorting import Sorting
from bench.chips import TURNS_OF_A_CARD, BenchError, Chip, ChipTime, sound_cards
from bench.intake import take_in
from bench.masters import home_with_keys, take_temporary_keys
from centre.config import Config
from centre.wiring import make_reading_line, make_replacement, now, token_config
from counterparts.factory import Delivery, make_delivery
from domain.card.profile import load_profile
from domain.card.segment import Segment
from domain.changes import Changes, Committed
from domain.lines import ChipLine
from domain.places import Line
from domain.provider import Answer, Request
from domain.turns import CentreTurn, StationTurn
from gateways.doors import serve
from gateways.floor import Floor
from ledger.chip_records import LedgerChipRecords
from ledger.commit import Ledger
from ledger.connection import connect, database, ledger_file
from ledger.queries import Queries
from station_agents.virtual.tray_file import Plastic

WINDOW = 64
"""Chips in work at the same time, at different turns: about as many turns make a chunk."""


@dataclass(frozen=True)
class Performed:
    requests: Sequence[Request]


@dataclass(frozen=True)
class Indexed:
    values: Sequence[str]


Operation = Performed | Indexed | Changes
"""What a line asked for: of the provider, or of the ledger."""


class Door:
    """`LedgerDoor` into a ledger of this process, which remembers what was committed."""

    def __init__(self, ledger: Ledger, line: str, record: list[Operation]) -> None:
        self._ledger, self._record = ledger, record
        self.epoch = ledger.open_epoch(line)

    async def commit(self, changes: Changes) -> Committed:
        self._record.append(changes)
        return self._ledger.commit(changes, self.epoch)

    async def reclaim(self) -> bool:
        return self._ledger.reclaim()


class Keys:
    """`KeyProvider` over a provider of this process, which remembers what a chip line asked."""

    def __init__(self, provider: Pkcs11Provider, record: list[Operation]) -> None:
        self._provider, self._record = provider, record

    async def perform(self, requests: Sequence[Request]) -> list[Answer]:
        self._record.append(Performed(requests))
        return self._provider.perform(requests)

    async def index(self, values: Sequence[str]) -> list[str]:
        self._record.append(Indexed(values))
        return self._provider.index(values)

    async def seal(self, batch_id: str, records: Sequence[tuple[str, bytes]]) -> list[bytes]:
        return self._provider.seal(batch_id, records)

    async def unseal(self, batch_id: str, records: Sequence[tuple[str, bytes]]) -> list[bytes]:
        return self._provider.unseal(batch_id, records)

    async def sign(self, digests: Sequence[bytes]) -> list[bytes]:
        return self._provider.sign(digests)


@dataclass(frozen=True)
class LineRound:
    """Seconds of one round of the lines. `chips` is part of `total`, both processor time."""

    cards: int
    total: float
    chips: float
    clock: float
    script: list[list[Segment]]


class Lines:
    """A centre whose lines, ledger and provider are in this process."""

    def __init__(self, config: Config) -> None:
        self.record: list[Operation] = []
        self.ledger = Ledger(config.ledger, now)
        self.queries = Queries(config.ledger)
        self.provider = _provider(config, self.queries)
        self._profile = load_profile(config.profile)
        self._keys = Keys(self.provider, self.record)
        self._lines: dict[str, ChipLine] = {}
        makers: dict[Line, Callable[..., ChipLine]] = {
            Line.KEY_REPLACEMENT: partial(make_replacement, config.profile, config.lease_minutes),
            Line.INSPECTION: partial(make_reading_line, config.profile, Inspection),
            Line.SAMPLING: partial(make_reading_line, config.profile, SampleReading),
        }
        for line, make in makers.items():
            door = Door(self.ledger, line, self.record)
            self._lines[line] = make(door, self.queries, self._keys, door.epoch)

    @asynccontextmanager
    async def doors(self) -> AsyncIterator[str]:
        """The real doors before these lines; their address."""
        inventory = Inventory(Door(self.ledger, Line.INVENTORY, self.record), self.queries)
        sorting = Sorting(Door(self.ledger, Line.SORTING, self.record), self.queries, "bench")
        floor = Floor(inventory, sorting, self._keys, self._lines, self.queries, self._profile)
        doors = await serve(floor, "127.0.0.1:0")
        try:
            yield doors.address
        finally:
            await doors.stop()

    async def take_in(self, delivery: Delivery, *, keys: bool = True) -> None:
        """Through the doors; with its temporary `keys`, unless the token has them."""
        if keys:
            take_temporary_keys(self.provider, delivery.key_block.read_bytes())
        async with self.doors() as door:
            await asyncio.to_thread(take_in, door, delivery)

    async def run(self, cards: Sequence[Plastic]) -> LineRound:
        """All `cards` from opening to their stack. `record` is what they needed."""
        spent = ChipTime()
        chips = [Chip(plastic, "station-1", spent) for plastic in cards]
        spent.seconds = 0.0
        self.record.clear()
        clock, started = time.perf_counter(), time.process_time()
        await self.feed(chips)
        total, clock = time.process_time() - started, time.perf_counter() - clock
        if any(chip.turns != TURNS_OF_A_CARD for chip in chips):
            raise BenchError(f"a card does not take {TURNS_OF_A_CARD} turns any more")
        return LineRound(len(cards), total, spent.seconds, clock, chips[0].seen)

    async def ask(self, stage: Line, turns: Sequence[StationTurn]) -> list[CentreTurn]:
        """One chunk of turns, as the gateway hands it on."""
        return await self._lines[stage].turns(turns)

    async def feed(self, chips: Sequence[Chip]) -> None:
        """Until every chip has its verdict."""
        hopper, at_work = deque(chips), list[Chip]()
        while hopper or at_work:
            # A few at a time, so that chips stand at different turns as they do on a floor.
            for _ in range(max(1, WINDOW // TURNS_OF_A_CARD)):
                if hopper and len(at_work) < WINDOW:
                    at_work.append(hopper.popleft())
            for stage, line in self._lines.items():
                asking = [chip for chip in at_work if chip.stage == stage]
                if not asking:
                    continue
                replies = await line.turns([chip.turn for chip in asking])
                for chip, reply in zip(asking, replies, strict=True):
                    chip.take(reply.content)
            at_work = [chip for chip in at_work if not chip.done]

    def close(self) -> None:
        self.provider.close()
        self.queries.close()
        self.ledger.close()


class Beneath:
    """The floor: a provider and a copy of a ledger, and nothing else."""

    def __init__(self, config: Config) -> None:
        self._queries = Queries(config.ledger)
        self.provider = _provider(config, self._queries)
        self._ledger = Ledger(config.ledger, now)
        self._epochs = {
            line: self._ledger.open_epoch(line) for line in (Line.KEY_REPLACEMENT, Line.INSPECTION)
        }

    def run(self, record: Sequence[Operation]) -> float:
        """Do again what was recorded; processor seconds. BenchError if less was done."""
        answers: list[Answer] = []
        repeated = False
        started = time.process_time()
        for operation in record:
            match operation:
                case Changes():
                    done = self._ledger.commit(operation, self._epochs[Line(operation.line)])
                    repeated |= done.repeated
                case Performed(requests):
                    answers += self.provider.perform(requests)
                case Indexed(values):
                    self.provider.index(values)
        spent = time.process_time() - started
        if repeated or any(answer.refused or answer.difference for answer in answers):
            raise BenchError("the floor did not do what the lines did")
        return spent

    def close(self) -> None:
        self.provider.close()
        self._queries.close()
        self._ledger.close()


def _provider(config: Config, queries: Queries) -> Pkcs11Provider:
    profile = load_profile(config.profile)
    return Pkcs11Provider(token_config(config), profile, LedgerChipRecords(config.ledger))


@dataclass(frozen=True)
class Measured:
    """Rounds in their order: of the lines, and of the floor (processor seconds each)."""

    lines: list[LineRound]
    floor: list[float]
    profile: cProfile.Profile


def measure(place: Path, rounds: int, cards: int) -> Measured:
    """`rounds` of `cards` each, after one that warms up and before one under the profiler."""
    config = home_with_keys(place / "home")
    pem = config.transport_public_key.read_bytes()
    # 30 more than needed: faults are planted in a few.
    delivery = make_delivery(5, (rounds + 2) * cards + 30, place / "delivery", pem)
    sound = sound_cards(delivery)
    portions = [sound[at : at + cards] for at in range(0, (rounds + 2) * cards, cards)]
    lines = Lines(config)
    asyncio.run(lines.take_in(delivery))
    beneath = Beneath(_copy(config))
    measured = Measured([], [], cProfile.Profile())
    try:
        before: list[Operation] = []
        for portion in portions[:-1]:
            _change_over(beneath.provider, lines.provider, before)
            measured.lines.append(asyncio.run(lines.run(portion)))
            _change_over(lines.provider, beneath.provider, before)
            measured.floor.append(beneath.run(lines.record))
            before = list(lines.record)
        _change_over(beneath.provider, lines.provider, before)
        measured.profile.runcall(asyncio.run, lines.run(portions[-1]))
    finally:
        lines.close()
        beneath.close()
    del measured.lines[0], measured.floor[0]
    return measured


def _change_over(was: Pkcs11Provider, will: Pkcs11Provider, before: Sequence[Operation]) -> None:
    """One session with the token at a time. The new one first does what the round before needed,
    so that both sides are measured with the keys of cities and batches at hand, as on a floor."""
    was.close()
    for operation in before:
        if isinstance(operation, Performed):
            will.perform(operation.requests)


def _copy(config: Config) -> Config:
    """The ledger as it is now, beside it."""
    connection = connect(config.ledger, write=True)
    connection.execute("pragma wal_checkpoint(truncate)").close()
    connection.close()
    file = ledger_file(config.ledger)
    assert file is not None, "this bench runs on SQLite"
    copy = file.with_name("floor.db")
    shutil.copyfile(file, copy)
    return replace(config, ledger=database(copy).url)
