"""Whatever happens on the way between centre and chip, a chip that is called good is good."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.card.segment import Answers, Segment
from domain.turns import CentreTurn, StationTurn, Verdict
from tests.lines.known_keys import KeyedChip, KnownFloor, known_floor
from tests.lines.small_floor import Chip, PowerCut, Station

GOOD = Verdict("", "good", "OK")
LONGEST = 60
"""APDUs of one card through both stages, about."""


@pytest.fixture(scope="module", params=("ssc-3des", "ssc-sm4"))
def known(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[KnownFloor]:
    with known_floor(tmp_path_factory.mktemp("known"), request.param) as floor:
        yield floor


@dataclass(frozen=True)
class Damage:
    """One byte of the APDU that is sent (`on_the_way`) or of its answer, status word included, is
    another one."""

    on_the_way: bool
    byte: int
    change: int

    def of(self, data: bytes) -> bytes:
        at = self.byte % len(data) if data else 0
        return data[:at] + bytes((data[at] ^ self.change,)) + data[at + 1 :] if data else data


@dataclass
class Twice:
    """A line to which some turns are sent twice: the answer must be the same."""

    real: Any
    repeats: frozenset[int]
    seen: int = 0

    async def turns(self, turns: list[StationTurn]) -> list[CentreTurn]:
        self.seen += 1
        replies: list[CentreTurn] = await self.real.turns(turns)
        # What is not answered by a wait or a restart is remembered.
        if self.seen in self.repeats and isinstance(replies[0].content, Segment | Verdict):
            assert await self.real.turns(turns) == replies
        return replies


@dataclass
class Rough(Station):
    """A station on a bad day: see `Damage`, `Twice` and `Station`."""

    damages: dict[int, Damage] = field(default_factory=dict)
    repeats: frozenset[int] = frozenset()

    def line(self, stage: str) -> Any:
        return Twice(super().line(stage), self.repeats)

    def execute(self, chip: Chip, segment: Segment) -> Answers:
        process = chip.card.process

        def damaged(apdu: bytes) -> bytes:
            damage = self.damages.get(self.apdus)
            if damage is None:
                return process(apdu)
            if damage.on_the_way:
                return process(damage.of(apdu))
            return damage.of(process(apdu))

        chip.card.process = damaged  # type: ignore[method-assign]
        try:
            return super().execute(chip, segment)
        finally:
            chip.card.process = process  # type: ignore[method-assign]


APDU = st.integers(1, LONGEST)
DAMAGES = st.dictionaries(
    APDU, st.builds(Damage, st.booleans(), st.integers(0, 255), st.integers(1, 255)), max_size=3
)
PRESENTATION = st.fixed_dictionaries(
    {
        "cut_at": st.just(0) | APDU,
        "after": st.booleans(),
        "reset_at": st.just(0) | APDU,
        "repeats": st.frozensets(st.integers(1, 12), max_size=3),
    }
)


async def presented(
    known: KnownFloor, chip: KeyedChip, presentations: list[Rough], kills: frozenset[int]
) -> Verdict:
    """Each presentation in turn, until one has a verdict; then an undisturbed one."""
    for n, station in enumerate([*presentations, Station(known.floor)]):
        if n in kills:
            known.floor.restart_lines()
        try:
            return await station.run(chip)
        except PowerCut:
            continue
    raise AssertionError("no verdict without any disturbance")


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(PRESENTATION, max_size=3), st.lists(DAMAGES, min_size=3, max_size=3),
    st.frozensets(st.integers(0, 3)),
)  # fmt: skip
def test_a_chip_is_good_only_if_it_holds_the_whole_formal_set(
    known: KnownFloor,
    presentations: list[dict[str, Any]],
    damages: list[dict[int, Damage]],
    kills: frozenset[int],
) -> None:
    """Cuts, resets, killed lines and repeated turns in any order, and up to three bytes of each
    presentation damaged on the way to the chip or back: a verdict comes, and if it is good, the
    chip's memory holds all formal keys of this chip and the data that it was delivered with."""

    async def run() -> None:
        chip = await known.chip()
        rough = [
            Rough(known.floor, damages=d, **p) for p, d in zip(presentations, damages, strict=False)
        ]
        verdict = await presented(known, chip, rough, kills)
        assert verdict.stack in ("good", "rejected", "held")
        if verdict == GOOD:
            assert chip.holds_formal_set()

    asyncio.run(run())


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(PRESENTATION, max_size=4), st.frozensets(st.integers(0, 4)))
def test_without_damage_every_chip_is_finished_and_no_key_written_twice(
    known: KnownFloor, presentations: list[dict[str, Any]], kills: frozenset[int]
) -> None:
    """The same without a damaged byte: the chip ends good, and each key was written once."""

    async def run() -> None:
        chip = await known.chip()
        rough = [Rough(known.floor, **p) for p in presentations]
        for station in rough[2:]:
            # One that loses its session three times is rejected, as one that is silent.
            station.reset_at = 0
        assert await presented(known, chip, rough, kills) == GOOD
        assert chip.holds_formal_set()
        assert chip.written == {slot.key_id: 1 for slot in known.profile.keys}

    asyncio.run(run())


def test_the_comparison_bites(known: KnownFloor) -> None:
    """A chip of which one key or one record is another one does not hold the set."""

    async def run() -> None:
        chip = await known.chip()
        assert await Station(known.floor).run(chip) == GOOD
        assert chip.holds_formal_set()
        key = chip.keys[known.profile.keys[0].key_id]
        key.value = bytes(b ^ 1 for b in key.value)
        assert not chip.holds_formal_set()

    asyncio.run(run())
