"""Inventory and key replacement decide on the same numbers of a group: whatever comes when, what
strangers stand for is settled, and of two that decide at once the second decides anew."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.hsm.carton_work import CartonWork
from actors.inventory import Inventory
from domain.bodies import Writing
from domain.changes import Refused
from domain.codes import UNADVISED, Code
from domain.lines import NoteCarton
from domain.places import Line
from ledger.summary import summary
from ledger.verify import verify
from tests.ledger.building import SOCIAL, Building, code_of, factory_return, note, record
from tests.lines.test_corrections import GOOD, LATE, REFUSED, Overtaken, correction, take_back

pytestmark = pytest.mark.usefixtures("each_database")

NUMBERS = ("advised", "surplus", "received", "missing")


@pytest.fixture
def b(tmp_path: Path) -> Iterator[Building]:
    """An empty centre; whatever a test did, its ledger fits in the end."""
    building = Building.make(tmp_path)
    yield building
    building.close()
    report = verify(building.url, None, None)
    assert report.ok, report.finding


def numbers(b: Building) -> list[int]:
    whole, batch = summary(b.queries), summary(b.queries, "B1")
    assert whole["reconciled"]
    assert batch["reconciled"]
    assert [whole[n] for n in NUMBERS] == [batch[n] for n in NUMBERS]
    return [whole[n] for n in NUMBERS]


def returned(b: Building) -> tuple[int, int]:
    """Surplus and missing, as the lines of the centre return tell them."""
    assert b.queries.is_closed("B1")
    lines = b.queries.rows("select result, reason from return_line")
    held = sum(r["result"] == "held" and r["reason"] in UNADVISED for r in lines)
    results = [r["result"] for r in lines]
    return results.count("surplus") + held, results.count("missing") + held


def delivered(b: Building, counted: int) -> None:
    b.take_note(note([NoteCarton("C1", "102", SOCIAL, 6, "")]))
    b.sign_for("D1", C1=counted)


def read(b: Building, carton: str, numbers: range) -> None:
    for n in numbers:
        b.replace_keys(carton, n, record(n).order_id, "102-430102")


def stranger(b: Building, number: int = 77) -> Writing:
    """Key replacement sets a card apart that no return names; not committed yet."""
    b.cartons = CartonWork(b.queries)
    b.cartons.load(["C1"], ["C1"])
    writing = b.writing(Line.KEY_REPLACEMENT)
    b.cartons.set_apart(
        writing, "C1", Code.NOT_IN_RETURN, None, identification_code=code_of(number),
        order_id="", ticket="", station="S1",
    )  # fmt: skip
    return writing


def test_a_recount_that_overtakes_key_replacement_refuses_it(b: Building) -> None:
    """A card is taken back, or set apart, by numbers that a recount has changed meanwhile: refused,
    and decided anew by the new ones."""
    b.take_return(factory_return(GOOD, REFUSED[:1]))
    delivered(b, 5)
    read(b, "C1", range(1, 4))
    b.set_apart("C1", Code.BAD_CHECK_DIGIT, 90)
    b.take_correction(correction(LATE[:1]))
    assert numbers(b) == [6, 1, 5, 2]
    ((body, order_id),) = b.queries.advised_since(10)
    b.cartons.load([])
    back = b.writing(Line.KEY_REPLACEMENT)
    b.cartons.take_back(back, body, order_id)
    assert b.recount("C1", 6).accepted
    with pytest.raises(Refused, match="settled_group"):
        b.commit(back)
    apart = stranger(b)
    assert b.recount("C1", 7).accepted
    with pytest.raises(Refused, match="settled_group"):
        b.commit(apart)
    assert take_back(b) == 1
    b.commit(stranger(b))
    assert numbers(b) == [6, 1, 7, 0]


@pytest.mark.parametrize("command", ["recount", "sign for", "note", "correct"])
def test_key_replacement_that_overtakes_inventory_refuses_it(b: Building, command: str) -> None:
    """The same the other way round, for each command that changes what was advised or counted."""
    b.take_return(factory_return(GOOD, REFUSED[:1]))
    delivered(b, 5)
    if command == "sign for":
        b.take_note(note([NoteCarton("C2", "102", SOCIAL, 1, "")], delivery_id="D2"))
    read(b, "C1", range(1, 5))

    async def overtake() -> None:
        await b.doors[Line.KEY_REPLACEMENT].commit(stranger(b).changes())

    def run() -> bool:
        if command == "recount":
            return b.recount("C1", 7).accepted
        if command == "sign for":
            return b.sign_for("D2", C2=2).accepted
        if command == "correct":
            return b.take_correction(correction(LATE[:1])).accepted
        return b.take_note(
            note([NoteCarton("C2", "102", SOCIAL, 1, "")], delivery_id="D2")
        ).accepted

    b.inventory = Inventory(Overtaken(b.doors[Line.INVENTORY], overtake), b.queries)
    if command == "note":  # of social cards it advises and counts none
        assert run()
    else:
        with pytest.raises(Refused, match="settled_group"):
            run()
        assert run()
    expected = {"recount": [5, 2, 7, 0], "sign for": [5, 2, 7, 0], "note": [5, 1, 5, 1],
                "correct": [6, 1, 5, 2]}  # fmt: skip
    assert numbers(b) == expected[command]


def test_a_stranger_stands_for_the_card_that_a_correction_advises(b: Building) -> None:
    """It was surplus by count until the return had a record more, whose card never comes."""
    b.take_return(factory_return(GOOD, REFUSED[:1]))
    delivered(b, 6)
    read(b, "C1", range(1, 6))
    b.commit(stranger(b))
    assert numbers(b) == [5, 1, 6, 0]
    b.take_correction(correction(LATE[:1]))
    assert numbers(b) == [6, 1, 6, 1]
    b.inspect()
    b.sort()
    assert returned(b) == (1, 1)


def test_a_stranger_stands_for_nothing_once_another_delivery_has_the_cards(b: Building) -> None:
    """It stood for a missing card until the second delivery was counted, which has them all."""
    b.take_return(factory_return([record(n) for n in range(1, 7)]))
    delivered(b, 5)
    read(b, "C1", range(1, 5))
    b.commit(stranger(b))
    assert numbers(b) == [6, 1, 5, 2]
    b.take_note(note([NoteCarton("C2", "102", SOCIAL, 2, "")], delivery_id="D2", digest="n2"))
    b.sign_for("D2", C2=2)
    assert numbers(b) == [6, 1, 7, 0]
    read(b, "C2", range(5, 7))
    b.inspect()
    b.sort()
    assert returned(b) == (1, 0)
