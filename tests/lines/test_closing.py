"""A batch closes once, with all its bodies: what comes in while its return is decided upon keeps
it open, and what comes later takes nothing out of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.sorting import Sorting
from domain.changes import Refused
from domain.codes import Code
from domain.lines import NoteCarton
from domain.places import Line
from tests.ledger.building import SOCIAL, Building, code_of, factory_return, note, record
from tests.lines.test_corrections import GOOD, Overtaken, take_back

pytestmark = pytest.mark.usefixtures("each_database")


@pytest.fixture
def b(tmp_path: Path) -> Iterator[Building]:
    building = Building.make(tmp_path)
    yield building
    building.close()


def test_a_recount_that_overtakes_the_return_keeps_the_batch_open(b: Building) -> None:
    """The return was decided upon while a card was beyond the count; the recount brings it back
    to work, so the return is refused and waits for it. So it is by a card that is set apart."""
    b.take_return(factory_return(GOOD[:2]))
    b.take_note(note([NoteCarton("C1", "102", SOCIAL, 2, "")]))
    b.sign_for("D1", C1=1)
    b.replace_keys("C1", 1, GOOD[0].order_id, "102-430102")
    b.inspect()
    b.sort_unscanned()
    b.scan_packages()
    asyncio.run(b.sorting.step())  # shipped

    async def set_apart() -> None:
        b.cartons.load(["C1"], ["C1"])
        writing = b.writing(Line.KEY_REPLACEMENT)
        b.cartons.set_apart(
            writing, "C1", Code.OVER_COUNT, None, identification_code=code_of(2),
            order_id=GOOD[1].order_id, ticket="", station="S1",
        )  # fmt: skip
        await b.doors[Line.KEY_REPLACEMENT].commit(writing.changes())

    async def recount() -> None:
        assert (await b.inventory.recount("C1", 2)).accepted

    for meanwhile in (set_apart, recount):
        door = Overtaken(b.doors[Line.SORTING], meanwhile)
        with pytest.raises(Refused, match="GUARD_FAILED"):
            asyncio.run(Sorting(door, b.queries, f"o-{meanwhile.__name__}").step())
    b.sort()
    assert not b.queries.is_closed("B1")


def test_a_later_batch_takes_no_body_out_of_a_closed_one(b: Building) -> None:
    """A stranger stands as surplus in the return of its batch; a return of another batch that
    names its chip leaves it there."""
    b.take_return(factory_return(GOOD[:1]))
    b.take_note(note([NoteCarton("C1", "102", SOCIAL, 2, "")]))
    b.sign_for("D1", C1=2)
    b.replace_keys("C1", 1, GOOD[0].order_id, "102-430102")
    b.set_apart("C1", Code.NOT_IN_RETURN, 77)
    b.inspect()
    b.sort()
    assert b.queries.is_closed("B1")
    b.take_return(
        factory_return([record(77, batch="B2", carton="X1")], file_id="F9", batch="B2", digest="d9")
    )
    assert take_back(b) == 0
