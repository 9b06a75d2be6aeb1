"""Corrections: a record that was refused comes again, right, and finds its surplus body wherever
that is. In the end everything is as if the return had been right at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from actors.inventory import Inventory
from actors.sorting import Sorting
from counterparts.factory import Delivery
from counterparts.faults import Fault
from domain.changes import Changes, Committed, Refused
from domain.codes import Code
from domain.lines import FactoryReturn, NoteCarton, RefusedRecord, SealedRecord
from domain.places import Line
from domain.turns import Verdict
from ledger.history import body_history
from ledger.summary import summary
from ledger.verify import verify
from tests.ledger.building import (
    SOCIAL,
    Building,
    Door,
    Killed,
    factory_return,
    note,
    record,
)
from tests.lines.small_floor import Chip, SmallFloor, Station, records_of, seal_records

GOOD = [record(n) for n in range(1, 6)]
LATE = [record(n) for n in (90, 91)]
COUNTS = ("advised", "surplus", "received", "missing", "held", "in_work")


def refusal(r: SealedRecord, code: str = Code.BAD_CHECK_DIGIT, **other: str) -> RefusedRecord:
    named = {"order_id": r.order_id, "identification_code": r.identification_code} | other
    return RefusedRecord(
        r.record_number, named["order_id"], "bank_card_number", code, "bad", r.bank_code,
        r.carton_id, named["identification_code"],
    )  # fmt: skip


REFUSED = [refusal(r) for r in LATE]


def correction(
    records: list[SealedRecord], refused: list[RefusedRecord] | None = None, file_id: str = "F2"
) -> FactoryReturn:
    return replace(factory_return(records, refused or [], file_id=file_id), corrects="F1")


@pytest.fixture
def b(tmp_path: Path) -> Iterator[Building]:
    """An empty centre; whatever a test did, its ledger fits in the end."""
    building = Building.make(tmp_path)
    yield building
    building.close()
    report = verify(building.url, None, None)
    assert report.ok, report.finding


def counts(b: Building) -> list[int]:
    whole, batch = summary(b.queries), summary(b.queries, "B1")
    assert whole["reconciled"]
    assert [whole[n] for n in COUNTS] == [batch[n] for n in COUNTS]
    return [whole[n] for n in COUNTS]


def take_back(b: Building) -> int:
    """As the key replacement line's `step`."""
    found = b.queries.advised_since(100)
    if found:
        b.cartons.load([])
        writing = b.writing(Line.KEY_REPLACEMENT)
        for body, order_id in found:
            b.cartons.take_back(writing, body, order_id)
        b.commit(writing)
    return len(found)


def corrected_by(b: Building) -> dict[int, str]:
    rows = b.queries.rows("select record_number, corrected_by from refused_record")
    return {r["record_number"]: r["corrected_by"] for r in rows}


@pytest.mark.parametrize("corrected", [1, 2])
@pytest.mark.parametrize("moment", ["before the cards", "before they are read", "afterwards"])
@pytest.mark.parametrize("counted", [5, 6, 7, 8, 9])
def test_in_the_end_the_return_was_right_at_once(
    b: Building, tmp_path_factory: pytest.TempPathFactory, counted: int, moment: str, corrected: int
) -> None:
    """Whenever the correction comes and whatever was counted, with a card beside that no return
    names: the same numbers, to the card, as if its records had stood in the return."""
    right = Building.make(tmp_path_factory.mktemp("right"))
    right.take_return(factory_return([*GOOD, *LATE[:corrected]], REFUSED[corrected:]))
    late = correction(LATE[:corrected])

    def read_strangers(centre: Building, strangers: list[SealedRecord]) -> None:
        for r in strangers:
            centre.set_apart("C1", Code.BAD_CHECK_DIGIT, r.record_number)
        centre.set_apart("C1", Code.NOT_IN_RETURN, 99)

    b.take_return(factory_return(GOOD, REFUSED))
    if moment == "before the cards":
        assert b.take_correction(late).taken == corrected
    for centre in (b, right):
        centre.take_note(note([NoteCarton("C1", "102", SOCIAL, 7, "")]))
        centre.sign_for("D1", C1=counted)
    b.replace_keys("C1", 1, GOOD[0].order_id, "102-430102")  # the line knows the carton
    right.replace_keys("C1", 1, GOOD[0].order_id, "102-430102")
    if moment == "before they are read":
        b.take_correction(late)
    read_strangers(b, LATE if moment == "afterwards" else LATE[corrected:])
    read_strangers(right, LATE[corrected:])
    if moment == "afterwards":
        b.take_correction(late)
        assert summary(b.queries)["reconciled"]
        assert take_back(b) == corrected
    assert take_back(b) == 0
    assert counts(b) == counts(right)
    right.close()


