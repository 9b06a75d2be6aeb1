"""The replacement of keys, cut at every point, on the real line, provider and token with virtual
chips whose keys the test knows."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from domain.card.profile import KeySlot, Proof
from domain.changes import Away, EventType
from domain.places import Line
from domain.turns import CentreTurn, StationTurn, Verdict, Wait
from station_agents.virtual.social_memory import KeyWritten
from tests.lines.known_keys import KeyedChip, KnownFloor, Recording, known_floor
from tests.lines.small_floor import PowerCut, Station

PROFILES = ("ssc-3des", "ssc-sm4")
GOOD = Verdict("", "good", "OK")
REPLACED = Verdict(Line.INSPECTION, "", "OK")
EXTERNAL_AUTHENTICATE, WRITE_KEY = 0x82, 0xD4
LOST = ("line_before", "line_after", "provider_before", "provider_after", "ledger_before",
        "ledger_after")  # fmt: skip


@pytest.fixture(scope="module", params=PROFILES)
def known(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[KnownFloor]:
    with known_floor(tmp_path_factory.mktemp("known"), request.param) as floor:
        yield floor


async def replaced(known: KnownFloor, chip: KeyedChip, station: Station | None = None) -> Verdict:
    """Key replacement alone, until it has a verdict."""
    station = station or Station(known.floor)
    for _ in range(4):
        verdict = await station.present(chip, Line.KEY_REPLACEMENT)
        if verdict is not None:
            return verdict
    raise AssertionError("the chip is read again and again")


def script(known: KnownFloor) -> Recording:
    """One undisturbed replacement: what is sent, in how many turns."""

    async def run() -> None:
        assert await replaced(known, await known.chip(), station) == REPLACED

    station = Recording(known.floor)
    asyncio.run(run())
    return station


def positions(known: KnownFloor, instruction: int) -> list[int]:
    """At which APDUs (from 1) of an undisturbed replacement this instruction is sent."""
    return [n for n, apdu in enumerate(script(known).sent, 1) if apdu[1] == instruction]


def rejected_for(known: KnownFloor, chip: KeyedChip) -> str:
    """What the ledger says a rejected chip lacks."""
    (event,) = known.floor.queries.rows(
        "select e.data from event e join body b on b.body_id = e.body_id"
        " where b.identification_code = ? and e.type = ?",
        chip.code,
        EventType.BODY_REJECTED,
    )
    return str(json.loads(event["data"])["detail"])


def assert_finished(known: KnownFloor, chip: KeyedChip) -> None:
    assert chip.holds_formal_set()
    assert chip.written == {slot.key_id: 1 for slot in known.profile.keys}


def test_power_is_lost_at_every_apdu(known: KnownFloor) -> None:
    """In key replacement and inspection, before the chip executes it, and before its answer is
    there, the line killed as well every other time: the chip is opened again, finished and
    accepted, and each of its keys was written once."""

    async def run() -> None:
        whole = Station(known.floor)
        assert await whole.run(await known.chip()) == GOOD
        for cut_at in range(1, whole.apdus + 1):
            for after in (False, True):
                chip = await known.chip()
                with pytest.raises(PowerCut):
                    await Station(known.floor, cut_at, after).run(chip)
                if cut_at % 2:
                    known.floor.restart_lines()
                assert await Station(known.floor).run(chip) == GOOD, cut_at
                assert_finished(known, chip)

    asyncio.run(run())


class Failing:
    """A provider or a door of which one call is lost, before or after it did its part."""

    def __init__(self, real: Any, when: str) -> None:
        self._real, self._when = real, when

    def __getattr__(self, name: str) -> Any:
        async def call(*args: Any) -> Any:
            when, self._when = self._when, ""
            if when == "before":
                raise Away("lost")
            answer = await getattr(self._real, name)(*args)
            if when == "after":
                raise Away("lost")
            return answer

        return call


@dataclass
class Turns:
    """A line as a station has it."""

    turns: Any


@dataclass
class Losing(Station):
    """At turn `at` the line, the provider or the ledger is lost, before or after its part."""

    lost: str = ""
    at: int = 0
    seen: int = 0

    def line(self, stage: str) -> Any:
        return Turns(self.through)

    async def wait(self, told: Wait) -> None:
        """It is lost once: the next try succeeds."""

    async def through(self, turns: list[StationTurn]) -> list[CentreTurn]:
        line: Any = self.floor.replacement
        self.seen += 1
        part, _, when = self.lost.partition("_")
        if self.seen != self.at:
            return await self.floor.replacement.turns(turns)
        if part == "line":
            if when == "after":
                await line.turns(turns)
            self.floor.restart_lines()
            return await self.floor.replacement.turns(turns)
        name = "_provider" if part == "provider" else "_ledger"
        real = getattr(line, name)
        setattr(line, name, Failing(real, when))
        try:
            return await self.floor.replacement.turns(turns)
        finally:
            setattr(line, name, real)


@pytest.mark.parametrize("lost", LOST)
def test_a_part_is_lost_at_every_turn(known: KnownFloor, lost: str) -> None:
    """The line, the provider, the ledger, before and after each did its part: the chip is finished
    all the same, and each of its keys was written once."""

    async def run() -> None:
        for at in range(1, turns + 1):
            chip = await known.chip()
            station = Losing(known.floor, lost=lost, at=at)
            assert await replaced(known, chip, station) == REPLACED, at
            assert station.seen >= at
            assert_finished(known, chip)

    turns = script(known).turns
    asyncio.run(run())


def spoil(chip: KeyedChip, slot: KeySlot) -> None:
    """The cell of one key does not hold what is written: its version does."""
    persist = chip._persist

    def persisted(change: Any) -> None:
        persist(change)
        if isinstance(change, KeyWritten) and change.key_id == slot.key_id:
            object.__setattr__(change, "value", bytes(b ^ 0x55 for b in change.value))

    chip.card._persist = persisted


@pytest.mark.parametrize("interrupted", [False, True])
def test_every_key_is_proven(known: KnownFloor, interrupted: bool) -> None:
    """A key that the chip took and does not hold: its version is formal and its WRITE KEY answered
    9000. The card is rejected, naming the key; also if the session broke off when all keys were
    written and none was proven. The chip was asked once by EXTERNAL AUTHENTICATE."""

    async def run(slot: KeySlot) -> None:
        chip = await known.chip()
        spoil(chip, slot)
        if interrupted:
            with pytest.raises(PowerCut):
                await replaced(known, chip, Station(known.floor, all_written, after=True))
            assert len(chip.written) == len(known.profile.keys)
        station = Recording(known.floor)
        verdict = await replaced(known, chip, station)
        assert verdict == Verdict("", "rejected", "KEY_NOT_PROVEN"), slot.usage
        assert rejected_for(known, chip) == slot.usage
        asked = Counter(apdu[3] for apdu in station.sent if apdu[1] == EXTERNAL_AUTHENTICATE)
        assert asked[slot.key_id] <= 1 + (slot.usage == known.profile.loading_usage)

    all_written = positions(known, WRITE_KEY)[-1]
    for slot in known.profile.keys:
        asyncio.run(run(slot))


def test_a_key_with_few_tries_left_is_not_asked_for(known: KnownFloor) -> None:
    """A key that only EXTERNAL AUTHENTICATE proves, and whose counter is low when all keys are
    written: it is not tried, and the card is rejected, naming it."""

    async def run(slot: KeySlot) -> None:
        chip, station = await known.chip(), Recording(known.floor)
        with pytest.raises(PowerCut):
            await replaced(known, chip, Station(known.floor, all_written, after=True))
        chip.keys[slot.key_id].tries_left = known.profile.low_counter
        assert await replaced(known, chip, station) == Verdict("", "rejected", "KEY_NOT_PROVEN")
        assert rejected_for(known, chip) == slot.usage
        assert not [apdu for apdu in station.sent if apdu[1] == EXTERNAL_AUTHENTICATE]

    all_written = positions(known, WRITE_KEY)[-1]
    for slot in known.profile.keys:
        if slot.proof is Proof.EXTERNAL:
            asyncio.run(run(slot))


def test_a_version_that_the_province_does_not_have_is_mixed(known: KnownFloor) -> None:
    """A chip of ours whose formal keys bear another version than the province's: alone or beside
    right ones it is no set that this centre writes."""

    async def run(some: bool) -> None:
        chip = await known.chip()
        with pytest.raises(PowerCut):
            await replaced(known, chip, Station(known.floor, cut_at, after=True))
        formal = [k for k in chip.keys.values() if k.version == 1]
        assert len(formal) >= 2
        for key in formal[:1] if some else formal:
            key.version = 7
        assert await replaced(known, chip) == Verdict("", "rejected", "KEYS_MIXED")

    cut_at = positions(known, WRITE_KEY)[2]
    asyncio.run(run(True))
    asyncio.run(run(False))
