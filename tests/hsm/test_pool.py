"""The pool of key providers over members that fail as told: at every point of their work."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.hsm.pool import JITTER, PAUSES, KeyPool
from actors.hsm.quota import CartonQuota
from domain.changes import Away, Fault, KeysAway
from domain.codes import Code
from domain.provider import (
    Answer,
    Chip,
    Compare,
    KeyChange,
    KeyRefused,
    KeyState,
    ProviderError,
    Request,
)
from tests.conformance.card_side import identification_code

BODIES = 6
POINTS = ("before", "midst", "after")


class Releases:
    """What the ledger knows of cartons: BODIES each, and whose first WRITE KEY was released."""

    def __init__(self) -> None:
        self.chips: dict[str, list[str]] = {}

    def of(self, carton_id: str) -> list[str]:
        return self.chips.setdefault(carton_id, [])


class Scripted:
    """A member with a real quota. `fails`: at which point of its next `perform` it fails."""

    def __init__(self, name: str, releases: Releases | None = None) -> None:
        self.name = name
        self.fails = ""
        self.sick: Exception | None = None
        self.meets: asyncio.Barrier | None = None
        """Where the members wait for one another within a `perform`."""
        self.done: list[Request] = []
        self.asked: list[str] = []
        self.drew: set[tuple[str, str]] = set()
        self._releases = releases or Releases()
        self.restart()

    def restart(self) -> None:
        """A process that was killed comes back without memory."""
        self._quota = CartonQuota(
            lambda _: BODIES, self._releases.of, lambda carton: len(self._releases.of(carton))
        )

    async def perform(self, requests: Sequence[Request]) -> list[Answer]:
        self.asked.append("perform")
        if self.sick is not None:
            raise self.sick
        point, self.fails = self.fails, ""
        if point == "before":
            raise Away("no process")
        await (self.meets.wait() if self.meets else asyncio.sleep(0))
        self._quota.begin_chunk()
        work = requests[: len(requests) // 2] if point == "midst" else requests
        answers = [self._answer(r) for r in work]
        if point:
            raise Away("no answer in time")
        return answers

    def _answer(self, request: Request) -> Answer:
        self.done.append(request)
        if isinstance(request, KeyChange):
            chip = request.chip
            if not self._quota.admit(chip.carton_id, chip.identification_code):
                return Answer(refused=Code.KEY_QUOTA_EXCEEDED)
            self.drew.add((chip.carton_id, chip.identification_code))
            return Answer(data=request.challenge)
        return Answer(difference=request.order_id if isinstance(request, Compare) else "")

    async def _plain(self, what: str, answer: Any) -> Any:
        self.asked.append(what)
        if self.sick is not None:
            raise self.sick
        return answer

    async def seal(self, batch_id: str, records: Sequence[tuple[str, bytes]]) -> list[bytes]:
        sealed: list[bytes] = await self._plain("seal", [plain for _, plain in records])
        return sealed

    unseal = seal

    async def index(self, values: Sequence[str]) -> list[str]:
        found: list[str] = await self._plain("index", list(values))
        return found

    def __getattr__(self, name: str) -> Any:
        """Acts on keys."""
        if name.startswith("_"):
            raise AttributeError(name)
        return lambda *_: self._plain(name, None)

    async def sign(self, digests: Sequence[bytes]) -> list[bytes]:
        signatures: list[bytes] = await self._plain("sign", list(digests))
        return signatures

    async def self_test(self) -> list[str]:
        held: list[str] = await self._plain("self_test", ["one"])
        return held

    async def refresh(self) -> None:
        await self._plain("refresh", None)


class Clock:
    """Pauses that end when they are told to, one after another."""

    def __init__(self) -> None:
        self.pauses: list[float] = []
        self._waiting: list[asyncio.Event] = []

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self._waiting.append(asyncio.Event())
        await self._waiting[-1].wait()

    async def over(self) -> None:
        """The pause that began first is over, if there is one, and what comes after it done."""
        for _ in range(10):
            await asyncio.sleep(0)
        if self._waiting:
            self._waiting.pop(0).set()
        for _ in range(10):
            await asyncio.sleep(0)


def change(carton: str, serial: int) -> KeyChange:
    chip = Chip(identification_code(serial), "B1", carton)
    return KeyChange(chip, "MK", serial.to_bytes(8, "big"))


def pool_of(*members: Scripted, clock: Clock | None = None) -> KeyPool:
    named: dict[str, Any] = {m.name: m for m in members}
    return KeyPool(named, (clock or Clock()).sleep)


CHUNK: list[Request] = [
    *(change(f"C{n % 5}", n) for n in range(12)),
    *(Compare("B1", f"order-{n}", b"", {}) for n in range(4)),
]
RIGHT = [
    *(Answer(data=n.to_bytes(8, "big")) for n in range(12)),
    *(Answer(difference=f"order-{n}") for n in range(4)),
]


def test_a_chunk_is_split_by_carton_and_put_together_in_order() -> None:
    """All requests of a carton are done by one member, both members work at once, and the same
    carton goes to the same member whoever holds the pool."""
    first, second = Scripted("p0"), Scripted("p1")

    async def run() -> None:
        first.meets = second.meets = asyncio.Barrier(2)
        for _ in range(2):
            async with asyncio.timeout(5):
                assert await pool_of(first, second).perform(CHUNK) == RIGHT

    asyncio.run(run())
    cartons = [
        {r.chip.carton_id for r in m.done if isinstance(r, KeyChange)} for m in (first, second)
    ]
    assert cartons[0] | cartons[1] == {f"C{n}" for n in range(5)}
    assert not cartons[0] & cartons[1]
    assert len(first.done) + len(second.done) == 2 * len(CHUNK)


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("failing", [0, 1])
def test_the_part_of_a_member_that_fails_goes_to_another_at_once(point: str, failing: int) -> None:
    """Before, in the midst of and after its work: the caller gets every answer, in order, and
    waits for nothing. The member is out until it has forgotten its handles and passed its
    self-test."""
    members = Scripted("p0"), Scripted("p1")
    members[failing].fails = point

    async def run() -> None:
        clock = Clock()
        pool = pool_of(*members, clock=clock)
        assert await pool.perform(CHUNK) == RIGHT
        assert pool.out == [members[failing].name]
        assert not pool.away
        members[failing].asked.clear()
        assert await pool.perform(CHUNK) == RIGHT
        assert members[failing].asked == []
        await clock.over()
        assert members[failing].asked == ["refresh", "self_test"]
        assert pool.out == []
        assert await pool.perform(CHUNK) == RIGHT
        assert members[failing].asked[2:] == ["perform"]

    asyncio.run(run())


def test_without_any_member_calls_say_so_until_one_is_back() -> None:
    """KEY_PROVIDER_AWAY for every operation, at once; pauses grow to a minute and are not taken in
    step; the first that is back does all the work."""
    members = Scripted("p0"), Scripted("p1")
    for member in members:
        member.sick = ProviderError("the token failed")

    async def run() -> None:
        clock = Clock()
        pool = pool_of(*members, clock=clock)
        for ask in (pool.perform(CHUNK), pool.index(["1"]), pool.sign([b""]), pool.seal("B1", [])):
            with pytest.raises(KeysAway) as away:
                await ask
            assert away.value.code is Code.KEY_PROVIDER_AWAY
        assert pool.away
        assert pool.out == ["p0", "p1"]
        for _ in range(2 * len(PAUSES)):
            await clock.over()
        for n, pause in enumerate(clock.pauses):
            usual = PAUSES[min(n // 2, len(PAUSES) - 1)]
            assert JITTER[0] * usual <= pause <= JITTER[1] * usual
        assert len(set(clock.pauses)) == len(clock.pauses) > 2 * len(PAUSES)
        members[0].sick = None
        for _ in range(2):
            await clock.over()
        assert pool.out == ["p1"]
        assert await pool.perform(CHUNK) == RIGHT

    asyncio.run(run())


def test_a_member_that_fails_again_and_again_is_tried_less_and_less_often() -> None:
    """One that passes its self-test and then fails its first chunk is not asked every second."""
    flapping, steady = Scripted("p0"), Scripted("p1")

    async def run() -> None:
        clock = Clock()
        pool = pool_of(flapping, steady, clock=clock)
        for _ in range(4):
            flapping.fails = "before"
            assert await pool.perform(CHUNK) == RIGHT
            await clock.over()
        assert [round(p / u) for p, u in zip(clock.pauses, PAUSES, strict=False)] == [1] * 4

    asyncio.run(run())


def test_a_fault_of_the_question_takes_nobody_out_and_one_of_a_member_that_one() -> None:
    """What makes every member fail is the question's: two are asked, not all, and no line stops
    for it. What one answers and the other does not is the other's."""
    members = [Scripted(f"p{n}") for n in range(3)]
    for member in members:
        member.sick = Fault("TypeError")

    async def run() -> None:
        pool = pool_of(*members)
        with pytest.raises(Fault):
            await pool.index(["1"])
        assert pool.out == []
        assert [m.asked for m in members] == [["index"], ["index"], []]
        for member in members[1:]:
            member.sick = None
        assert await pool.perform(CHUNK) == RIGHT
        assert pool.out == ["p0"]

    asyncio.run(run())