def test_a_refused_record_keeps_what_corrected_it(b: Building) -> None:
    """By order id, or by identification code if that was all that could be read; what earlier
    corrections tried in vain is settled with it, and the history of the card tells all of it."""
    refused = [REFUSED[0], refusal(LATE[1], order_id="")]
    b.take_return(factory_return(GOOD, refused))
    again = replace(REFUSED[0], record_number=7, field="name", code=Code.BAD_FORMAT)
    first = b.take_correction(correction([LATE[1]], [again]))
    assert (first.accepted, first.taken, [r.code for r in first.refused]) == (
        True, 1, [Code.BAD_FORMAT],
    )  # fmt: skip
    assert corrected_by(b) == {90: "", 91: "F2", 7: ""}
    assert b.take_correction(correction([LATE[0]], file_id="F3")).taken == 1
    assert corrected_by(b) == {90: "F3", 91: "F2", 7: "F3"}
    words = [step.words for step in body_history(b.queries, LATE[0].order_id)]
    assert sum("已更正" in w for w in words) == 2


def test_a_misread_order_id_is_found_by_the_chip_though_a_correction_failed(b: Building) -> None:
    """The return had another order id; the first correction has the right one and another fault,
    so the second is like that one by order id, and like the refused record by chip alone."""
    b.take_return(factory_return(GOOD, [refusal(LATE[0], order_id="misread"), REFUSED[1]]))
    again = replace(REFUSED[0], record_number=7, field="name", code=Code.BAD_FORMAT)
    assert b.take_correction(correction([LATE[1]], [again])).taken == 1
    assert b.take_correction(correction([LATE[0]], file_id="F3")).taken == 1
    assert corrected_by(b) == {90: "F3", 91: "F2", 7: "F3"}


def test_a_record_that_could_not_be_read_at_all_can_be_sent_again(b: Building) -> None:
    """It has no name by which another could be like it: as many as there are, and no more."""
    nameless = RefusedRecord(6, "", "", Code.BAD_FORMAT, "bad")
    b.take_return(factory_return(GOOD, [REFUSED[0], nameless]))
    receipt = b.take_correction(correction([record(50), LATE[0], record(51)]))
    assert (receipt.taken, [r.record_number for r in receipt.refused]) == (2, [51])
    assert corrected_by(b) == {90: "F2", 6: "F2", 51: ""}


@pytest.mark.parametrize("together", [True, False])
def test_two_records_whose_chips_were_swapped_are_corrected(b: Building, together: bool) -> None:
    """Each names the chip of the other's refused record: the order id decides, and only what no
    order id is like is found by its chip. In one file, or one after the other."""
    b.take_return(factory_return(GOOD, REFUSED))
    first, second = LATE
    swapped = [
        replace(first, identification_code=second.identification_code),
        replace(second, identification_code=first.identification_code),
    ]
    if together:
        assert b.take_correction(correction(swapped)).taken == 2
    else:
        assert b.take_correction(correction(swapped[:1])).taken == 1
        assert corrected_by(b) == {90: "F2", 91: ""}
        assert b.take_correction(correction(swapped[1:], file_id="F3")).taken == 1
    assert corrected_by(b) == {90: "F2", 91: "F2" if together else "F3"}


