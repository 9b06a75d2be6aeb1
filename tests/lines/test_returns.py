"""The centre return and its revisions: whatever befalls orders and cards, and in which order, each
order has one final line in the end, and none that was final is touched."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors import lot_acts
from actors.lots import LotPlan
from actors.returns import changed_lines
from domain.changes import Changes, EventType, Insert, Refused, Update
from domain.codes import Code
from domain.custody import ActKind, ActState, Reason, Role
from domain.lines import ConfirmedAct, NoteCarton, OrderAct
from domain.places import DRAWN, Line
from domain.returns import AWAITED, Result, is_final
from ledger.lots import lots_of
from ledger.returns import interim_lines
from ledger.summary import summary
from ledger.verify import verify
from tests.ledger.building import (
    REPLACED,
    SOCIAL,
    Building,
    Killed,
    factory_return,
    note,
    record,
)
from tests.lines.custody import FIRST_PASSWORD, Office
from tests.lines.test_corrections import correction, refusal, take_back

CARDS = 6
LOT = f"D1-102-{SOCIAL}"
LATE = record(90)


@pytest.fixture
def b(tmp_path: Path) -> Iterator[Building]:
    building = Building.make(tmp_path, lots=LotPlan(lambda lot: lot.encode()))
    yield building
    building.close()
    report = verify(building.url, None, None)
    assert report.ok, report.finding


def order(number: int) -> str:
    return f"B1-{number:06d}"


def inspected(b: Building) -> None:
    """Six cards before sorting, one whose record was refused, and one that never came."""
    records = [record(n) for n in range(1, CARDS + 2)]
    b.take_return(factory_return(records, [refusal(LATE)]))
    b.take_note(note([NoteCarton("C1", "102", SOCIAL, CARDS + 1, "")]))
    b.sign_for("D1", C1=CARDS + 1)
    b.replace_keys_together("C1", records[:CARDS])
    b.set_apart("C1", Code.BAD_CHECK_DIGIT, 90)
    b.inspect()


def through(b: Building, *, bad: int = 0) -> None:
    """All that can be done is done: samples are read, packages scanned, lines written."""
    b.sort()
    while b.queries.bodies("b.place = ?", DRAWN):
        b.read_sample(bad=bad)
        b.sort()


def lines(b: Building, where: str = "true") -> list[dict[str, Any]]:
    return b.queries.rows(f"select * from return_line where {where} order by position")


def stands(b: Building) -> dict[str, tuple[str, str, int]]:
    """Result, reason, revision of the line of each order that holds."""
    return {
        r["order_id"]: (r["result"], r["reason"], r["revision"])
        for r in lines(b, "superseded_by = 0 and result <> 'surplus'")
    }


@dataclass
class Inspectors:
    """Two people, each at a terminal, who decide about the lot together."""

    b: Building
    office: Office

    @classmethod
    def of(cls, b: Building) -> Inspectors:
        office = Office(b.folder, shared=b.ledger)
        office.settle()
        for name in ("iu", "iong"):
            add = {"roles": (str(Role.INSPECTOR),), "password": FIRST_PASSWORD}
            assert office.both("sun", "su", ActKind.PEOPLE_ADD, name, **add).state == "done"
            office.come(name)
        return cls(b, office)

    def decide(self, kind: ActKind) -> str:
        """The code with which the act was answered, or how it ended."""
        self.office.lines[Line.SORTING] = self.b.sorting
        proposed = self.office.propose("iu", kind, LOT, reason=str(Reason.CONCESSION))
        if not proposed.receipt.accepted:
            return proposed.receipt.code
        return self.office.confirm("iong", proposed.acts[0].act_id).acts[0].state


@pytest.fixture
def inspectors(b: Building) -> Iterator[Inspectors]:
    two = Inspectors.of(b)
    yield two
    two.office.close()


def test_one_held_card_does_not_hold_up_the_return(b: Building) -> None:
    """The first return has an interim line for what is open; each outcome is a revision with that
    line alone, numbered on, and what it supersedes is marked. Packages of their own."""
    inspected(b)
    b.orders(OrderAct.HOLD, "K1", order(1), order(2))
    through(b)
    assert Counter(r["final"] for r in lines(b)) == {1: CARDS - 2, 0: 4}
    assert stands(b)[order(1)] == ("held", Code.ON_HOLD, 0)
    assert stands(b)[order(CARDS + 1)] == ("missing", Code.NOT_DELIVERED, 0)
    b.restart()
    assert b.orders(OrderAct.RELEASE, "K2", order(1)).taken == 1
    through(b)
    (late,) = lines(b, "revision = 1")
    assert (late["order_id"], late["result"], late["final"]) == (order(1), "shipped", 1)
    assert late["position"] == CARDS + 3
    assert late["package_id"] not in {r["package_id"] for r in lines(b, "revision = 0")}
    (was,) = lines(b, "superseded_by > 0")
    assert (was["order_id"], was["superseded_by"]) == (order(1), late["position"])
    assert b.orders(OrderAct.CANCEL, "K3", order(2), order(CARDS + 1)).taken == 2
    assert take_correction(b)
    through(b)
    assert [r["revision"] for r in lines(b, "final = 1 and revision > 0")] == [1, 2, 2, 2]
    assert stands(b)[LATE.order_id] == ("shipped", "", 2)
    assert interim_lines(b.queries) == []
    answers = b.orders(OrderAct.CANCEL, "K4", order(3), order(2), LATE.order_id).refused
    assert [r.code for r in answers] == [
        Code.ALREADY_PACKED, Code.RETURN_FINAL, Code.ALREADY_PACKED,
    ]  # fmt: skip


def take_correction(b: Building, file_id: str = "F2") -> bool:
    """The refused record comes again, its card goes through the floor once more."""
    receipt = b.take_correction(correction([LATE], file_id=file_id))
    if receipt.repeated or not receipt.taken:
        return False
    assert take_back(b) == 1
    writing = b.writing(Line.KEY_REPLACEMENT)
    (body,) = b.queries.bodies("b.order_id = ?", LATE.order_id)
    body = b.release(writing, body, 90, LATE.order_id, LATE.branch_code)
    writing.change(body, EventType.KEYS_REPLACED, {"station": "S1"}, place=REPLACED)
    b.commit(writing)
    b.inspect()
    return True


@pytest.mark.parametrize("kind", [ActKind.LOT_RELEASE, ActKind.LOT_INSPECT])
def test_a_refused_lot_has_a_way_out(b: Building, inspectors: Inspectors, kind: ActKind) -> None:
    """Its cards have interim lines; released, all of it goes on, or every card is read again and
    the good ones do. In either case a revision; what its order's stop holds stays apart."""
    inspected(b)
    b.sort()
    b.read_sample(bad=1)
    b.sort()
    open_lines = {(r["result"], r["reason"]): r["lines"] for r in interim_lines(b.queries)}
    assert open_lines["held", Code.LOT_REFUSED] == CARDS - 1
    held = [o for o, line in stands(b).items() if line[1] == Code.LOT_REFUSED]
    assert b.orders(OrderAct.HOLD, "K1", held[0]).taken == 1
    assert inspectors.decide(kind) == ActState.DONE
    assert inspectors.decide(kind) == Code.LOT_NOT_REFUSED
    b.sort()
    if kind is ActKind.LOT_INSPECT:
        assert b.read_sample(bad=1) == CARDS - 1
        b.sort()
    rejected = 1 + (kind is ActKind.LOT_INSPECT)
    totals = summary(b.queries)
    assert totals["reconciled"]
    assert (totals["rejected"], totals["in_work"]) == (rejected, 0)
    now = Counter(line[:2] for line in stands(b).values())
    assert now["shipped", ""] == totals["shipped"] >= CARDS - 1 - rejected
    (lot,) = lots_of(b.queries, "B1")
    assert lot.nonconforming == 1