def test_a_change_of_keys_is_made_by_one_and_seen_by_all() -> None:
    """The others forget what they remember; one that can't be told is out, and told on return. An
    act that is refused takes nobody out."""
    members = [Scripted(f"p{n}") for n in range(3)]

    async def run() -> None:
        clock = Clock()
        pool = pool_of(*members, clock=clock)
        await pool.set_state(["formal:MK:v1"], KeyState.RETIRED)
        changed = [m for m in members if "set_state" in m.asked]
        assert len(changed) == 1
        assert all("refresh" in m.asked for m in members)
        members[2].sick = Away("stopped")
        await pool.stage_temporary_keys(b"")
        assert pool.out == ["p2"]
        members[0].sick = members[1].sick = KeyRefused(Code.KEY_UNKNOWN, "no such key")
        with pytest.raises(KeyRefused):
            await pool.destroy(["formal:MK:v1"])
        assert pool.out == ["p2"]
        members[2].sick = None
        await clock.over()
        assert members[2].asked[-2:] == ["refresh", "self_test"]
        assert pool.out == []

    asyncio.run(run())


TURNS = st.lists(
    st.tuples(
        st.lists(st.integers(0, 2 * BODIES), min_size=1, max_size=4, unique=True),
        st.integers(0, 2),  # which member fails; 2: none
        st.sampled_from(POINTS),
        st.booleans(),  # it comes back with its memory
        st.booleans(),  # the commit goes through
        st.integers(0, 1),  # which of two lines asks
    ),
    max_size=30,
)