@dataclass
class Overtaken:
    """A line's door; what another line does reaches the ledger just before the commit."""

    door: Door
    meanwhile: Callable[[], Awaitable[object]] | None

    async def commit(self, changes: Changes) -> Committed:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            await meanwhile()
        return await self.door.commit(changes)

    async def reclaim(self) -> bool:
        return await self.door.reclaim()


def all_but_the_return(b: Building) -> None:
    b.take_return(factory_return(GOOD[:1], REFUSED))
    b.take_note(note([NoteCarton("C1", "102", SOCIAL, 2, "")]))
    b.sign_for("D1", C1=2)
    b.replace_keys("C1", 1, GOOD[0].order_id, "102-430102")
    b.set_apart("C1", Code.BAD_CHECK_DIGIT, 90)
    b.inspect()
    b.sort_unscanned()
    b.scan_packages()
    asyncio.run(b.sorting.step())  # shipped
    assert not b.queries.is_closed("B1")


def test_a_correction_that_overtakes_the_return_keeps_the_batch_open(b: Building) -> None:
    """The return was decided upon without it: it is refused, and waits for the card."""
    all_but_the_return(b)
    door = Overtaken(
        b.doors[Line.SORTING], lambda: b.inventory.accept_correction(correction(LATE[:1]))
    )
    with pytest.raises(Refused, match="GUARD_FAILED"):
        asyncio.run(Sorting(door, b.queries, "o").step())
    b.sort()
    assert not b.queries.is_closed("B1")
    assert take_back(b) == 1


def test_a_return_that_overtakes_the_correction_leaves_it_what_is_here(b: Building) -> None:
    """It was decided upon while the batch was open: refused. When it comes again, the record whose
    card is held is taken, and that of a card which never came is told so."""
    all_but_the_return(b)
    door = Overtaken(b.doors[Line.INVENTORY], b.sorting.step)
    inventory = Inventory(door, b.queries)
    with pytest.raises(Refused, match="GUARD_FAILED"):
        asyncio.run(inventory.accept_correction(correction(LATE)))
    receipt = asyncio.run(inventory.accept_correction(correction(LATE)))
    assert receipt.taken == 1
    assert [(r.record_number, r.code) for r in receipt.refused] == [(91, Code.BATCH_CLOSED)]
    assert take_back(b) == 1


def test_a_correction_makes_no_card_counted(b: Building) -> None:
    """A card beyond the count stays held, whatever the return says: its order is missing until the
    carton is counted again, and stands once in the centre return."""
    b.take_return(factory_return(GOOD[:1], REFUSED[:1]))
    b.take_note(note([NoteCarton("C1", "102", SOCIAL, 2, "")]))
    b.sign_for("D1", C1=1)
    b.replace_keys("C1", 1, GOOD[0].order_id, "102-430102")
    b.set_apart("C1", Code.BAD_CHECK_DIGIT, 90)
    b.take_correction(correction(LATE[:1]))
    assert take_back(b) == 0
    b.inspect()
    b.sort()
    lines = b.queries.rows("select order_id, result, reason from return_line order by position")
    assert [tuple(r.values()) for r in lines] == [
        (GOOD[0].order_id, "shipped", ""),
        (LATE[0].order_id, "missing", Code.NOT_DELIVERED),
        ("", "surplus", Code.OVER_COUNT),
    ]


def test_what_corrects_nothing_is_refused(b: Building) -> None:
    """Record by record, beside good ones; a record that was taken is a repeated number. A file of
    nothing else, or for another return, leaves no trace. A second record for one card too."""
    b.take_return(factory_return(GOOD, REFUSED))
    whole = b.take_correction(replace(correction(LATE), corrects="F9"))
    assert (whole.accepted, whole.code) == (False, Code.NOTHING_TO_CORRECT)
    stranger, twin = record(50), replace(record(51), order_id=LATE[0].order_id)
    nothing = b.take_correction(correction([stranger], file_id="F4"))
    assert (nothing.accepted, nothing.code) == (False, Code.NOTHING_TAKEN)
    assert [r.code for r in nothing.refused] == [Code.NOTHING_TO_CORRECT]
    mixed = b.take_correction(correction([LATE[0], twin, stranger, GOOD[0]]))
    assert (mixed.records, mixed.taken) == (4, 1)
    assert [(r.record_number, r.code) for r in mixed.refused] == [
        (1, Code.REPEATED_NUMBER),
        (50, Code.NOTHING_TO_CORRECT),
        (51, Code.NOTHING_TO_CORRECT),
    ]
    assert all(r.reason for r in mixed.refused)
    again = b.take_correction(correction([stranger], file_id="F5"))
    assert (again.accepted, again.code) == (False, Code.NOTHING_TAKEN)


