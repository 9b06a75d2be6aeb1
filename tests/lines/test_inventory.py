"""Inventory: what comes in is taken once, counted, and advised or surplus to the card."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from actors.hsm.carton_work import ISSUED
from domain.changes import Refused
from domain.codes import Code
from domain.lines import NoteCarton, Receipt
from domain.places import VAULT
from ledger.summary import summary
from ledger.verify import verify
from tests.ledger.building import (
    REFUSED,
    SOCIAL,
    TEMPORARY,
    Building,
    Killed,
    code_of,
    factory_return,
    note,
    record,
)

pytestmark = pytest.mark.usefixtures("each_database")

RECORDS = [record(n) for n in range(1, 6)]
CARTON = NoteCarton("C1", "102", SOCIAL, 5, "")
WINDOW = NoteCarton("T1", "102", TEMPORARY, 3, "430102")


@pytest.fixture
def b(tmp_path: Path) -> Iterator[Building]:
    """An empty centre; whatever a test did, its ledger fits in the end."""
    building = Building.make(tmp_path)
    yield building
    building.close()
    report = verify(building.url, None, None)
    assert report.ok, report.finding


def counts(b: Building, *names: str) -> list[int]:
    totals = summary(b.queries)
    assert totals["reconciled"], totals
    return [totals[name] for name in names or ("advised", "surplus", "received", "missing")]


def places(b: Building) -> dict[str, int]:
    found = b.queries.rows("select place, count(*) as n from body group by place")
    return {r["place"]: r["n"] for r in found}


def everything(b: Building) -> list[object]:
    tables = ("commit_link", "event", "movement", "file_in", "carton", "orders", "body")
    return [b.queries.rows(f"select * from {t} order by 1, 2") for t in tables]


def test_return_first_then_cards(b: Building) -> None:
    """What is advised is missing until it is signed for, then goes on to key replacement."""
    receipt = b.take_return(factory_return(RECORDS))
    assert (receipt.accepted, receipt.records, receipt.taken) == (True, 5, 5)
    assert counts(b) == [5, 0, 0, 5]
    b.take_note(note([CARTON]))
    assert counts(b) == [5, 0, 0, 5]
    assert b.sign_for("D1", C1=5).accepted
    assert counts(b) == [5, 0, 5, 0]
    assert places(b) == {ISSUED: 5}


def test_cards_first_then_return(b: Building) -> None:
    """What was counted is surplus until somebody advises it, and waits in the vault."""
    b.take_note(note([CARTON]))
    b.sign_for("D1", C1=5)
    assert counts(b) == [0, 5, 5, 0]
    assert places(b) == {VAULT: 5}
    b.take_return(factory_return(RECORDS))
    assert counts(b) == [5, 0, 5, 0]
    assert places(b) == {ISSUED: 5}


@pytest.mark.parametrize("return_first", [True, False])
@pytest.mark.parametrize(
    ("counted", "expected"), [(5, [5, 0, 5, 0]), (4, [5, 0, 4, 1]), (7, [5, 2, 7, 0])]
)
def test_the_order_of_files_changes_no_number(
    b: Building, return_first: bool, counted: int, expected: list[int]
) -> None:
    """A short carton is missing, a full one in order, what is too much surplus: whichever came
    first, return or cards."""
    if return_first:
        b.take_return(factory_return(RECORDS))
    b.take_note(note([CARTON]))
    b.sign_for("D1", C1=counted)
    if not return_first:
        b.take_return(factory_return(RECORDS))
    assert counts(b) == expected


def test_temporary_cards_are_advised_by_the_note(b: Building) -> None:
    """They have no order; the note's count is their advice."""
    b.take_note(note([WINDOW]))
    assert counts(b) == [3, 0, 0, 3]
    b.sign_for("D1", T1=2)
    assert counts(b) == [3, 0, 2, 1]
    assert {x.destination for x in b.queries.bodies("true")} == {"430102"}


def test_two_deliveries_of_a_batch_share_its_advice(b: Building) -> None:
    """Surplus in one carton fills what another lacks."""
    b.take_return(factory_return(RECORDS))
    b.take_note(note([NoteCarton("C1", "102", SOCIAL, 3, "")]))
    b.take_note(note([NoteCarton("C2", "102", SOCIAL, 2, "")], delivery_id="D2"))
    b.sign_for("D1", C1=4)
    assert counts(b) == [5, 0, 4, 1]
    b.sign_for("D2", C2=2)
    assert counts(b) == [5, 1, 6, 0]