def test_a_lot_that_nobody_released_is_found(tmp_path: Path) -> None:
    """What no two people have confirmed is found by the verification."""
    b = Building.make(tmp_path, lots=LotPlan(lambda lot: lot.encode()))
    inspected(b)
    b.sort()
    b.read_sample(bad=1)
    b.sort()
    said = lot_acts.content(b.queries, LOT, str(Reason.CONCESSION))
    act = ConfirmedAct("A000001", ActKind.LOT_RELEASE, LOT, said)
    asyncio.run(b.sorting.carry_out(act))
    assert not verify(b.url, None, None).ok


def test_it_goes_on_after_each_of_its_commits(b: Building) -> None:
    """Killed after every commit: one first return, one revision."""
    inspected(b)
    b.orders(OrderAct.HOLD, "K1", order(1))
    for command in (None, OrderAct.RELEASE):
        if command:
            b.restart()
            b.orders(command, "K2", order(1))
        while True:
            b.doors["sorting"].cut = 1
            try:
                through(b)
                break
            except Killed:
                b.restart()
        b.doors["sorting"].cut = None
    assert [r["revision"] for r in lines(b, "order_id = 'B1-000001'")] == [0, 1]
    events = b.queries.rows("select data->>'revision' as n from event where type='return_written'")
    assert [int(r["n"]) for r in events] == [0, 1]


