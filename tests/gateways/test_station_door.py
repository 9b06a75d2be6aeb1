"""Turns of many stations: gathered into few calls, one call in flight a line, each turn answered
exactly once on its own stream, also when the queue is full or the line fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from hypothesis import given
from hypothesis import strategies as st

from domain.card.segment import Answers, Segment, Step, StepAnswer
from domain.changes import Away
from domain.codes import Code
from domain.turns import CentreTurn, NoAnswer, Opening, Restart, StationTurn, Verdict, Wait
from gateways.floor import Limits
from gateways.turns_wire import (
    centre_turn_from_wire,
    centre_turn_to_wire,
    station_turn_from_wire,
    station_turn_to_wire,
)
from stubs import station_pb2 as pb
from stubs.station_pb2_grpc import StationStub
from tests.gateways.surroundings import open_hall, until

KEYS, CHECK = "key_replacement", "inspection"


def opening(presentation: str, stage: str = KEYS, number: int = 0) -> StationTurn:
    return StationTurn("S1", "R1", presentation, number, stage, Opening(b"\x3b", "C1", ""))


class Agent:
    """One stream to the station door."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        # The stubs' types know neither a call that is written to nor the end of a stream.
        make: Any = StationStub(channel).Work
        self._call: Any = make()
        self.messages: list[list[CentreTurn]] = []

    async def send(self, *turns: StationTurn) -> None:
        await self.send_wire(*map(station_turn_to_wire, turns))

    async def send_wire(self, *turns: pb.StationTurn) -> None:
        await self._call.write(pb.StationTurns(turns=turns))

    async def receive(self, count: int) -> list[CentreTurn]:
        """The next messages with together at least `count` answers."""
        found: list[CentreTurn] = []
        async with asyncio.timeout(10):
            while len(found) < count:
                message = await self._call.read()
                if not isinstance(message, pb.CentreTurns):
                    break
                turns = [centre_turn_from_wire(t) for t in message.turns]
                self.messages.append(turns)
                found += turns
        return found

    async def done(self) -> None:
        await self._call.done_writing()

    def cancel(self) -> None:
        self._call.cancel()


@asynccontextmanager
async def agent(channel: grpc.aio.Channel) -> AsyncIterator[Agent]:
    one = Agent(channel)
    try:
        yield one
    finally:
        one.cancel()


def test_turns_of_many_streams_share_calls(tmp_path: Path) -> None:
    """While a call is in flight the turns of all streams gather for the next; never two calls at
    once; each stream gets its own answers, in one message those that are ready together."""

    async def run() -> None:
        limits = Limits(gather_milliseconds=20)
        async with (
            open_hall(tmp_path, limits=limits, stages=[KEYS]) as (hall, channel),
            agent(channel) as one,
            agent(channel) as two,
        ):
            line = hall.chip_lines[KEYS]
            line.gate.clear()
            await one.send(opening("first"))
            await line.entered.wait()
            await one.send(*(opening(f"a{n}") for n in range(40)))
            await two.send(*(opening(f"b{n}") for n in range(40)))
            assert hall.doors is not None
            stations = hall.doors.stations
            await until(lambda: stations.waiting() == {KEYS: 80})
            assert len(line.calls) == 1
            line.gate.set()
            mine, theirs = await one.receive(41), await two.receive(40)
        assert [len(c) for c in line.calls] == [1, 80]
        assert line.most_in_flight == 1
        assert [t.presentation for t in mine] == ["first", *(f"a{n}" for n in range(40))]
        assert [t.presentation for t in theirs] == [f"b{n}" for n in range(40)]
        assert [len(m) for m in two.messages] == [40]

    asyncio.run(run())


def test_a_call_holds_no_more_than_its_limit(tmp_path: Path) -> None:
    """512 turns at once are four calls, without waiting for the gathering time in between."""

    async def run() -> None:
        limits = Limits(gather_milliseconds=2_000)
        async with (
            open_hall(tmp_path, limits=limits, stages=[KEYS]) as (hall, channel),
            agent(channel) as one,
        ):
            await one.send(*(opening(f"p{n}") for n in range(512)))
            answers = await one.receive(512)
        assert [len(c) for c in hall.chip_lines[KEYS].calls] == [128, 128, 128, 128]
        assert len(answers) == 512

    asyncio.run(run())


