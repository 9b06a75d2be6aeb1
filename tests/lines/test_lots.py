"""Inspection lots: nothing is packed before its lot's sample was read again and accepted."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from actors.lots import LotPlan
from domain.changes import EventType
from domain.codes import Code
from domain.lines import NoteCarton, OrderAct, RefusedRecord
from domain.places import DRAWN, Line
from domain.sampling import plan
from ledger.lots import LotState, draw, lots_of
from ledger.summary import branch_table, summary
from ledger.verify import verify
from tests.ledger.building import (
    REPLACED,
    SOCIAL,
    TEMPORARY,
    Building,
    Killed,
    factory_return,
    note,
    record,
)

pytestmark = pytest.mark.usefixtures("each_database")

CARDS = 30
"""Of which AQL 0.65 draws 20."""


def seed_of(lot_id: str) -> bytes:
    return lot_id.encode().ljust(32, b".")


@pytest.fixture
def b(tmp_path: Path) -> Iterator[Building]:
    building = Building.make(tmp_path, lots=LotPlan(seed_of))
    yield building
    building.close()
    report = verify(building.url, None, None)
    assert report.ok, report.finding


def inspected(b: Building, cards: int = CARDS) -> None:
    """A batch of one delivery: `cards` social cards of one bank, two of another, a temporary."""
    records = [record(n) for n in range(1, cards + 1)]
    others = [
        record(n, bank="105", branch="105-430102", carton="C2") for n in range(cards + 1, cards + 3)
    ]
    b.take_return(factory_return([*records, *others]))
    b.take_note(
        note(
            [
                NoteCarton("C1", "102", SOCIAL, cards, ""),
                NoteCarton("C2", "105", SOCIAL, 2, ""),
                NoteCarton("T1", "102", TEMPORARY, 1, "430102"),
            ]
        )
    )
    b.sign_for("D1", C1=cards, C2=2, T1=1)
    b.replace_keys_together("C1", records)
    b.replace_keys_together("C2", others)
    b.replace_keys("T1", 900)
    b.inspect(at_once=500)


def states(b: Building) -> dict[str, LotState]:
    return {lot.lot_id: lot.state for lot in lots_of(b.queries, "B1")}


def results(b: Building) -> Counter[tuple[str, str]]:
    rows = b.queries.rows("select result, reason from return_line where superseded_by = 0")
    return Counter((r["result"], r["reason"]) for r in rows)


def test_a_card_that_comes_late_is_not_drawn_from_a_lot_that_stands(b: Building) -> None:
    """A correction takes its card back when the lot is presented and not drawn yet: the draw is
    the one that whoever knows the seed does again, and the card still goes."""
    late, records = record(90), [record(n) for n in range(1, CARDS + 1)]
    refused = RefusedRecord(
        90, late.order_id, "name", Code.BAD_FORMAT, "bad", "102", "C1", late.identification_code
    )
    b.take_return(factory_return(records, [refused]))
    b.take_note(note([NoteCarton("C1", "102", SOCIAL, CARDS + 1, "")]))
    b.sign_for("D1", C1=CARDS + 1)
    b.replace_keys_together("C1", records[:19])
    b.set_apart("C1", Code.BAD_FORMAT, 90)  # the one that the seed would draw first
    b.replace_keys_together("C1", records[19:])
    b.inspect(at_once=500)
    while not states(b):
        asyncio.run(b.sorting.step())
    assert set(states(b).values()) == {LotState.PRESENTED}
    b.take_correction(replace(factory_return([late], file_id="F2"), corrects="F1"))
    ((body, order_id),) = b.queries.advised_since(10)
    writing = b.writing(Line.KEY_REPLACEMENT)
    b.cartons.load([])
    b.cartons.take_back(writing, body, order_id)
    b.commit(writing)
    b.sort()
    assert set(states(b).values()) == {LotState.PRESENTED}
    (body,) = b.queries.bodies("b.body_id = ?", body.body_id)
    writing = b.writing(Line.KEY_REPLACEMENT)
    body = b.release(writing, body, 90, order_id, late.branch_code)
    writing.change(body, EventType.KEYS_REPLACED, {"station": "S1"}, place=REPLACED)
    b.commit(writing)
    b.inspect()
    b.sort()
    drawn = b.queries.bodies("b.place = ?", DRAWN)
    assert len(drawn) == 20
    assert body.body_id not in {x.body_id for x in drawn}
    everybody = [x.body_id for x in b.queries.bodies("true")]
    (lot,) = lots_of(b.queries, "B1")
    assert draw(everybody, 1, bytes.fromhex(lot.seed)) == [body.body_id]
    assert b.read_sample() == 20
    b.sort()
    assert results(b) == {("shipped", ""): CARDS + 1}


def test_a_lot_is_one_bank_and_kind_and_its_sample_can_be_drawn_again(b: Building) -> None:
    """Seed and plan are on record in a commit before the one that draws; who has the record
    draws the same cards."""
    inspected(b)
    b.sort()
    lots = {lot.lot_id: lot for lot in lots_of(b.queries, "B1")}
    assert {i: lot.size for i, lot in lots.items()} == {
        f"D1-102-{SOCIAL}": CARDS,
        f"D1-105-{SOCIAL}": 2,
        f"D1-102-{TEMPORARY}": 1,
    }
    (presented,) = b.queries.rows(
        "select max(number) as last from event where type = 'lot_presented'"
    )
    drawn_in = b.queries.rows("select min(number) as first from event where type = 'body_drawn'")
    assert presented["last"] < drawn_in[0]["first"]
    for lot in lots.values():
        drawn = b.queries.rows(
            "select body_id from event where type = 'body_drawn' and data->>'lot_id' = ?",
            lot.lot_id,
        )
        carton = {"105": "C2"}.get(lot.bank, "T1" if lot.kind == TEMPORARY else "C1")
        members = [f"{carton}.{n:04d}" for n in range(1, lot.size + 1)]
        again = draw(members, plan(lot.size).sample_size, bytes.fromhex(lot.seed))
        assert {r["body_id"] for r in drawn} == set(again)
        assert bytes.fromhex(lot.seed) == seed_of(lot.lot_id)


def test_a_sample_that_does_not_come_back_keeps_no_other_lot_waiting(b: Building) -> None:
    """The other lots are judged, packed and shipped, and a refused one is held; of the waiting lot
    nothing leaves, and the return is not written, until its sample was read."""
    inspected(b)
    b.sort()
    stuck, others = f"D1-102-{SOCIAL}", {f"D1-105-{SOCIAL}", f"D1-102-{TEMPORARY}"}
    assert b.read_sample(bad=1, of=("C2", "T1")) == 3
    b.sort()
    b.sort()
    found = states(b)
    assert found.pop(stuck) is LotState.DRAWN
    assert found.keys() == others
    assert set(found.values()) == {LotState.ACCEPTED, LotState.REFUSED}
    totals = summary(b.queries)
    assert (totals["shipped"], totals["held"], totals["rejected"]) == (1, 1, 1)
    assert (totals["in_work"], totals["reconciled"]) == (CARDS, True)
    assert b.queries.rows("select * from return_line") == []
    b.read_sample()
    b.sort()
    assert states(b)[stuck] is LotState.ACCEPTED
    assert results(b)["shipped", ""] == CARDS + 1


def test_nothing_is_packed_while_a_drawn_card_was_not_read(b: Building) -> None:
    """The batch waits; when the samples are read it is packed whole, sample and rest together."""
    inspected(b)
    b.sort()
    assert b.queries.rows("select * from package") == []
    assert set(states(b).values()) == {LotState.DRAWN}
    assert summary(b.queries)["in_work"] == CARDS + 3
    assert b.read_sample() == 20 + 2 + 1
    b.sort()
    assert set(states(b).values()) == {LotState.ACCEPTED}
    totals = summary(b.queries)
    assert (totals["shipped"], totals["in_work"], totals["reconciled"]) == (CARDS + 3, 0, True)
    packages = sorted(b.queries.packages("true"), key=lambda p: (p["bank"], p["kind"]))
    assert [p["count"] for p in packages] == [CARDS, 1, 2]


def test_a_refused_lot_is_held_whole_and_the_others_go(b: Building) -> None:
    """One card too many in the sample: it is rejected for what is wrong with it, the rest of its
    lot held for the lot; another bank's lot ships. Summary and return show it."""
    inspected(b)
    b.sort()
    assert b.read_sample(bad=1) == 23
    b.sort()
    assert states(b)[f"D1-102-{SOCIAL}"] is LotState.REFUSED
    totals = summary(b.queries)
    assert (totals["held"], totals["rejected"], totals["shipped"]) == (CARDS - 1, 1, 3)
    assert totals["reconciled"]
    assert totals["in_work"] == 0
    assert results(b) == {
        ("held", Code.LOT_REFUSED): CARDS - 1,
        ("rejected", Code.DATA_DIFFERS): 1,
        ("shipped", ""): 3,
    }
    (row,) = [r for r in branch_table(b.queries, "B1") if r["branch"] == "102-430102"]
    assert (row["held"], row["rejected"], row["shipped"]) == (CARDS - 1, 1, 0)
    (lot,) = [lot for lot in lots_of(b.queries, "B1") if lot.state is LotState.REFUSED]
    assert lot.nonconforming == 1