def test_a_correction_takes_effect_once(b: Building) -> None:
    """The line is killed after its commit: the same file has the first answer. Its id is not that
    of a return any more, nor the other way round."""
    b.take_return(factory_return(GOOD, REFUSED))
    b.doors[Line.INVENTORY].cut = 1
    with pytest.raises(Killed):
        b.take_correction(correction(LATE[:1]))
    commits = b.queries.one("select count(*) as n from commit_link")
    b.restart()
    again = b.take_correction(correction(LATE[:1]))
    assert (again.accepted, again.repeated, again.taken) == (True, True, 1)
    assert b.take_return(factory_return(GOOD, REFUSED)).repeated
    for receipt in (
        b.take_return(factory_return(LATE, file_id="F2")),
        b.take_correction(correction(LATE, file_id="F1")),
    ):
        assert (receipt.accepted, receipt.code) == (False, Code.ID_REUSED)
    assert b.queries.one("select count(*) as n from commit_link") == commits


def test_a_held_body_goes_through_to_the_courier(floor: SmallFloor) -> None:
    """Its record named a bank that is none; read, held, corrected, taken back, fed again: shipped,
    with one line in the centre return. Until then the batch stays open."""
    delivery = floor.deliver(seed=21, cards=70)
    (planted,) = delivery.planted(Fault.UNKNOWN_BANK)
    chips = floor.chips(delivery)
    chip = next(c for c in chips if c.plastic.card_id == planted["card"])

    async def sort() -> int:
        while await floor.sort():
            pass
        lines = "select count(*) as n from return_line where batch_id = ?"
        found = floor.queries.one(lines, delivery.batch_id)
        assert found is not None
        return int(found["n"])

    async def run(last: Chip) -> None:
        for c in chips:
            await Station(floor).run(c)
        assert last.stack == "held"
        sent = await corrected(floor, delivery, planted["order_id"])
        before = summary(floor.queries, delivery.batch_id)
        assert (await floor.inventory.accept_correction(sent)).taken == 1
        assert await sort() == 0
        assert await floor.replacement.step()
        assert not await floor.replacement.step()
        assert await sort() == 0
        after = summary(floor.queries, delivery.batch_id)
        assert (after["held"], after["in_work"]) == (before["held"] - 1, before["in_work"] + 1)
        assert after["advised"] == before["advised"] + 1
        floor.restart_lines()
        assert await Station(floor).run(last) == Verdict("", "good", "OK")
        assert await sort() > 0
        late = replace(sent, file_id="LATE")
        assert (await floor.inventory.accept_correction(late)).code == Code.NOTHING_TAKEN

    asyncio.run(run(chip))
    lines = floor.queries.rows(
        "select result, package_id from return_line where order_id = ?", planted["order_id"]
    )
    assert [r["result"] for r in lines] == ["shipped"]
    assert lines[0]["package_id"]
    assert summary(floor.queries)["reconciled"]
    report = verify(floor.place / "ledger.db", None, None)
    assert report.ok, report.finding


async def corrected(floor: SmallFloor, delivery: Delivery, order_id: str) -> FactoryReturn:
    """A correction with the record of this order, now with the bank of its carton."""
    wrong = next(r for r in records_of(delivery) if r.order_id == order_id)
    carton = floor.queries.carton(wrong.carton_id)
    assert carton is not None
    branch = carton.bank + wrong.branch_code[3:]
    good = replace(wrong, bank_code=carton.bank, branch_code=branch)
    return await seal_records([good], "F2", delivery.batch_id, floor.keys, delivery.file_id)