def test_a_presentation_stands_once_in_a_call(tmp_path: Path) -> None:
    """A turn that is sent again before its answer came waits for the next call; both are
    answered."""

    async def run() -> None:
        async with (
            open_hall(tmp_path, stages=[KEYS]) as (hall, channel),
            agent(channel) as one,
        ):
            await one.send(opening("p"), opening("q"), opening("p"), opening("r"))
            answers = await one.receive(4)
        assert [[t.presentation for t in c] for c in hall.chip_lines[KEYS].calls] == [
            ["p", "q", "r"],
            ["p"],
        ]
        assert sorted(t.presentation for t in answers) == ["p", "p", "q", "r"]

    asyncio.run(run())


def test_a_full_queue_says_so_at_once(tmp_path: Path) -> None:
    """Turns beyond the limit are answered Wait(BUSY) while the line is still busy; those that
    were taken are answered later: none is dropped."""

    async def run() -> None:
        limits = Limits(turns_in_queue=50, turns_per_call=10)
        async with (
            open_hall(tmp_path, limits=limits, stages=[KEYS]) as (hall, channel),
            agent(channel) as one,
            agent(channel) as two,
        ):
            line = hall.chip_lines[KEYS]
            line.gate.clear()
            await one.send(*(opening(f"p{n}") for n in range(10)))
            await line.entered.wait()
            await two.send(*(opening(f"q{n}") for n in range(75)))
            busy = await two.receive(25)
            line.gate.set()
            served = await two.receive(50)
            await one.receive(10)
        assert {t.content for t in busy} == {Wait(300, Code.BUSY)}
        assert [t.presentation for t in busy] == [f"q{n}" for n in range(50, 75)]
        assert [t.presentation for t in served] == [f"q{n}" for n in range(50)]

    asyncio.run(run())


def test_a_line_that_fails_lets_the_stations_wait(tmp_path: Path) -> None:
    """Away or any other exception: every turn of the call is told to come again, the next call
    is served; other stages go on meanwhile."""

    async def run() -> None:
        async with (
            open_hall(tmp_path, stages=[KEYS, CHECK]) as (hall, channel),
            agent(channel) as one,
        ):
            for fault in (Away("line loads"), RuntimeError("张三")):
                hall.chip_lines[KEYS].fault = fault
                await one.send(opening("p"), opening("q"), opening("r", CHECK))
                answers = {t.presentation: t.content for t in await one.receive(3)}
                wait = Wait(300, Code.UNAVAILABLE)
                assert answers == {"p": wait, "q": wait, "r": Verdict("", "good", "OK")}
            hall.chip_lines[KEYS].fault = None
            await one.send(opening("p"))
            (answer,) = await one.receive(1)
        assert answer.content == Verdict("", "good", "OK")

    asyncio.run(run())


def test_what_is_no_turn_of_ours_is_answered_too(tmp_path: Path) -> None:
    """An unknown stage, a turn without content: start again, and the others go on."""

    async def run() -> None:
        async with (
            open_hall(tmp_path, stages=[KEYS]) as (_, channel),
            agent(channel) as one,
        ):
            await one.send_wire(
                station_turn_to_wire(opening("p", "printing")),
                pb.StationTurn(presentation="q", stage=KEYS),
                station_turn_to_wire(opening("r")),
            )
            answers = {t.presentation: t.content for t in await one.receive(3)}
        assert answers == {
            "p": Restart(Code.STAGE_UNKNOWN),
            "q": Restart(Code.MALFORMED),
            "r": Verdict("", "good", "OK"),
        }

    asyncio.run(run())


def test_a_stream_that_ends_takes_nothing_from_others(tmp_path: Path) -> None:
    """An agent dies with its turns in a call: the call goes on and the other agent is answered;
    the dead one's turn, sent again on a new stream, is answered as well."""

    async def run() -> None:
        async with (
            open_hall(tmp_path, stages=[KEYS]) as (hall, channel),
            agent(channel) as one,
            agent(channel) as two,
        ):
            line = hall.chip_lines[KEYS]
            line.gate.clear()
            await one.send(opening("p"))
            await line.entered.wait()
            await two.send(opening("q"))
            one.cancel()
            async with agent(channel) as again:
                await again.send(opening("p"))
                line.gate.set()
                (theirs,), (mine,) = await two.receive(1), await again.receive(1)
        assert (theirs.presentation, mine.presentation) == ("q", "p")
        assert sum(t.presentation == "p" for c in line.calls for t in c) == 2

    asyncio.run(run())