@pytest.mark.parametrize(("bad", "state"), [(1, LotState.ACCEPTED), (2, LotState.REFUSED)])
def test_a_larger_lot_may_have_one(b: Building, bad: int, state: LotState) -> None:
    """281 cards: code letter H, whose arrow leads to J: 80 cards, one may be wrong, not two."""
    inspected(b, cards=281)
    b.sort()
    assert b.read_sample(bad=bad) == 83
    b.sort()
    assert states(b)[f"D1-102-{SOCIAL}"] is state
    totals = summary(b.queries)
    assert (totals["rejected"], totals["in_work"], totals["reconciled"]) == (bad, 0, True)
    assert totals["shipped"] == (283 if state is LotState.ACCEPTED else 3)


def test_two_deliveries_of_a_batch_are_two_lots(b: Building) -> None:
    """A lot is what came together: cards of a later delivery are not accepted by the sample of
    an earlier one, even if they come when that one is out to be read."""
    inspected(b)
    b.sort()
    b.take_note(note([NoteCarton("C3", "102", SOCIAL, 1, "")], delivery_id="D2", digest="n2"))
    b.read_sample()
    b.sort()
    assert b.queries.rows("select * from package") == []
    b.sign_for("D2", C3=1)
    b.replace_keys("C3", 800)
    b.inspect()
    b.sort()
    assert states(b)[f"D2-102-{SOCIAL}"] is LotState.DRAWN
    assert b.read_sample() == 1
    b.sort()
    assert set(states(b).values()) == {LotState.ACCEPTED}
    assert summary(b.queries)["in_work"] == 0