@given(TURNS)
def test_a_carton_draws_no_more_than_its_bodies_however_members_fail(turns: Any) -> None:
    """Two lines route, members die before, in and after their work, with or without their memory,
    commits are lost. Released are never more chips than the carton has bodies; a chip that drew
    and was not released was in a chunk that was open at a failure, and the number of those bounds
    what was drawn beyond the bodies."""
    releases = Releases()
    members = Scripted("p0", releases), Scripted("p1", releases)
    open_at_failure: set[str] = set()

    async def run() -> None:
        clock = Clock()
        lines = [pool_of(*members, clock=clock) for _ in range(2)]
        for serials, failing, point, keeps, commits, line in turns:
            asked = [change("C1", serial) for serial in serials]
            if failing < 2:
                members[failing].fails = point
            answers = await lines[line].perform(asked)
            given_out = [
                r.chip.identification_code
                for r, a in zip(asked, answers, strict=True)
                if not a.refused
            ]
            # As the line does: the commit binds one body to each chip, or does not happen.
            bound = [c for c in given_out if c not in releases.of("C1")]
            room = BODIES - len(releases.of("C1"))
            if commits:
                releases.of("C1").extend(bound[:room])
            if not commits or any(lines[n].out for n in range(2)):
                open_at_failure.update(r.chip.identification_code for r in asked)
            if failing < 2 and not keeps:
                members[failing].restart()
            for member in members:
                member.fails = ""
            await clock.over()
            await clock.over()

    asyncio.run(run())
    drawn = {code for m in members for _, code in m.drew}
    assert len(releases.of("C1")) <= BODIES
    assert drawn - set(releases.of("C1")) <= open_at_failure
    assert len(drawn) <= BODIES + len(open_at_failure)


def test_a_member_that_a_carton_returns_to_knows_what_was_drawn_elsewhere() -> None:
    """It went on remembering its own draws, and reads from the ledger those made meanwhile."""
    releases = Releases()
    members = Scripted("p0", releases), Scripted("p1", releases)

    async def draw(pool: KeyPool, serials: range) -> None:
        asked = [change("C1", n) for n in serials]
        assert not [a for a in await pool.perform(asked) if a.refused]
        releases.of("C1").extend(r.chip.identification_code for r in asked)

    async def run() -> None:
        clock = Clock()
        pool = pool_of(*members, clock=clock)
        await draw(pool, range(3))
        home = next(m for m in members if m.done)
        home.fails = "before"
        await draw(pool, range(3, BODIES))
        assert pool.out == [home.name]
        await clock.over()
        once_more = [change("C1", BODIES), change("C1", 1), change("C1", 4)]
        answers = await pool.perform(once_more)
        assert home.done[-3:] == once_more
        assert [a.refused for a in answers] == [Code.KEY_QUOTA_EXCEEDED, "", ""]

    asyncio.run(run())
