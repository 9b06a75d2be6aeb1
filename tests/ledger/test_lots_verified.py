"""Verification draws the samples again, counts the verdicts again, and finds what does not fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from actors.lots import CHUNK, WORK, LotPlan, decide_draw, decide_hold, decide_judge, decide_present
from actors.lots import present as lot_of
from actors.packing import decide_open
from domain.bodies import Body
from domain.lines import NoteCarton
from domain.places import READ_AGAIN
from ledger.lots import Lot, draw
from ledger.verify import verify
from tests.ledger.building import SOCIAL, Building, factory_return, note, record

CARDS = 25
HOW = LotPlan(lambda lot_id: lot_id.encode())


@pytest.fixture
def b(tmp_path: Path) -> Building:
    """A batch whose lot, 25 cards of which 20 are to be drawn, is to be played by hand."""
    building = Building.make(tmp_path)
    records = [record(n) for n in range(1, CARDS + 1)]
    building.take_return(factory_return(records))
    building.take_note(note([NoteCarton("C1", "102", SOCIAL, CARDS + 1, "")]))
    building.sign_for("D1", C1=CARDS + 1)
    building.replace_keys_together("C1", records)
    building.inspect()
    building.sort()  # one card of the carton is still to come: nothing is packed
    return building


def sorted_bodies(b: Building) -> list[Body]:
    return b.queries.bodies("b.place in (?, ?) order by b.body_id limit ?", WORK, READ_AGAIN, CHUNK)


def lot(b: Building) -> Lot:
    return lot_of("B1", "D1", "102", SOCIAL, [x.body_id for x in sorted_bodies(b)], HOW)


def sample(b: Building, size: int = 20) -> list[Body]:
    bodies = {x.body_id: x for x in sorted_bodies(b)}
    return [bodies[i] for i in draw(bodies, size, bytes.fromhex(lot(b).seed))]


def finding(b: Building) -> str:
    b.close()
    return verify(b.url, None, None).finding


def presented(b: Building) -> Lot:
    mine = lot(b)
    b.commit(decide_present("x1", [mine]))
    return mine


def drawn(b: Building) -> Lot:
    mine = presented(b)
    b.commit(decide_draw("x2", [(mine, sample(b))]))
    return mine


def read(b: Building, bad: int) -> Lot:
    mine = drawn(b)
    b.read_sample(bad=bad)
    return mine


@pytest.mark.parametrize(("bad", "count"), [(0, 0), (1, 1), (3, 3)])
def test_a_lot_as_it_should_be_holds(b: Building, bad: int, count: int) -> None:
    """Presented, drawn, read, judged, and packed or held."""
    mine = read(b, bad)
    b.commit(decide_judge("x3", mine, count))
    left = sorted_bodies(b)
    if bad:
        b.commit(decide_hold("x4", mine, left))
    else:
        b.commit(decide_open("x4", "B1", left, set(), 1))
    b.close()
    report = verify(b.url, None, None)
    assert (report.finding, report.lots) == ("", 1)


def another_sample(b: Building) -> None:
    mine = presented(b)
    chosen = {x.body_id for x in sample(b)}
    left = [x for x in sorted_bodies(b) if x.body_id not in chosen]
    b.commit(decide_draw("x2", [(mine, [*sample(b)[1:], left[0]])]))


def fewer(b: Building) -> None:
    mine = presented(b)
    b.commit(decide_draw("x2", [(mine, sample(b, 3))]))


def judged_too_early(b: Building) -> None:
    b.commit(decide_judge("x3", drawn(b), 0))


def miscounted(b: Building) -> None:
    b.commit(decide_judge("x3", read(b, 1), 0))


def accepted_all_the_same(b: Building) -> None:
    mine = read(b, 1)
    b.commit(decide_judge("x3", replace(mine, accept=5), 1))


def packed_before_the_verdict(b: Building) -> None:
    read(b, 0)
    b.commit(decide_open("x4", "B1", sorted_bodies(b), set(), 1))


def packed_after_refusal(b: Building) -> None:
    b.commit(decide_judge("x3", read(b, 1), 1))
    b.commit(decide_open("x4", "B1", sorted_bodies(b), set(), 1))


def held_without_refusal(b: Building) -> None:
    mine = read(b, 0)
    b.commit(decide_judge("x3", mine, 0))
    b.commit(decide_hold("x4", mine, sorted_bodies(b)))


def a_card_left_out_of_the_lot(b: Building) -> None:
    ids = [x.body_id for x in sorted_bodies(b)][1:]
    b.commit(decide_present("x1", [lot_of("B1", "D1", "102", SOCIAL, ids, HOW)]))


def another_plan(b: Building) -> None:
    """A plan that is in no table: the same sample, and one nonconforming card more allowed."""
    b.commit(decide_present("x1", [replace(lot(b), accept=1)]))


def presented_again(b: Building) -> None:
    """With another seed, until the draw pleases."""
    mine = presented(b)
    b.commit(decide_present("x9", [replace(mine, seed="00")]))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (another_sample, "not by the seed"),
        (fewer, "another number"),
        (judged_too_early, "read again"),
        (miscounted, "the verdict"),
        (accepted_all_the_same, "the verdict"),
        (packed_before_the_verdict, "not accepted"),
        (packed_after_refusal, "not accepted"),
        (held_without_refusal, "not refused"),
        (a_card_left_out_of_the_lot, "not the cards"),
        (another_plan, "not the plan"),
        (presented_again, "presented twice"),
    ],
)
def test_what_does_not_fit_is_found(
    b: Building, wrong: Callable[[Building], None], words: str
) -> None:
    """Each could be committed by a faulty line, and each is named."""
    wrong(b)
    assert words in finding(b)
