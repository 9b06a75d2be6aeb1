"""A drawn card that cannot be found: counted, set apart by two people, and its lot decided as if it
were a bad one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from actors.lots import LotPlan, LotWork, decide_judge
from domain.bodies import Body
from domain.changes import EventType, Refused
from domain.codes import Code
from domain.custody import ActKind, ActState, Reason, Role
from domain.lines import NoteCarton, Receipt
from domain.places import DRAWN, Line, held, rejected, work
from ledger.lots import LotState, lots_of
from ledger.summary import summary
from ledger.verify import verify
from tests.ledger.building import SOCIAL, Building, factory_return, note, record
from tests.lines.custody import FIRST_PASSWORD, Office
from tests.lines.test_floor_acts import AtKeys
from tests.lines.test_stock import codes, counted

LOT = f"D1-102-{SOCIAL}"
MISSING = held(Line.SAMPLING)
HOW = LotPlan(lambda lot_id: lot_id.encode())


@dataclass
class Sampling:
    """A batch whose only lot is drawn from; two people who are storekeepers and inspectors."""

    b: Building
    office: Office

    @classmethod
    def of(cls, folder: Path, cards: int) -> Sampling:
        b = Building.make(folder, lots=HOW)
        records = [record(n) for n in range(1, cards + 1)]
        b.take_return(factory_return(records))
        b.take_note(note([NoteCarton("C1", "102", SOCIAL, cards, "")]))
        b.sign_for("D1", C1=cards)
        b.replace_keys_together("C1", records)
        b.inspect(at_once=500)
        b.sort()
        office = Office(folder, shared=b.ledger)
        office.settle()
        roles = (str(Role.STOREKEEPER), str(Role.OPERATOR), str(Role.INSPECTOR))
        for name in ("ou", "ouyang"):
            add = {"roles": roles, "password": FIRST_PASSWORD}
            assert office.both("sun", "su", ActKind.PEOPLE_ADD, name, **add).state == "done"
            office.come(name)
        office.lines[Line.SAMPLING] = AtKeys(b, line=Line.SAMPLING)
        office.lines[Line.SORTING] = b.sorting
        return cls(b, office)

    def drawn(self) -> list[Body]:
        return self.b.queries.bodies("b.place = ? order by b.body_id", DRAWN)

    def count(self, *there: Body) -> Receipt:
        return counted(self.b, DRAWN, *(x.order_id for x in there), line=Line.SAMPLING)

    def act(self, kind: ActKind, subject: str, reason: Reason) -> str:
        act = self.office.propose("ou", kind, subject, reason=str(reason))
        assert act.receipt.accepted, act.receipt
        return self.office.confirm("ouyang", act.acts[0].act_id).acts[0].state

    def lose(self, *lost: Body) -> None:
        """All other drawn cards are scanned; two people adjust by that."""
        there = [x for x in self.drawn() if x not in lost]
        receipt = self.count(*there)
        assert codes(receipt) == [(0, x.order_id, Code.STOCK_MISSING) for x in lost]
        assert self.act(ActKind.STOCK_ADJUST, receipt.reason, Reason.LOST) == ActState.DONE

    def find(self, *lost: Body) -> None:
        receipt = self.count(*self.drawn(), *lost)
        assert {r.code for r in receipt.refused} == {Code.STOCK_FOUND}
        assert self.act(ActKind.STOCK_ADJUST, receipt.reason, Reason.MISPLACED) == ActState.DONE

    def stands(self, body: Body) -> tuple[str, str]:
        (found,) = self.b.queries.bodies("b.body_id = ?", body.body_id)
        return found.place, found.condition

    def lot(self) -> tuple[LotState, int]:
        (lot,) = lots_of(self.b.queries, "B1")
        return lot.state, lot.nonconforming

    def results(self) -> Counter[tuple[str, str]]:
        rows = self.b.queries.rows("select result, reason from return_line where superseded_by = 0")
        return Counter((r["result"], r["reason"]) for r in rows)

    def finding(self) -> str:
        return verify(self.b.url, None, None).finding


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Sampling]:
    """25 cards, of which 20 are drawn and none may be wrong."""
    yield from _sampling(tmp_path, 25)


@pytest.fixture
def large(tmp_path: Path) -> Iterator[Sampling]:
    """281 cards, of which 80 are drawn and one may be wrong."""
    yield from _sampling(tmp_path, 281)


def _sampling(folder: Path, cards: int) -> Iterator[Sampling]:
    sampling = Sampling.of(folder, cards)
    yield sampling
    sampling.office.close()
    sampling.b.close()


def test_a_lost_card_is_a_bad_one_for_its_lot_and_comes_back_when_it_is_found(
    small: Sampling,
) -> None:
    """Nothing of the lot goes while it is only not read. Once two people have said that it is
    missing, the lot is decided without it, the return goes out, and two people release the
    rest; found again it is read as it was to be, and goes by itself."""
    lost = small.drawn()[7]
    small.lose(lost)
    assert small.stands(lost) == (MISSING, Code.STOCK_MISSING)
    small.b.sort()
    assert small.lot() == (LotState.DRAWN, 0)
    assert small.b.read_sample() == 19
    small.b.sort()
    assert small.lot() == (LotState.REFUSED, 1)
    assert small.results() == {("held", Code.LOT_REFUSED): 24, ("held", Code.STOCK_MISSING): 1}
    assert small.act(ActKind.LOT_RELEASE, LOT, Reason.CONCESSION) == ActState.DONE
    small.b.sort()
    assert small.results() == {("shipped", ""): 24, ("held", Code.STOCK_MISSING): 1}
    small.find(lost)
    assert small.stands(lost) == (DRAWN, "")
    small.b.sort()
    assert small.results()["shipped", ""] == 24
    assert small.b.read_sample() == 1
    small.b.sort()
    assert small.results() == {("shipped", ""): 25}
    assert summary(small.b.queries)["reconciled"]
    assert small.finding() == ""


@pytest.mark.parametrize(
    ("missing", "bad", "state"),
    [(1, 0, LotState.ACCEPTED), (1, 1, LotState.REFUSED), (2, 0, LotState.REFUSED)],
)
def test_lost_cards_and_bad_ones_count_together(
    large: Sampling, missing: int, bad: int, state: LotState
) -> None:
    """Against the plan's number. What was written off before the verdict counts too, and whatever
    a card is that is found after it, the verdict stands: it was counted as the worst."""
    first, *more = large.drawn()[-missing:]
    large.lose(first, *more)
    assert large.act(ActKind.CARD_SCRAP, first.body_id, Reason.LOST) == ActState.DONE
    assert large.stands(first) == (rejected(Line.SAMPLING), Code.SCRAPPED)
    large.b.read_sample(bad=bad)
    large.b.sort()
    assert large.lot() == (state, missing + bad)
    if more:
        large.find(*more)
        large.b.read_sample(bad=1)
        large.b.sort()
        assert large.lot() == (state, missing + bad)
    assert summary(large.b.queries)["reconciled"]
    assert large.finding() == ""


def test_of_a_lot_that_is_read_whole_a_lost_card_keeps_no_other(small: Sampling) -> None:
    """Every card of a refused lot is drawn: the rest goes when it was read, the lost one when it
    is found, or never."""
    small.b.read_sample(bad=1)
    small.b.sort()
    assert small.act(ActKind.LOT_INSPECT, LOT, Reason.NONCONFORMING) == ActState.DONE
    small.b.sort()
    lost = small.drawn()[0]
    small.lose(lost)
    assert small.b.read_sample() == 23
    small.b.sort()
    assert small.results()["shipped", ""] == 23
    small.find(lost)
    small.b.read_sample()
    small.b.sort()
    assert small.results() == {("shipped", ""): 24, ("rejected", Code.DATA_DIFFERS): 1}
    assert small.finding() == ""


@pytest.mark.usefixtures("each_database")
def test_a_card_found_while_its_lot_is_judged_is_read_first(small: Sampling) -> None:
    """The verdict that counts it as missing is refused by the ledger, whoever is faster."""
    lost = small.drawn()[0]
    small.lose(lost)
    small.b.read_sample()
    verdict = LotWork(small.b.queries, HOW).next("B1", "late")
    assert verdict is not None
    small.find(lost)
    with pytest.raises(Refused):
        small.b.commit(verdict)
    small.b.sort()
    assert small.lot() == (LotState.DRAWN, 0)
    small.b.read_sample()
    small.b.sort()
    assert small.lot() == (LotState.ACCEPTED, 0)
    assert small.finding() == ""


def test_an_act_that_died_half_way_is_finished_by_its_line(small: Sampling) -> None:
    """The sampling line is away when two people adjust: it sets the card apart when it is back."""
    here = small.office.lines.pop(Line.SAMPLING)
    lost = small.drawn()[0]
    receipt = small.count(*small.drawn()[1:])
    waits = small.act(ActKind.STOCK_ADJUST, receipt.reason, Reason.LOST)
    assert (waits, small.stands(lost)) == (ActState.CONFIRMED, (DRAWN, ""))
    small.office.lines[Line.SAMPLING] = here
    small.office.step()
    assert small.stands(lost) == (MISSING, Code.STOCK_MISSING)
    assert small.finding() == ""


def test_a_verdict_without_the_missing_card_is_found(small: Sampling) -> None:
    """A faulty line could leave it out; verification does not."""
    small.lose(small.drawn()[0])
    small.b.read_sample()
    (lot,) = lots_of(small.b.queries, "B1")
    small.b.commit(decide_judge("x1", lot, 0))
    assert "missing of the sample" in small.finding()


def test_a_card_that_was_not_drawn_is_not_missing_of_a_sample(small: Sampling) -> None:
    """Nobody can have a lot refused by a card of another."""
    writing = small.b.writing(Line.SORTING)
    other = small.b.queries.bodies("b.place = ?", work(Line.SORTING))[0]
    writing.change(other, EventType.SAMPLE_MISSING, {"lot_id": LOT})
    small.b.commit(writing)
    assert "not of the sample" in small.finding()