def test_a_refused_record_leaves_the_rest(b: Building) -> None:
    """Place, field, code stand in the receipt and in the ledger; its body will be surplus."""
    receipt = b.take_return(factory_return(RECORDS, [REFUSED]))
    assert (receipt.accepted, receipt.records, receipt.taken) == (True, 6, 5)
    (refused,) = receipt.refused
    assert (refused.record_number, refused.field, refused.code) == (
        90,
        "bank_card_number",
        Code.BAD_CHECK_DIGIT,
    )
    b.take_note(note([NoteCarton("C1", "102", SOCIAL, 6, "")]))
    b.sign_for("D1", C1=6)
    assert counts(b) == [5, 1, 6, 0]
    known = b.queries.identify([code_of(90), code_of(1), code_of(4711)])
    assert known[code_of(90)].refused_code == Code.BAD_CHECK_DIGIT
    assert known[code_of(1)].order_id == "B1-000001"
    assert known[code_of(4711)].order_id == ""


def test_the_same_file_is_taken_once(b: Building) -> None:
    """A repeat is answered with the first receipt, refusals and all, and changes nothing."""
    first = b.take_return(factory_return(RECORDS, [REFUSED]))
    b.take_note(note([CARTON]))
    b.sign_for("D1", C1=5)
    before = everything(b)
    again = b.take_return(factory_return(RECORDS, [REFUSED]))
    assert (again.accepted, again.repeated, again.taken) == (True, True, first.taken)
    assert [(r.record_number, r.code) for r in again.refused] == [(90, Code.BAD_CHECK_DIGIT)]
    assert b.take_note(note([CARTON])).repeated
    assert b.sign_for("D1", C1=5).repeated
    assert everything(b) == before


def refusals(b: Building) -> Iterator[tuple[Receipt, Code]]:
    other = [record(n) for n in range(50, 52)]
    yield b.take_return(factory_return(other, digest="other")), Code.ID_REUSED
    yield b.take_return(factory_return(other, file_id="F2", digest="x")), Code.BATCH_TAKEN
    yield b.take_note(note([WINDOW], digest="other")), Code.ID_REUSED
    yield b.take_note(note([CARTON], delivery_id="D2", digest="x")), Code.ID_REUSED
    yield b.take_note(note([WINDOW], delivery_id="F1", digest="x")), Code.ID_REUSED
    yield b.sign_for("D9", C1=5), Code.DELIVERY_UNKNOWN
    yield b.sign_for("D1", C1=5, C9=1), Code.CARTON_UNKNOWN
    yield b.sign_for("D1"), Code.CARTON_NOT_COUNTED
    yield b.sign_for("D1", C1=-1), Code.BAD_FORMAT
    b.sign_for("D1", C1=5)
    yield b.sign_for("D1", C1=4), Code.DELIVERY_SIGNED


def test_what_contradicts_is_refused_whole(b: Building) -> None:
    """A used id with other content, a batch or carton that was taken, counts that fit no note:
    each has its code and no effect."""
    b.take_return(factory_return(RECORDS))
    b.take_note(note([CARTON]))
    before = everything(b)
    for receipt, code in refusals(b):
        assert (receipt.accepted, receipt.code) == (False, code)
        assert receipt.next_step
        if code != Code.DELIVERY_SIGNED:
            assert everything(b) == before


def test_numbers_of_earlier_files_are_refused_record_by_record(b: Building) -> None:
    """A number, an identification code or an order id that came before is another's; a person's
    identity number may come again, since a remade card has a new order."""
    b.take_return(factory_return(RECORDS))
    fresh = [record(n, batch="B2", carton="C2") for n in range(11, 16)]
    social, identity = RECORDS[0].numbers
    records = [
        replace(fresh[0], numbers=(social, fresh[0].numbers[1])),
        replace(fresh[1], identification_code=RECORDS[1].identification_code),
        replace(fresh[2], order_id=RECORDS[2].order_id),
        replace(fresh[3], numbers=(fresh[3].numbers[0], identity)),
        fresh[4],
    ]
    receipt = b.take_return(factory_return(records, file_id="F2", batch="B2", digest="d2"))
    assert (receipt.records, receipt.taken) == (5, 2)
    assert [(r.record_number, r.field, r.code) for r in receipt.refused] == [
        (11, "social_card_number", Code.REPEATED_NUMBER),
        (12, "identification_code", Code.REPEATED_NUMBER),
        (13, "order_id", Code.REPEATED_NUMBER),
    ]
    assert counts(b) == [7, 0, 0, 7]