def test_an_agent_that_has_no_more_turns_gets_all_its_answers(tmp_path: Path) -> None:
    """The stream ends after the last answer, not before."""

    async def run() -> None:
        async with (
            open_hall(tmp_path, stages=[KEYS]) as (hall, channel),
            agent(channel) as one,
        ):
            line = hall.chip_lines[KEYS]
            line.gate.clear()
            await one.send(*(opening(f"p{n}") for n in range(300)))
            await one.done()
            await line.entered.wait()
            line.gate.set()
            answers = await one.receive(301)
        assert len(answers) == 300

    asyncio.run(run())


def test_closing_doors_answer_what_is_in_hand(tmp_path: Path) -> None:
    """When the doors stop, the turn in a call is answered before its stream ends."""

    async def run() -> None:
        async with (
            open_hall(tmp_path, stages=[KEYS]) as (hall, channel),
            agent(channel) as one,
        ):
            line = hall.chip_lines[KEYS]
            line.gate.clear()
            await one.send(opening("p"))
            await line.entered.wait()
            assert hall.doors is not None
            stopping = asyncio.create_task(hall.doors.stop(5))
            await asyncio.sleep(0.05)
            line.gate.set()
            answers = await one.receive(2)
            await stopping
        assert [t.content for t in answers] == [Verdict("", "good", "OK")]

    asyncio.run(run())


def test_an_agent_that_does_not_read_is_not_read(tmp_path: Path) -> None:
    """Its unread answers stay within the limit: the door stops reading its turns."""

    async def run() -> None:
        limits = Limits(turns_in_queue=500)
        async with (
            open_hall(tmp_path, limits=limits, stages=[KEYS]) as (hall, channel),
            agent(channel) as one,
            agent(channel) as two,
        ):
            line = hall.chip_lines[KEYS]

            async def flood() -> None:
                for n in range(400):
                    await one.send(*(opening(f"{n}.{i}" + "x" * 500) for i in range(100)))

            flooding = asyncio.create_task(flood())
            taken = -1
            while taken < 1 or taken != sum(map(len, line.calls)):
                taken = sum(map(len, line.calls))
                await asyncio.sleep(0.3)
            assert not flooding.done()
            assert 0 < taken < 40_000
            await two.send(opening("q"))
            assert len(await two.receive(1)) == 1
            answers = await one.receive(40_000)
            await flooding
            assert len(answers) == 40_000

    asyncio.run(run())


TEXT = st.text(max_size=20)
NAME = st.text(min_size=1, max_size=20)
NUMBER = st.integers(0, 2**32 - 1)
BYTES = st.binary(max_size=40)
STATION_TURNS = st.builds(
    StationTurn,
    TEXT, TEXT, NAME, NUMBER, NAME,
    st.one_of(
        st.builds(Opening, BYTES, TEXT, TEXT),
        st.builds(NoAnswer, TEXT, TEXT),
        st.builds(
            Answers, st.lists(st.builds(StepAnswer, NUMBER, BYTES), max_size=4).map(tuple), TEXT
        ),
    ),
)  # fmt: skip
STEPS = st.lists(
    st.builds(Step, TEXT, BYTES, st.lists(TEXT, max_size=3).map(tuple)), max_size=4
).map(tuple)
CENTRE_TURNS = st.builds(
    CentreTurn,
    TEXT, NUMBER, TEXT,
    st.one_of(
        st.builds(Segment, STEPS, st.booleans()),
        st.builds(Verdict, TEXT, TEXT, TEXT),
        st.builds(Restart, TEXT),
        st.builds(Wait, NUMBER, TEXT),
    ),
)  # fmt: skip


@given(STATION_TURNS)
def test_a_station_turn_comes_as_it_went(turn: StationTurn) -> None:
    """To the wire, through bytes, and back, also with every field empty."""
    wire = pb.StationTurn.FromString(station_turn_to_wire(turn).SerializeToString())
    assert station_turn_from_wire(wire) == turn


@given(CENTRE_TURNS)
def test_a_centre_turn_comes_as_it_went(turn: CentreTurn) -> None:
    """The other way, likewise."""
    wire = pb.CentreTurn.FromString(centre_turn_to_wire(turn).SerializeToString())
    assert centre_turn_from_wire(wire) == turn
