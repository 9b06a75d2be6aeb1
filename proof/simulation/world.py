"""A whole centre with its surroundings, from a seed, for so many simulated hours."""

from __future__ import annotations

import asyncio
import logging
import random
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from random import Random
from typing import Any

import structlog

from actors.hsm.leases import LeaseTerms
from actors.hsm.pool import KeyPool
from actors.hsm.replacement import KeyReplacement
from actors.inventory import Inventory
from actors.lots import LotPlan
from actors.qa.inspection import Inspection
from actors.qa.sample_reading import SampleReading
from actors.sorting import Sorting
from domain.card.profile import load_profile
from domain.places import Line
from domain.provider import KeyState
from gateways.floor import Floor
from ledger.commit import Ledger
from ledger.queries import Queries
from ledger.verify import verify
from proof.simulation.actors import KeyMember, LedgerActor, LineActor, Nursery
from proof.simulation.clock import SimulatedLoop, WallClock
from proof.simulation.faults import QUIET, Faults, Rates
from proof.simulation.gateway import Gateway
from proof.simulation.home import PROFILE, Home
from proof.simulation.leaving import CardManagement, Outbox, Signer
from proof.simulation.mirror import Broken, Mirror
from proof.simulation.people import DeliveryOfDay, Floors, Table, load_delivery
from proof.simulation.plastic import Card, Feeder, Truth
from proof.simulation.promises import Promises
from proof.simulation.stations import Station
from proof.simulation.story import story
from proof.simulation.trace import Trace
from station_agents.virtual.tray_file import Plastic

STATIONS, READERS = 4, 8
FEWEST_CARDS, MOST_CARDS = 60, 120
"""In one delivery."""
CARDS_AN_HOUR = 100
LEASE = timedelta(seconds=90)
"""Shorter than in production, so that it runs out now and then."""
LONGEST_QUIET_HOURS = 4
SEEDS_OF_FACTORY = 1_000


@dataclass(frozen=True)
class Outcome:
    """What a simulation came to. `broken`: the promise that does not hold, with the story of the
    card concerned; empty if all hold."""

    seed: int
    hours: float
    cards: int
    shipped: int
    commits: int
    steps: int
    faults: int
    kinds: dict[str, int]
    digest: str
    seconds: float
    promise: int = -1
    """The number of the one that is broken; 0: a program failed; -1: none."""
    broken: str = ""
    story: str = ""

    def __str__(self) -> str:
        promise = self.broken or "all promises hold"
        return (
            f"seed {self.seed}: {self.hours:.1f} h, {self.cards} cards, {self.shipped} shipped,"
            f" {self.commits} commits, {self.faults} faults, {self.steps} steps checked,"
            f" {self.seconds:.1f} s, trace {self.digest[:16]}: {promise}"
        )