def test_it_goes_on_after_each_of_its_commits(b: Building) -> None:
    """Killed after every commit: each lot is presented, drawn and judged once, by one seed."""
    inspected(b)
    kills = 0
    for bad in (0, 1):
        while True:
            b.doors["sorting"].cut = 1
            try:
                b.sort()
                break
            except Killed:
                kills += 1
                b.restart()
        b.doors["sorting"].cut = None
        if bad == 0:
            b.read_sample(bad=1)
    # sorted, presented, drawn; 3 judged, held; 2 opened, closed, shipped; returned
    assert kills == 3 + 4 + 2 * 3 + 1
    kinds = Counter(
        (r["type"], json.loads(r["data"])["lot_id"])
        for r in b.queries.rows(
            "select type, data from event where type in ('lot_presented', 'sample_drawn')"
        )
    )
    assert set(kinds.values()) == {1}
    assert len(kinds) == 6
    assert b.queries.bodies("b.place = ?", DRAWN) == []
    assert results(b)["held", Code.LOT_REFUSED] == CARDS - 1


def test_without_a_plan_for_lots_nothing_is_drawn(tmp_path: Path) -> None:
    """A floor without the sampling stage packs what is complete."""
    building = Building.make(tmp_path)
    inspected(building)
    building.sort()
    assert lots_of(building.queries, "B1") == []
    assert summary(building.queries)["shipped"] == CARDS + 3
    building.close()


def test_orders_are_stopped_beside_their_lot(b: Building) -> None:
    """One on hold before its lot was presented is not of it, and released it is not drawn, and
    goes with the lot all the same; cancelled ones are passed over, or set apart when they come
    back from being read again."""
    inspected(b)
    b.orders(OrderAct.HOLD, "K1", "B1-000001", "B1-000002")
    while not states(b):
        asyncio.run(b.sorting.step())
    sizes = {lot.lot_id: lot.size for lot in lots_of(b.queries, "B1")}
    assert sizes[f"D1-102-{SOCIAL}"] == CARDS - 2
    b.orders(OrderAct.RELEASE, "K2", "B1-000001")
    b.orders(OrderAct.CANCEL, "K3", "B1-000003")
    b.sort()
    drawn = {x.order_id for x in b.queries.bodies("b.place = ? and b.bank = '102'", DRAWN)}
    assert not drawn & {"B1-000001", "B1-000002", "B1-000003"}
    late = max(drawn)
    assert b.orders(OrderAct.CANCEL, "K4", late).taken == 1
    b.read_sample()
    b.sort()
    b.orders(OrderAct.CANCEL, "K5", "B1-000002")
    b.sort()
    assert results(b) == {("shipped", ""): CARDS + 3 - 3, ("cancelled", Code.CANCELLED): 3}
    assert b.queries.one(
        "select 1 as n from body where order_id = 'B1-000001' and package_id <> ''"
    )