@pytest.mark.parametrize("what", ["a second final line", "a final line superseded", "twice"])
def test_the_ledger_itself_refuses(b: Building, what: str) -> None:
    """Whatever a program decides: two final lines of an order, or a line superseded that is final
    or was superseded before, do not get in."""
    inspected(b)
    b.orders(OrderAct.HOLD, "K1", order(1))
    through(b)
    b.orders(OrderAct.RELEASE, "K2", order(1))
    through(b)
    (was, now) = lines(b, "order_id = 'B1-000001'")
    inserts, updates = [], []
    if what == "a second final line":
        inserts = [Insert("return_line", [{**now, "file_id": "X", "position": 99}])]
    else:
        line = was if what == "twice" else now
        row = {"batch_id": "B1", "position": line["position"], "superseded_by": 99,
               "expect_superseded_by": 0, "expect_final": 0}  # fmt: skip
        columns = ("batch_id", "position"), ("superseded_by",), ("superseded_by", "final")
        updates = [Update("return_line", *columns, [row])]
    with pytest.raises(Refused, match=Code.GUARD_FAILED):
        asyncio.run(b.doors["sorting"].commit(Changes("sorting", what, (), (), inserts, updates)))


ACTS: dict[str, Callable[[Inspectors, int, str], object]] = {
    "hold": lambda two, n, i: two.b.orders(OrderAct.HOLD, i, order(n)),
    "release": lambda two, n, i: two.b.orders(OrderAct.RELEASE, i, order(n)),
    "cancel": lambda two, n, i: two.b.orders(OrderAct.CANCEL, i, order(n)),
    "correct": lambda two, n, i: take_correction(two.b),
    "work": lambda two, n, i: through(two.b, bad=int(n == 1)),
    "release lot": lambda two, n, i: two.decide(ActKind.LOT_RELEASE),
    "inspect lot": lambda two, n, i: two.decide(ActKind.LOT_INSPECT),
}


@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
@given(
    st.lists(st.tuples(st.sampled_from(sorted(ACTS)), st.integers(1, CARDS + 1)), max_size=12),
    st.integers(0, 1),
)
def test_every_order_ends_with_exactly_one_final_line(
    acts: list[tuple[str, int]], bad: int
) -> None:
    """Any sequence; then everything open is decided. At every moment an order has one line at most
    that holds, and lines once final stay; in the end each has exactly one, final, and the results
    are the ledger's own counts."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        b = Building.make(Path(folder), lots=LotPlan(lambda lot: lot.encode()))
        inspected(b)
        two = Inspectors.of(b)
        b.sort()
        b.read_sample(bad=bad)
        final: dict[int, dict[str, Any]] = {}
        for number, (act, n) in enumerate(acts):
            ACTS[act](two, n, f"K{number}")
            for position, row in final.items():
                assert lines(b, f"position = {position}") == [row]
            final = {r["position"]: r for r in lines(b, "final = 1")}
        through(b)
        _decide_everything(two)
        orders = {r["order_id"] for r in b.queries.rows("select order_id from orders")}
        last = Counter(r["order_id"] for r in lines(b, "final = 1 and result <> 'surplus'"))
        assert last == Counter(orders)
        assert all(r["superseded_by"] for r in lines(b, "final = 0 and order_id <> 'B1-000090'"))
        totals, results = summary(b.queries), Counter(r["result"] for r in lines(b, "final = 1"))
        assert totals["reconciled"]
        assert (totals["shipped"], totals["in_work"]) == (results["shipped"], 0)
        assert totals["rejected"] <= results["rejected"] + results["cancelled"]
        assert totals["rejected"] >= results["rejected"]
        two.office.close()
        b.close()
        report = verify(b.url, None, None)
        assert report.ok, report.finding


def _decide_everything(two: Inspectors) -> None:
    b = two.b
    take_correction(b)
    two.decide(ActKind.LOT_RELEASE)
    through(b)
    open_orders = [r["order_id"] for r in lines(b, "final = 0 and superseded_by = 0")]
    for number, order_id in enumerate(o for o in open_orders if o):
        b.orders(OrderAct.CANCEL, f"END{number}", order_id)
    through(b)


def test_a_line_is_superseded_with_the_card_that_it_turned_out_to_be() -> None:
    """A missing order and a card beyond the count, then counted and read: one line for both."""
    old = [
        {"position": 1, "order_id": "O", "body_id": "", "result": "missing", "final": 0},
        {"position": 2, "order_id": "", "body_id": "X", "result": "surplus", "final": 0},
    ]
    now = {"order_id": "O", "body_id": "X", "result": "shipped", "reason": "", "package_id": "P",
           "final": 1}  # fmt: skip
    (changed,) = changed_lines([now], old)
    assert changed.supersedes == (1, 2)
    assert changed_lines([now], [{**now, "position": 3}]) == []


def test_what_each_line_waits_for_is_said() -> None:
    """No reason in the table is final, and every word is there in both languages."""
    for (result, reason), words in AWAITED.items():
        assert not is_final(result, reason)
        assert all(words)
    assert is_final(Result.SURPLUS, Code.OTHER_BATCH)
    assert not is_final(Result.SURPLUS, Code.NOT_IN_RETURN)