class World:
    """Everything of one simulation. Made within its loop."""

    def __init__(
        self, seed: int, hours: float, home: Home, loop: SimulatedLoop, rates: Rates
    ) -> None:
        self._seed, self._hours, self._home = seed, hours, home
        self.trace = Trace(loop.time)
        self.faults = Faults(Random(f"faults/{seed}"), self.trace, rates)
        self._random = Random(f"world/{seed}")
        self.clock = WallClock(loop)
        self.path = home.place / "ledger.db"
        self.provider = home.provider(self.path)
        self.profile = load_profile(PROFILE)
        self._set_up()

    def _set_up(self) -> None:
        Ledger(self.path, self.clock.text).close()  # who looks at it comes before who writes
        self.mirror = Mirror(self.path)
        self.promises = Promises(self.mirror, self.profile, self.trace, self.clock.text)
        self.ledger = LedgerActor(self.path, self.clock.text, self.faults, self.promises)
        self.members = [KeyMember(self.provider, self.faults) for _ in range(2)]
        self.lines = {name: self._line(name) for name in _LINES}
        stages = (Line.KEY_REPLACEMENT, Line.INSPECTION, Line.SAMPLING)
        self.gateway = Gateway({s: self.lines[s] for s in stages}, self.faults)
        keys = KeyPool({f"hsm-{n}": m for n, m in enumerate(self.members)})
        self._queries = [Queries(self.path) for _ in range(4)]
        doors, eyes, outbox, signer = self._queries
        floor = Floor(
            self.lines[Line.INVENTORY], self.lines[Line.SORTING], keys, {}, doors, self.profile,
            today=lambda: self.clock.now().date(),
        )  # fmt: skip
        feeders = [Feeder(f"station-{n}", READERS) for n in range(1, STATIONS + 1)]
        self.people = Floors(floor, eyes, feeders[1:], feeders[0], self.promises, self.faults)
        self.stations = [
            Station(f.name, f, (Line.SAMPLING,) if n == 0 else stages[:2], self.gateway,
                    self.faults, self.promises.told, self._wrong_carton)
            for n, f in enumerate(feeders)
        ]  # fmt: skip
        for station in self.stations[1:]:
            station.elsewhere = lambda card: self._random.choice(feeders[1:]).feed(card)
        self.management = CardManagement(self.promises)
        out = self._home.place / "out"
        out.mkdir()
        self._outbox = Outbox(
            outbox, keys, self.lines[Line.SORTING], out, self.management, self.faults
        )
        self._heads = self._home.place / "heads.jsonl"
        self._signer = Signer(signer, keys, self._record_heads, self._heads)
        self._feeders = feeders

    def _line(self, name: str) -> LineActor:
        make, stepping = _LINES[name]
        return LineActor(
            name, partial(make, self), self.ledger, self.path, self.members, self.faults,
            self.promises, stepping=stepping,
        )  # fmt: skip

    def random_bytes(self, count: int) -> bytes:
        return self._random.randbytes(count)

    async def _record_heads(self, heads: list[dict[str, Any]]) -> None:
        await self.ledger("record_heads", heads)

    def _wrong_carton(self, card: Card) -> str:
        others = sorted({*self.people.cartons, "B000000-C999"} - {card.plastic.carton_id})
        return self._random.choice(others)

    # The day.

    async def run(self) -> None:
        """The hours, then a quiet time in which all that is open comes to its end."""
        work = Nursery()
        for main in (Table(self.people).run(), self._outbox.run(), self._signer.run(),
                     self._disturb_all(work)):  # fmt: skip
            work.spawn(main)
        # Tried apart: a fault of the program in one of them must not pass in silence.
        deliveries = [work.spawn(self._delivery(n, at)) for n, at in enumerate(self._arrivals())]
        await self._pass(self._hours * 3600)
        self.faults.rates = QUIET
        for member in self.members:
            member.away = False
        last = -1
        for _ in range(LONGEST_QUIET_HOURS * 4):
            await self._pass(900)
            waiting = sum(f.waiting for f in self._feeders)
            if all(d.done() for d in deliveries) and not waiting and last == self.promises.commits:
                break
            last = self.promises.commits
        for done in deliveries:
            if done.done() and done.exception() is not None:
                raise RuntimeError("a delivery failed") from done.exception()
        self._at_the_end()
        await work.kill()

    async def _pass(self, seconds: float) -> None:
        """So much time, or less if a promise is broken."""
        for _ in range(int(seconds / 10)):
            await asyncio.sleep(10)
            if self.promises.found is not None:
                raise self.promises.found

    def _arrivals(self) -> list[float]:
        cards = max(FEWEST_CARDS, int(self._hours * CARDS_AN_HOUR))
        count = max(1, round(cards / ((FEWEST_CARDS + MOST_CARDS) / 2)))
        latest = max(0.0, self._hours * 3600 - 3600)
        return sorted(self._random.uniform(0, latest) for _ in range(count))

    async def _delivery(self, number: int, at: float) -> None:
        await asyncio.sleep(at)
        seed = self._seed % SEEDS_OF_FACTORY * SEEDS_OF_FACTORY + number
        count = self._random.randint(FEWEST_CARDS, MOST_CARDS)
        delivery, cards = load_delivery(
            seed, count, self._home.place / f"delivery-{number}",
            self._home.transport_public_key, self._card,
        )  # fmt: skip
        self.trace.note("factory", f"delivery {delivery.delivery_id}, {len(cards)} cards")
        # What takes two people at a centre.
        staged = self.provider.stage_temporary_keys(delivery.key_block.read_bytes())
        self.provider.set_state([key.label for key in staged], KeyState.ACTIVE)
        for card in cards:
            self.promises.cards[card.code] = card
            self.promises.tickets[card.ticket] = card
        await DeliveryOfDay(self.people, delivery, cards).run()

    def _card(self, ticket: str, plastic: Plastic, truth: Truth) -> Card:
        return Card(ticket, plastic, self.profile, truth, self.promises.key_written)

    # What disturbs it.

    async def _disturb_all(self, work: Nursery) -> None:
        rates = self.faults.rates
        for rate, disturb in (
            (rates.replacement, self._disturb_line),
            (rates.provider, self._disturb_provider),
            (rates.gateway, self.gateway.die),
            (rates.clock, self._jump),
        ):
            if rate:
                work.spawn(self._disturb(rate, disturb))

    async def _disturb(self, rate: float, disturb: Callable[[], Any]) -> None:
        while self.faults.rates is not QUIET:
            await asyncio.sleep(self.faults.pause(rate))
            if self.faults.rates is not QUIET:
                await disturb()

    async def _disturb_line(self) -> None:
        line = self.lines[self.faults.random.choice(sorted(self.lines))]
        await (line.kill() if self.faults.chance(0.5) else line.replace())

    async def _disturb_provider(self) -> None:
        out = self.members if self.faults.chance(0.2) else [self.faults.random.choice(self.members)]
        self.trace.fault("HSM session lost", "key provider", f"{len(out)} of {len(self.members)}")
        for member in out:
            member.away = True
        await asyncio.sleep(self.faults.random.uniform(1, 60))
        for member in out:
            member.away = False

    async def _jump(self) -> None:
        seconds = self.faults.random.choice((-1, 1)) * 10 ** self.faults.random.uniform(0, 4)
        self.trace.fault("clock jumped", "clock", f"{seconds:+.0f} s")
        self.clock.jump(seconds)

    # The end.

    def _at_the_end(self) -> None:
        self.promises.at_the_end()
        waits = self.mirror.rows("select id from outbox where acknowledged = 0 order by id")
        if waits:
            self.promises.broken(4, f"{waits[0]['id']} never left the outbox")
        report = verify(self.path, self._heads, self._home.head_public_key)
        if not report.ok:
            self.promises.broken(7, f"verification: {report.finding}")
        if self.promises.found is not None:
            raise self.promises.found

    async def close(self) -> None:
        for station in self.stations:
            await station.close()
        await self.gateway.close()
        for line in self.lines.values():
            await line.close()
        await self.ledger.close()
        rest = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        for queries in self._queries:
            queries.close()
        self.mirror.close()
        self.provider.close()


