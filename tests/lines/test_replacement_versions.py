"""The province's keys are replaced by their next version while chips are in work."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from domain.card.segment import Answers, Segment
from domain.changes import EventType
from domain.codes import Code
from domain.places import Line
from domain.turns import Verdict, Wait
from tests.conformance.card_side import take_temporary_keys
from tests.lines.known_keys import KeyedChip, KnownFloor, Recording, known_floor
from tests.lines.small_floor import Chip, PowerCut, Station

WRITE_KEY = 0xD4
GOOD = Verdict("", "good", "OK")


class Rotating(Station):
    """The next version is activated once the loading key was authenticated."""

    def __init__(self, known: KnownFloor) -> None:
        super().__init__(known.floor)
        self._known, self._due = known, True

    def execute(self, chip: Chip, segment: Segment) -> Answers:
        answers = super().execute(chip, segment)
        if self._due and segment.steps[0].name == "external authenticate":
            self._due = False
            self._known.rotate()
        return answers


def test_each_chip_gets_one_version_whole(tmp_path: Path) -> None:
    """Version 2 is activated between a chip's authentication and its first key: it is begun anew
    and gets version 2. A chip that was interrupted under version 1 is finished under 1, and passes
    inspection; so does one whose keys were all written then. New ones get 2. What was released
    says in which version."""

    sent: list[int] = []

    async def interrupted(known: KnownFloor, written: int) -> KeyedChip:
        chip = await known.chip()
        cut_at = next(n for n in range(1, 60) if sent[:n].count(WRITE_KEY) == written)
        station = Station(known.floor, cut_at, after=True)
        with pytest.raises(PowerCut):
            await station.present(chip, Line.KEY_REPLACEMENT)
        assert len(chip.written) == written
        return chip

    async def run(known: KnownFloor) -> None:
        keys = len(known.profile.keys)
        whole = Recording(known.floor)
        await whole.present(await known.chip(), Line.KEY_REPLACEMENT)
        sent.extend(apdu[1] for apdu in whole.sent)
        before = [await interrupted(known, written) for written in (1, keys - 1, keys)]
        between, new = await known.chip(), await known.chip()
        assert await Rotating(known).run(between) == GOOD
        for chip in (*before, new):
            assert await Station(known.floor).run(chip) == GOOD
        assert [c.holds_formal_set(1) for c in before] == [True] * 3
        assert [c.holds_formal_set(2) for c in (between, new)] == [True] * 2
        assert {n for c in (*before, between, new) for n in c.written.values()} == {1}
        releases = known.floor.queries.rows(
            "select b.identification_code, e.data from event e"
            " join body b on b.body_id = e.body_id where e.type = ? order by e.id",
            EventType.KEY_WRITE_RELEASED,
        )
        versions = {r["identification_code"]: json.loads(r["data"])["version"] for r in releases}
        assert [versions[c.code] for c in (*before, between, new)] == [1, 1, 1, 2, 2]

    with known_floor(tmp_path / "floor", "ssc-3des") as known:
        asyncio.run(run(known))


def test_a_missing_factory_key_waits(tmp_path: Path) -> None:
    """An interrupted chip whose factory's keys are gone from the token waits for them: it is not
    set apart as one whose keys the province does not know. They come again, and it is finished."""

    class Bringing(Station):
        def __init__(self, known: KnownFloor, chip: KeyedChip) -> None:
            super().__init__(known.floor)
            self._known, self._factory, self.waited = known, chip.factory, list[str]()

        async def wait(self, told: Wait) -> None:
            self.waited.append(told.code)
            pem = (self._known.floor.place / "transport.pem").read_bytes()
            take_temporary_keys(self._known.floor.provider, self._factory.sealed(pem))

    async def run(known: KnownFloor) -> None:
        whole = Recording(known.floor)
        await whole.present(await known.chip(), Line.KEY_REPLACEMENT)
        first_write = [apdu[1] for apdu in whole.sent].index(WRITE_KEY) + 1
        chip = await known.chip()
        with pytest.raises(PowerCut):
            await Station(known.floor, first_write, after=True).present(chip, Line.KEY_REPLACEMENT)
        assert len(chip.written) == 1
        masters = known.floor.provider.masters
        for label in masters.labels():
            if label.startswith("temporary:"):
                masters.destroy(label)
        bringing = Bringing(known, chip)
        assert await bringing.run(chip) == GOOD
        assert bringing.waited == [Code.KEY_UNKNOWN]

    with known_floor(tmp_path / "floor", "ssc-3des") as known:
        asyncio.run(run(known))