@pytest.mark.parametrize("step", ["return", "note", "sign"])
def test_a_line_killed_after_its_commit_answers_the_repeat(b: Building, step: str) -> None:
    """The commit took effect and nobody was told: the same command again has the same answer."""
    done: dict[str, Callable[[], Receipt]] = {
        "return": lambda: b.take_return(factory_return(RECORDS, [REFUSED])),
        "note": lambda: b.take_note(note([CARTON])),
        "sign": lambda: b.sign_for("D1", C1=5),
    }
    for name, command in done.items():
        if name == step:
            b.doors["inventory"].cut = 1
            with pytest.raises(Killed):
                command()
            before = everything(b)
            b.restart()
            assert command().repeated
            assert everything(b) == before
        else:
            assert command().accepted
    assert counts(b) == [5, 0, 5, 0]


def test_nothing_of_a_person_stands_in_events(b: Building) -> None:
    """Sealed records, look-up values and what a sender put into a faulty record are in their
    own tables, which expire; events have their digests."""
    b.take_return(factory_return(RECORDS, [REFUSED]))
    data = "".join(r["data"] for r in b.queries.rows("select data from event"))
    links = "".join(r["reply"] for r in b.queries.rows("select reply from commit_link"))
    for text in ("sealed B1", RECORDS[0].numbers[0][1], RECORDS[0].numbers[1][1]):
        assert text not in data + links
    assert REFUSED.identification_code not in data


def signed(b: Building, counted: int) -> None:
    """Five cards are advised, `counted` of them signed for and issued."""
    b.take_return(factory_return(RECORDS))
    b.take_note(note([CARTON]))
    b.sign_for("D1", C1=counted)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (5, 4, [5, 0, 4, 1]),
        (4, 5, [5, 0, 5, 0]),
        (7, 4, [5, 0, 4, 1]),
        (4, 7, [5, 2, 7, 0]),
        (5, 0, [5, 0, 0, 5]),
    ],
)
@pytest.mark.parametrize("issued", [True, False])
def test_a_recount_is_as_if_it_had_been_counted_so_at_once(
    b: Building, first: int, second: int, expected: list[int], issued: bool
) -> None:
    """Missing and surplus are corrected by the difference in one commit, whether the carton waits
    in the vault or was issued; a repeat changes nothing."""
    if issued:
        b.take_return(factory_return(RECORDS))
    b.take_note(note([CARTON]))
    b.sign_for("D1", C1=first)
    commits = len(b.queries.rows("select number from commit_link"))
    assert b.recount("C1", second).accepted
    assert len(b.queries.rows("select number from commit_link")) == commits + 1
    if not issued:
        b.take_return(factory_return(RECORDS))
    assert counts(b) == expected
    assert b.queries.carton_quota("C1") == second
    before = everything(b)
    assert b.recount("C1", second).repeated
    assert b.sign_for("D1", C1=first).repeated
    assert everything(b) == before


def test_a_card_that_nobody_saw_holds_up_no_batch(b: Building) -> None:
    """One of five never comes to a reader: after the recount the batch closes, its order is
    missing, and what was withdrawn stands in no return."""
    signed(b, 5)
    for r in RECORDS[:4]:
        b.replace_keys("C1", r.record_number, r.order_id, r.branch_code)
    b.inspect()
    b.sort()
    assert not b.queries.rows("select id from outbox")
    assert b.recount("C1", 4).accepted
    b.sort()
    assert counts(b) == [5, 0, 4, 1]
    lines = b.queries.rows("select result from return_line")
    assert Counter(r["result"] for r in lines) == {"shipped": 4, "missing": 1}