def _chip_line(
    line: type[Inspection] | type[SampleReading],
    world: World, ledger: Any, queries: Any, keys: Any, epoch: int,
) -> Any:  # fmt: skip
    prefix = f"{line.line}:{epoch}"
    return line(ledger, keys, queries, world.profile, prefix, world.random_bytes)


def _key_replacement(world: World, ledger: Any, queries: Any, keys: Any, epoch: int) -> Any:
    prefix = f"{Line.KEY_REPLACEMENT}:{epoch}"
    leases = LeaseTerms(world.clock.now, LEASE)
    return KeyReplacement(ledger, keys, queries, world.profile, prefix, world.random_bytes, leases)


def _inventory(world: World, ledger: Any, queries: Any, keys: Any, epoch: int) -> Any:
    return Inventory(ledger, queries)


def _sorting(world: World, ledger: Any, queries: Any, keys: Any, epoch: int) -> Any:
    lots = LotPlan(lambda _lot: world.random_bytes(32))
    return Sorting(ledger, queries, f"{Line.SORTING}:{epoch}", lots)


_LINES: dict[str, tuple[Callable[..., Any], bool]] = {
    Line.INVENTORY: (_inventory, False),
    Line.KEY_REPLACEMENT: (_key_replacement, True),
    Line.INSPECTION: (partial(_chip_line, Inspection), False),
    Line.SAMPLING: (partial(_chip_line, SampleReading), False),
    Line.SORTING: (_sorting, True),
}


@contextmanager
def _quiet_logs() -> Iterator[None]:
    """A simulation fails a thousand times a minute, and none of it is news."""
    before = structlog.get_config()
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL),
        cache_logger_on_first_use=False,
    )
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        structlog.configure(**before)
        logging.getLogger("asyncio").setLevel(logging.NOTSET)


def simulate(seed: int, hours: float, template: Home, rates: Rates | None = None) -> Outcome:
    """One simulation in a directory of its own beside `template`, whose token it copies."""
    place = template.place.parent / f"world-{seed}"
    shutil.rmtree(place, ignore_errors=True)
    started, state = time.perf_counter(), random.getstate()
    # The pool of key providers draws its pauses from the module's own source.
    random.seed(seed)
    loop = SimulatedLoop()
    broken: Broken | None = None
    try:
        with _quiet_logs():
            world, broken, told = loop.run_until_complete(
                _run(seed, hours, template.copy(place), loop, rates or Rates())
            )
    finally:
        loop.close()
        random.setstate(state)
        shutil.rmtree(place, ignore_errors=True)
    p = world.promises
    return Outcome(
        seed, hours, len(p.tickets), p.shipped, p.commits, p.steps, world.trace.faults.total(),
        dict(world.trace.faults), world.trace.digest, time.perf_counter() - started,
        broken.promise if broken else -1, str(broken or ""), told,
    )  # fmt: skip


async def _run(
    seed: int, hours: float, home: Home, loop: SimulatedLoop, rates: Rates
) -> tuple[World, Broken | None, str]:
    world = World(seed, hours, home, loop, rates)
    broken: Broken | None = None
    try:
        await world.run()
    except Broken as e:
        broken = e
    told = story(world.path, world.trace, broken.cards) if broken else ""
    await world.close()
    return world, broken, told
