"""Sorting: by branch into packages, to the courier, into the return; from any commit on."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from actors.returns import return_lines
from domain.codes import Code
from domain.lines import NoteCarton, OrderAct
from ledger.summary import summary
from ledger.verify import verify
from tests.ledger.building import (
    REFUSED,
    SOCIAL,
    TEMPORARY,
    Building,
    Killed,
    factory_return,
    note,
    one_of_each,
    record,
)

pytestmark = pytest.mark.usefixtures("each_database")


@pytest.fixture
def b(tmp_path: Path) -> Iterator[Building]:
    building = Building.make(tmp_path)
    yield building
    building.close()
    report = verify(building.url, None, None)
    assert report.ok, report.finding


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Building]:
    building = one_of_each(tmp_path_factory.mktemp("finished"))
    yield building
    building.close()


def inspected(b: Building, cards: int = 6, temporary: int = 1) -> None:
    """A batch that stands before sorting: every third holder has a temporary card."""
    records = [
        record(n, branch=f"102-43010{2 + n % 2}", has_temporary=n % 3 == 0)
        for n in range(1, cards + 1)
    ]
    b.take_return(factory_return(records))
    b.take_note(
        note(
            [
                NoteCarton("C1", "102", SOCIAL, cards, ""),
                NoteCarton("T1", "102", TEMPORARY, temporary, "430102"),
            ]
        )
    )
    b.sign_for("D1", C1=cards, T1=temporary)
    b.replace_keys_together("C1", records)
    for n in range(temporary):
        b.replace_keys("T1", 900 + n)
    b.inspect()


def packages(b: Building) -> list[dict[str, Any]]:
    return b.queries.packages("true")


def test_a_package_is_of_one_destination_kind_and_sort_of_holder(b: Building) -> None:
    """Holders of a temporary card lie apart, so that the branch can take theirs back; temporary
    cards go to the window of their division."""
    inspected(b)
    b.sort()
    found = [(p["destination"], p["kind"], p["has_temporary"], p["count"]) for p in packages(b)]
    assert sorted(found) == [
        ("102-430102", SOCIAL, 0, 2),
        ("102-430102", SOCIAL, 1, 1),
        ("102-430103", SOCIAL, 0, 2),
        ("102-430103", SOCIAL, 1, 1),
        ("430102", TEMPORARY, 0, 1),
    ]
    assert {p["state"] for p in packages(b)} == {"closed"}
    temporary = {
        r["package_id"]
        for r in b.queries.rows(
            "select x.package_id from body x join orders o on o.order_id = x.order_id"
            " where o.has_temporary = 1"
        )
    }
    assert temporary == {p["package_id"] for p in packages(b) if p["has_temporary"]}


def test_nothing_is_packed_before_the_batch_is_complete(b: Building) -> None:
    """While a card of the batch is at another line, or a delivery is not signed for, what is
    sorted waits; the return is written once, when nothing is left."""
    inspected(b)
    b.take_note(note([NoteCarton("C2", "102", SOCIAL, 1, "")], delivery_id="D2"))
    b.sort()
    assert packages(b) == []
    assert summary(b.queries)["in_work"] == 7
    b.sign_for("D2", C2=1)
    b.sort()
    assert packages(b) == []
    b.set_apart("C2", Code.CHIP_SILENT)
    b.sort()
    assert summary(b.queries)["in_work"] == 0
    outbox = {r["id"] for r in b.queries.rows("select id from outbox")}
    assert outbox == {"LISTS-B1-0001", "RETURN-B1-1", "LISTS-B1"}
    b.sort()
    assert len(b.queries.rows("select * from event where type = 'return_written'")) == 1


def returned(b: Building) -> list[dict[str, Any]]:
    return b.queries.rows("select * from return_line order by position")


def test_the_return_has_one_line_for_every_order_and_every_other_body(finished: Building) -> None:
    """Each order once; each body without order once; the results are those of the places."""
    lines = returned(finished)
    orders = finished.queries.rows("select order_id from orders")
    by_order = Counter(line["order_id"] for line in lines if line["order_id"])
    assert by_order == Counter([o["order_id"] for o in orders] + [REFUSED.order_id])
    assert Counter(line["result"] for line in lines) == {
        "shipped": 19,
        "rejected": 2,
        "missing": 1,
        "held": 2,
        "surplus": 2,
    }
    assert [line["position"] for line in lines] == list(range(1, len(lines) + 1))
    for line in lines:
        assert bool(line["package_id"]) is (line["result"] == "shipped")
        assert bool(line["reason"]) is (line["result"] != "shipped")
        assert bool(line["final"]) is (line["result"] in ("shipped", "rejected"))


@pytest.mark.parametrize(
    ("order_id", "result", "reason"),
    [
        ("B1-000001", "shipped", ""),
        ("B1-000004", "rejected", Code.DATA_DIFFERS),
        ("B1-000011", "rejected", Code.CHIP_SILENT),
        ("B1-000012", "missing", Code.NOT_DELIVERED),
        ("B1-000021", "held", Code.FORMAL_KEYS_FOREIGN),
        ("B1-000022", "held", Code.OVER_COUNT),
        ("B1-000090", "surplus", Code.BAD_CHECK_DIGIT),
    ],
)
def test_what_befell_a_card_is_its_line(
    finished: Building, order_id: str, result: str, reason: str
) -> None:
    """Reason and result of each fate; the body of a refused record goes under that record."""
    (line,) = [r for r in returned(finished) if r["order_id"] == order_id]
    assert (line["result"], line["reason"]) == (result, reason)


def test_a_body_without_order_has_a_line_of_its_own(finished: Building) -> None:
    """By body id and kind: the stranger, and the temporary cards."""
    lines = [r for r in returned(finished) if not r["order_id"]]
    assert sorted((r["body_id"][:2], r["kind"], r["result"]) for r in lines) == [
        ("C1", SOCIAL, "surplus"),
        ("T1", TEMPORARY, "shipped"),
        ("T1", TEMPORARY, "shipped"),
    ]


def test_return_lines_of_nothing() -> None:
    """Orders without any body are missing; no orders and no bodies make no lines."""
    assert return_lines([], [], {}) == []
    order = {"order_id": "O", "bank": "102", "branch": "102-430102", "cancelled": 0}
    (line,) = return_lines([order], [], {})
    assert (line["result"], line["reason"], line["final"]) == ("missing", Code.NOT_DELIVERED, 0)


def order(number: int) -> str:
    return f"B1-{number:06d}"


def fates(b: Building) -> dict[str, tuple[str, str]]:
    return {r["order_id"]: (r["result"], r["reason"]) for r in returned(b) if r["order_id"]}


def test_a_stopped_order_s_card_is_set_apart_wherever_sorting_meets_it(b: Building) -> None:
    """Cancelled or on hold before its card came, or when it lay sorted: held with the reason, in
    no package, not final in the return; an order without a card is cancelled for good."""
    records = [record(n) for n in range(1, 7)]
    b.take_return(factory_return(records))
    b.take_note(note([NoteCarton("C1", "102", SOCIAL, 6, "")]))
    b.sign_for("D1", C1=5)
    b.orders(OrderAct.CANCEL, "K1", order(1), order(6))
    b.replace_keys_together("C1", records[:4])
    b.orders(OrderAct.HOLD, "K2", order(2))
    b.inspect()
    b.sort()  # the fifth card is still at key replacement: nothing is packed
    b.orders(OrderAct.CANCEL, "K3", order(3), order(2))
    assert summary(b.queries)["held"] == 3
    b.set_apart("C1", Code.CHIP_SILENT, None, order(5))
    b.sort()
    assert fates(b) == {
        order(1): ("cancelled", Code.CANCELLED),
        order(2): ("cancelled", Code.CANCELLED),
        order(3): ("cancelled", Code.CANCELLED),
        order(4): ("shipped", ""),
        order(5): ("rejected", Code.CHIP_SILENT),
        order(6): ("cancelled", Code.CANCELLED),
    }
    assert sum(p["count"] for p in packages(b)) == 1
    assert {r["final"] for r in returned(b)} == {1}


def test_a_card_on_hold_in_another_batch_can_be_released(b: Building) -> None:
    """It lies in a carton of B1, its order is of B2, and the returns of both are out: its hold can
    still be lifted."""
    strayed = record(2, batch="B2", carton="C2")
    b.take_return(factory_return([record(1)]))
    b.take_return(factory_return([strayed], file_id="F2", batch="B2", digest="d2"))
    b.take_note(note([NoteCarton("C1", "102", SOCIAL, 2, "")]))
    b.sign_for("D1", C1=2)
    second = note(
        [NoteCarton("C2", "102", SOCIAL, 1, "")], delivery_id="D2", batch="B2", digest="n2"
    )
    b.take_note(second)
    b.sign_for("D2", C2=0)
    b.replace_keys_together("C1", [record(1), strayed])
    b.orders(OrderAct.HOLD, "K1", strayed.order_id)
    b.inspect()
    b.sort()
    assert [b.queries.is_closed(batch) for batch in ("B1", "B2")] == [True, True]
    assert b.orders(OrderAct.RELEASE, "K2", strayed.order_id).taken == 1
    b.sort()
    assert summary(b.queries)["shipped"] == 2


def test_each_order_of_a_command_has_its_answer_and_a_repeat_has_the_same(b: Building) -> None:
    """Unknown, packed, not on hold, cancelled for good, named twice: each by its place, and the
    others take effect. The same command again is answered the same; its id with other orders is
    refused."""
    inspected(b, cards=3)
    asyncio.run(b.sorting.step())
    first = b.orders(OrderAct.CANCEL, "K1", "nobody", order(1), order(1))
    assert (first.records, first.taken) == (3, 1)
    assert [(r.record_number, r.code) for r in first.refused] == [
        (1, Code.ORDER_UNKNOWN),
        (3, Code.REPEATED_NUMBER),
    ]
    b.restart()
    again = b.orders(OrderAct.CANCEL, "K1", "nobody", order(1), order(1))
    assert (again.repeated, again.taken, again.refused) == (True, first.taken, first.refused)
    assert b.orders(OrderAct.HOLD, "K1", order(1)).code == Code.ID_REUSED

    def answer(act: OrderAct, order_id: str) -> str:
        receipt = b.orders(act, f"{act}-{order_id}-{b.prefixes}", order_id)
        assert not receipt.accepted
        return receipt.refused[0].code

    assert answer(OrderAct.HOLD, order(1)) == Code.CANCELLED
    assert answer(OrderAct.RELEASE, order(1)) == Code.NOT_ON_HOLD
    b.sort_unscanned()
    b.scan_packages()
    b.restart()
    assert answer(OrderAct.CANCEL, order(2)) == Code.ALREADY_PACKED
    b.sort()
    b.restart()
    assert answer(OrderAct.HOLD, order(2)) == Code.ALREADY_PACKED
    assert fates(b)[order(1)] == ("cancelled", Code.CANCELLED)


def test_a_command_comes_again_too_late_to_do_anything(b: Building) -> None:
    """What changed nothing, or was refused as a whole, is kept like any other: delivered once more
    after the orders stand otherwise, it is answered as it was, and stops or releases nothing."""
    inspected(b, cards=3)
    assert b.orders(OrderAct.HOLD, "K0", order(1)).taken == 1
    commands = {
        "K1": (OrderAct.HOLD, order(1)),  # it is on hold
        "K2": (OrderAct.RELEASE, order(2)),  # it is not
        "K3": (OrderAct.CANCEL, "张 三"),  # no id: only its place is kept
    }
    first = {i: b.orders(act, i, order_id) for i, (act, order_id) in commands.items()}
    assert [r.accepted for r in first.values()] == [True, False, False]
    assert first["K2"].code == first["K3"].code == Code.NOTHING_TAKEN
    assert first["K3"].refused[0].order_id == ""
    b.orders(OrderAct.RELEASE, "K4", order(1))
    b.orders(OrderAct.HOLD, "K5", order(2))
    b.restart()
    stopped = b.queries.stopped_orders([order(1), order(2)])
    for command_id, (act, order_id) in commands.items():
        again = b.orders(act, command_id, order_id)
        assert again == replace(first[command_id], repeated=True)
        assert b.orders(act, command_id, order(3)).code == Code.ID_REUSED
    assert b.queries.stopped_orders([order(1), order(2)]) == stopped == {order(2): Code.ON_HOLD}
    b.orders(OrderAct.RELEASE, "K6", order(2))


def test_it_goes_on_after_each_of_its_commits(b: Building) -> None:
    """Killed after every single commit, before anybody was told, sorting goes on from the
    ledger: nothing is packed, shipped or returned twice, and nothing is left."""
    inspected(b, cards=9, temporary=2)
    kills = 0
    while True:
        b.doors["sorting"].cut = 1
        try:
            b.sort()
            break
        except Killed:
            kills += 1
            b.restart()
    assert kills == 1 + 1 + 5 * 2 + 1  # sorted, opened, 5 packages closed and shipped, returned
    totals = summary(b.queries)
    assert (totals["shipped"], totals["in_work"]) == (11, 0)
    for event_type, n in (("body_packed", 11), ("body_shipped", 11), ("return_written", 1)):
        found = b.queries.rows("select id from event where type = ?", event_type)
        assert len(found) == n
    assert len(returned(b)) == 11


def test_an_acknowledged_return_is_sent_no_more(b: Building) -> None:
    """Acknowledged once; a repeat and an unknown id change nothing."""
    inspected(b)
    b.sort()
    b.acknowledge("RETURN-B1-1")
    events = "select id from event where type = 'return_acknowledged'"
    for again in (["RETURN-B1-1"], ["nothing"], []):
        asyncio.run(b.sorting.acknowledge(again))
    assert len(b.queries.rows(events)) == 1
    left = b.queries.rows("select id from outbox where acknowledged = 0 order by id")
    assert [r["id"] for r in left] == ["LISTS-B1", "LISTS-B1-0001"]