def test_what_was_seen_cannot_be_counted_away(b: Building) -> None:
    """A count below the cards that readers had is refused; so is one of an unknown carton, of
    one that was not signed for, of a batch that left."""
    assert b.recount("C1", 1).code == Code.CARTON_UNKNOWN
    signed(b, 2)
    b.take_note(note([NoteCarton("C2", "102", SOCIAL, 1, "")], delivery_id="D2"))
    assert b.recount("C2", 1).code == Code.CARTON_NOT_COUNTED
    for r in RECORDS[:2]:
        b.replace_keys("C1", r.record_number, r.order_id, r.branch_code)
    assert b.recount("C1", 1).code == Code.COUNT_TOO_LOW
    b.sign_for("D2", C2=0)
    b.inspect()
    b.sort()
    assert b.recount("C1", 3).code == Code.BATCH_CLOSED


def test_a_card_beyond_the_count_is_counted_anew_and_goes_on(b: Building) -> None:
    """Held as surplus at first; after the recount it is the one that was missing, and its chip
    gets its keys when it is fed again."""
    signed(b, 4)
    for r in RECORDS[:4]:
        b.replace_keys("C1", r.record_number, r.order_id, r.branch_code)
    last = RECORDS[4]
    b.set_apart("C1", Code.OVER_COUNT, last.record_number, last.order_id)
    assert counts(b) == [5, 1, 5, 1]
    assert b.recount("C1", 5).accepted
    assert counts(b) == [5, 0, 5, 0]
    (body,) = b.queries.bodies("b.order_id = ?", last.order_id)
    assert (body.place, body.condition) == ("key_replacement/work", "")


def test_a_recount_nets_over_two_deliveries_of_a_batch(b: Building) -> None:
    """Five advised, three in one delivery with one beyond its count, one in the other: three and
    one and the one beyond are five, and a stranger among them stands for a missing card again
    once no surplus explains it."""
    b.take_return(factory_return(RECORDS))
    b.take_note(note([NoteCarton("C1", "102", SOCIAL, 3, "")]))
    b.take_note(note([NoteCarton("C2", "102", SOCIAL, 3, "")], delivery_id="D2"))
    b.sign_for("D1", C1=3)
    for r in RECORDS[:3]:
        b.replace_keys("C1", r.record_number, r.order_id, r.branch_code)
    b.set_apart("C1", Code.OVER_COUNT, 4, RECORDS[3].order_id)
    assert counts(b) == [5, 1, 4, 2]
    b.sign_for("D2", C2=3)
    assert counts(b) == [5, 2, 7, 0]
    b.set_apart("C2", Code.NOT_IN_RETURN, 91)  # explained by the sixth card
    assert counts(b) == [5, 2, 7, 0]
    assert b.recount("C1", 4).accepted
    assert counts(b) == [5, 2, 7, 0]
    assert b.recount("C2", 1).accepted
    assert counts(b) == [5, 1, 5, 1]
    assert b.recount("C2", 2).accepted
    assert counts(b) == [5, 1, 6, 0]
    for part in (summary(b.queries), summary(b.queries, "B1")):
        assert part["reconciled"]


@pytest.mark.parametrize("killed", [False, True])
def test_a_recount_under_the_hands_of_key_replacement(b: Building, killed: bool) -> None:
    """Key replacement remembers its cartons: a body that was withdrawn meanwhile is refused it
    once, then it reads anew; one that was made is found. A killed inventory answers `repeated`."""
    signed(b, 5)
    b.replace_keys("C1", 1, RECORDS[0].order_id, RECORDS[0].branch_code)
    b.doors["inventory"].cut = 1 if killed else None
    if killed:
        with pytest.raises(Killed):
            b.recount("C1", 1)
    else:
        b.recount("C1", 1)
    with pytest.raises(Refused):
        b.replace_keys("C1", 2, RECORDS[1].order_id, RECORDS[1].branch_code)
    if killed:
        b.restart()
    b.cartons.forget()
    assert b.recount("C1", 1).repeated
    assert b.set_apart("C1", Code.CHIP_SILENT, None, RECORDS[1].order_id) == "held"
    assert b.recount("C1", 3).accepted
    b.replace_keys("C1", 3, RECORDS[2].order_id, RECORDS[2].branch_code)
    assert counts(b) == [5, 0, 3, 2]
