"""Leases of stations: who lost one moves nothing, and what may have been written is in doubt until
somebody looks at it. Real line, provider and token; virtual chips whose keys the test knows."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from domain.bodies import Body
from domain.card.segment import Segment
from domain.changes import EventType
from domain.codes import Code
from domain.places import Line, held
from domain.turns import NoAnswer, Opening, Restart, StationTurn, Verdict
from ledger.leases import Doubts, doubts
from ledger.verify import verify
from tests.lines.known_keys import KeyedChip, KnownFloor, known_floor
from tests.lines.small_floor import LEASE, Station

STAGE = Line.KEY_REPLACEMENT
WRITE_KEY = 0xD4
GOOD = Verdict("", "good", "OK")
REPLACED = Verdict(Line.INSPECTION, "", "OK")
_presentations = itertools.count(1)


@dataclass
class HandClock:
    """Stands until somebody moves it."""

    at: datetime = datetime(2024, 3, 1, 8, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.at

    def run_out(self) -> None:
        self.at += LEASE + timedelta(seconds=1)


@dataclass(repr=False)
class Doubt:
    """A floor, its clock, and what the ledger says of a chip."""

    known: KnownFloor
    clock: HandClock

    async def step(self) -> None:
        while await self.known.floor.replacement.step():
            continue

    def body(self, chip: KeyedChip) -> Body:
        (body,) = self.known.floor.queries.bodies("b.identification_code = ?", chip.code)
        return body

    def events(self, chip: KeyedChip, kind: EventType) -> list[dict[str, Any]]:
        found = self.known.floor.queries.rows(
            "select data from event where body_id = ? and type = ? order by id",
            self.body(chip).body_id, kind,
        )  # fmt: skip
        return [json.loads(row["data"]) for row in found]

    def finding(self) -> str:
        return verify(self.known.floor.place / "ledger.db", None, None).finding


@pytest.fixture(scope="module")
def doubt(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doubt]:
    with known_floor(tmp_path_factory.mktemp("doubt"), "ssc-3des") as floor:
        clock = HandClock()
        floor.floor.clock = clock
        yield Doubt(floor, clock)


@dataclass(repr=False)
class Reader:
    """A station that is driven turn by turn, and may lose its chip to another."""

    doubt: Doubt
    station_id: str
    chip: KeyedChip | None = None
    turn: StationTurn | None = None
    said: list[Any] = field(default_factory=list)

    async def put_in(self, chip: KeyedChip) -> None:
        self.chip, plastic = chip, chip.plastic
        atr = chip.card.power_on()
        look = (plastic.carton_id, plastic.face_number, plastic.card_id)
        content = Opening(atr, *look) if atr else NoAnswer(*look)
        name = f"presentation {next(_presentations)}"
        await self._send(StationTurn(self.station_id, "R0", name, 0, STAGE, content))

    async def _send(self, turn: StationTurn) -> None:
        self.turn = turn
        (reply,) = await self.doubt.known.floor.replacement.turns([turn])
        self.said.append(reply.content)

    def execute(self) -> StationTurn:
        """Run what the centre said last; the next turn, not sent yet."""
        assert self.chip is not None
        assert self.turn is not None
        answers = Station(self.doubt.known.floor).execute(self.chip, self.said[-1])
        t = self.turn
        return StationTurn(t.station_id, t.reader, t.presentation, t.number + 1, t.stage, answers)

    async def go_on(self) -> Any:
        await self._send(self.execute())
        return self.said[-1]

    async def until_written(self, keys: int) -> None:
        """Until the chip has executed so many WRITE KEY, and their answer was not sent."""
        assert self.chip is not None
        start = self.chip.writes
        while True:
            turn = self.execute()
            if self.chip.writes == start + keys:
                self.late = turn
                return
            await self._send(turn)


def test_a_card_taken_out_at_any_write_is_in_doubt_and_finished_where_it_is_seen(
    doubt: Doubt,
) -> None:
    """After each number of written keys, the answer of the last sent or not: when the lease is over
    the body is held as IN_DOUBT, bound to its order; the next station that sees the chip goes on
    by its versions, with a new lease, and every key was written once."""
    known = doubt.known

    async def run() -> None:
        for keys, told in itertools.product(range(1, len(known.profile.keys) + 1), (False, True)):
            chip, first = await known.chip(), Reader(doubt, "S1")
            await first.put_in(chip)
            await first.until_written(keys)
            if told and keys < len(known.profile.keys):
                await first._send(first.late)
            before = doubt.body(chip)
            assert (before.lease, before.leased_to) == (1, "S1")
            await doubt.step()
            assert doubt.body(chip) == before, "the lease still runs"
            doubt.clock.run_out()
            if keys % 2:
                known.floor.restart_lines()
            await doubt.step()
            body = doubt.body(chip)
            assert (body.place, body.condition) == (held(STAGE), Code.IN_DOUBT)
            assert (body.order_id, body.live) == (before.order_id, True)
            assert body.order_id
            there = doubts(known.floor.queries)
            assert there == Doubts(1, body.body_id, body.leased_until)
            assert await Station(known.floor).run(chip) == GOOD, keys
            assert doubt.body(chip).lease == 2
            assert doubt.body(chip).leased_to == ""
            assert chip.holds_formal_set()
            assert chip.written == {slot.key_id: 1 for slot in known.profile.keys}
        assert doubts(known.floor.queries) is None
        assert doubt.finding() == ""

    asyncio.run(run())


def test_what_was_not_released_is_leased_to_nobody(doubt: Doubt) -> None:
    """A station that vanishes before the first WRITE KEY holds nothing: no clock moves its card."""
    known = doubt.known

    async def run() -> None:
        chip, first = await known.chip(), Reader(doubt, "S1")
        await first.put_in(chip)
        while not any(step.apdu[1] == WRITE_KEY for step in _steps(first.said[-1])):
            assert not known.floor.queries.bodies("b.identification_code = ?", chip.code)
            turn = first.execute()
            doubt.clock.run_out()
            await doubt.step()
            await first._send(turn)
        assert doubt.body(chip).lease == 1

    asyncio.run(run())


def _steps(said: Any) -> tuple[Any, ...]:
    return said.steps if isinstance(said, Segment) else ()


@pytest.mark.parametrize("stepped", [False, True])
@pytest.mark.parametrize("restarted", [False, True])
def test_a_late_transcript_is_kept_and_moves_nothing(
    doubt: Doubt, stepped: bool, restarted: bool
) -> None:
    """What a station tells after its lease, whether the line still knows the session or was
    started anew, whether the body is in doubt already or not: kept once, however often it comes,
    without data; the body stays where it is."""
    known = doubt.known

    async def run() -> None:
        chip, first = await known.chip(), Reader(doubt, "S1")
        await first.put_in(chip)
        await first.until_written(2)
        doubt.clock.run_out()
        if restarted:
            known.floor.restart_lines()
        if stepped:
            await doubt.step()
        before = doubt.body(chip)
        for _ in range(3):
            await first._send(first.late)
            assert isinstance(first.said[-1], Restart)
        assert doubt.body(chip) == before
        (kept,) = doubt.events(chip, EventType.TRANSCRIPT_KEPT)
        assert (kept["of_lease"], kept["station"]) == (1, "S1")
        assert kept["status_words"][0] == "9000"
        assert set(kept) == {
            "of_lease", "station", "presentation", "turn", "steps", "status_words",
        }  # fmt: skip
        assert await Station(known.floor).run(chip) == GOOD
        assert doubt.finding() == ""

    asyncio.run(run())


def test_a_station_whose_lease_was_superseded_moves_nothing(doubt: Doubt) -> None:
    """The card is carried to another station within the lease: the first one's answers are kept as
    evidence, and the second finishes."""
    known = doubt.known

    async def run() -> None:
        chip = await known.chip()
        first, second = Reader(doubt, "S1"), Reader(doubt, "S2")
        await first.put_in(chip)
        await first.until_written(1)
        await second.put_in(chip)
        await second.until_written(1)
        body = doubt.body(chip)
        assert (body.lease, body.leased_to) == (2, "S2")
        await first._send(first.late)
        assert first.said[-1] == Restart(Code.LEASE_OVER)
        assert doubt.body(chip) == body
        assert [k["of_lease"] for k in doubt.events(chip, EventType.TRANSCRIPT_KEPT)] == [1]
        await second._send(second.late)
        while isinstance(second.said[-1], Segment):
            await second.go_on()
        assert second.said[-1] == REPLACED
        assert chip.written == {slot.key_id: 1 for slot in known.profile.keys}
        assert doubt.finding() == ""

    asyncio.run(run())


def test_a_chip_in_doubt_that_says_no_good_is_rejected(doubt: Doubt) -> None:
    """Silent when it comes back, its face telling which it is: rejected, and its order is free."""
    known = doubt.known

    async def run() -> None:
        chip, first = await known.chip(), Reader(doubt, "S1")
        await first.put_in(chip)
        await first.until_written(3)
        doubt.clock.run_out()
        await doubt.step()
        look = (chip.plastic.carton_id, chip.plastic.face_number, chip.plastic.card_id)
        turn = StationTurn("S2", "R0", f"presentation {next(_presentations)}", 0, STAGE,
                           NoAnswer(*look))  # fmt: skip
        (reply,) = await known.floor.replacement.turns([turn])
        assert reply.content == Verdict("", "rejected", Code.CHIP_SILENT)
        body = doubt.body(chip)
        assert (body.condition, body.live, body.leased_to) == (Code.CHIP_SILENT, False, "")
        assert doubt.finding() == ""

    asyncio.run(run())


MOVES = st.lists(
    st.sampled_from(["s1 in", "s2 in", "s1 on", "s2 on", "s1 on", "s2 on", "s1 late", "s2 late",
                     "time", "step", "restart"]),
    max_size=30,
)  # fmt: skip


@settings(
    max_examples=20,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[*HealthCheck],
)
@given(MOVES)
def test_whatever_happens_no_key_is_written_twice_and_the_card_gets_done(
    doubt: Doubt, moves: list[str]
) -> None:
    """Two stations, a clock, a line that is started anew, in any order: an order has its one body,
    no key of the chip is written twice, and in the end the card is among the good ones."""
    known = doubt.known

    async def run() -> None:
        chip = await known.chip()
        stations = {"s1": Reader(doubt, "S1"), "s2": Reader(doubt, "S2")}
        for move in moves:
            await act(move, stations, chip)
        for reader in stations.values():
            await late(reader)
        await doubt.step()
        assert await Station(known.floor).run(chip) == GOOD
        assert chip.holds_formal_set()
        assert chip.written == {slot.key_id: 1 for slot in known.profile.keys}
        body = doubt.body(chip)
        assert (body.live, body.leased_until) == (True, "")

    async def act(move: str, stations: dict[str, Reader], chip: KeyedChip) -> None:
        name, _, what = move.partition(" ")
        if move == "time":
            doubt.clock.run_out()
        elif move == "step":
            await doubt.step()
        elif move == "restart":
            known.floor.restart_lines()
        elif what == "in":
            for reader in stations.values():
                if reader.chip is not None and isinstance(reader.said[-1], Segment):
                    reader.late = reader.execute()
                reader.chip = None
            await stations[name].put_in(chip)
        elif what == "on" and stations[name].chip is not None:
            if isinstance(stations[name].said[-1], Segment):
                await stations[name].go_on()
        elif what == "late":
            await late(stations[name])

    async def late(reader: Reader) -> None:
        turn = getattr(reader, "late", None)
        if turn is not None:
            (reply,) = await known.floor.replacement.turns([turn])
            if reader.turn is not None and reader.turn.presentation == turn.presentation:
                reader.said.append(reply.content)

    asyncio.run(run())
    assert doubt.finding() == ""
