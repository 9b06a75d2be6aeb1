"""Packing: a package closes when exactly the cards of its list were counted in it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from actors.packing import PACKAGE_SIZE, decide_close, decide_open
from domain.bodies import Body
from domain.changes import EventType
from domain.codes import Code
from domain.lines import ClosePackage, OrderAct, Receipt
from domain.places import PACKED, PACKING, Line
from ledger.history import batch_overview
from ledger.progress import Unscanned, open_outbox, unscanned_packages
from ledger.summary import summary
from ledger.verify import verify
from tests.ledger.building import SOCIAL, Building, Killed
from tests.lines.test_sorting import inspected, order, packages

pytestmark = pytest.mark.usefixtures("each_database")

ONE, TWO, APART, WINDOW = "B1-P0001", "B1-P0003", "B1-P0002", "B1-P0005"
"""Of two branches; of the first, holders of a temporary card; of a window. ONE: cards 2 and 4."""


@pytest.fixture
def b(tmp_path: Path) -> Iterator[Building]:
    """Five open packages: six cards of two branches, one temporary card."""
    building = Building.make(tmp_path)
    inspected(building)
    building.sort_unscanned()
    yield building
    building.close()
    report = verify(building.url, None, None)
    assert report.ok, report.finding


def codes(receipt: Receipt) -> list[tuple[int, str, str]]:
    return [(r.record_number, r.order_id, r.code) for r in receipt.refused]


def events(b: Building, event_type: EventType) -> int:
    return len(b.queries.rows("select id from event where type = ?", event_type))


def test_packages_wait_for_a_scan_since_the_last_one(b: Building) -> None:
    """Out of the ledger: since they were opened, then since one was closed; none when all are."""

    def last(event_type: EventType) -> str:
        (found,) = b.queries.rows(
            "select max(c.at) as at from event e join commit_link c on c.line = e.line"
            " and c.number = e.number where e.type = ?",
            event_type,
        )
        return str(found["at"])

    opened = last(EventType.PACKAGE_OPENED)
    assert unscanned_packages(b.queries) == [Unscanned("B1", 5, ONE, opened)]
    assert b.close_package(ONE, order(2), order(4)).accepted
    closed = last(EventType.PACKAGE_CLOSED)
    assert closed > opened
    assert unscanned_packages(b.queries) == [Unscanned("B1", 4, APART, closed)]
    assert b.scan_packages() == 4
    assert unscanned_packages(b.queries) == []


def test_lists_leave_with_the_commit_that_opens_packages(b: Building) -> None:
    """Before anybody packs, the lists are on their way; the batch says what it waits for, and its
    return is not written."""
    assert {p["state"] for p in packages(b)} == {"open"}
    assert {x.place for x in b.queries.bodies("true")} == {PACKING}
    (row,) = b.queries.rows("select id, kind from outbox")
    assert row == {"id": "LISTS-B1-0001", "kind": "lists"}
    overview = batch_overview(b.queries, "B1")
    assert len(overview["open_packages"]) == 5
    assert any("scan of 5 packages" in words for words in overview["waits_for"])
    assert summary(b.queries)["in_work"] == 7


def test_a_package_is_closed_once_and_ships(b: Building) -> None:
    """By its own cards in any order; the same scan again is answered so, also by a restarted line;
    another one is told what differs. The return waits for the last package."""
    closed = b.close_package(ONE, order(4), order(2))
    assert (closed.accepted, closed.records, closed.repeated) == (True, 2, False)
    assert {x.order_id for x in b.queries.bodies("b.place = ?", PACKED)} == {order(2), order(4)}
    b.restart()
    again = b.close_package(ONE, order(4), order(2))
    assert (again.accepted, again.records, again.repeated) == (True, 2, True)
    for scans in ((), (order(1),), (order(4), order(2), order(2))):
        other = b.close_package(ONE, *scans)
        assert (other.accepted, other.code, other.repeated) == (False, "PACKAGE_DIFFERS", False)
    assert events(b, EventType.PACKAGE_CLOSED) == 1
    b.sort_unscanned()
    assert summary(b.queries)["shipped"] == 2
    assert not b.queries.is_closed("B1")
    assert b.scan_packages() == 4
    assert not b.queries.is_closed("B1")
    b.sort_unscanned()
    assert b.queries.is_closed("B1")
    assert summary(b.queries)["shipped"] == 7


def test_a_package_that_is_not_its_list_stays_open_and_says_why(b: Building) -> None:
    """Cards missing, of another package, unknown, scanned twice: each is named by its scan, and by
    the order, and where it belongs. Nothing is written; put right, the package closes."""
    before = b.queries.rows("select count(*) as n from commit_link")
    short = b.close_package(ONE, order(2))
    assert (short.accepted, short.code) == (False, Code.PACKAGE_DIFFERS)
    assert codes(short) == [(0, order(4), Code.SCAN_MISSING)]
    wrong = b.close_package(ONE, order(2), order(1), "", order(2), "nobody", order(4))
    assert codes(wrong) == [
        (2, order(1), Code.SCAN_FOREIGN),
        (3, "", Code.SCAN_FOREIGN),
        (4, order(2), Code.SCAN_TWICE),
        (5, "nobody", Code.SCAN_FOREIGN),
    ]
    assert TWO in wrong.refused[0].reason
    assert codes(b.close_package(ONE, order(2), order(4), without_number=1)) == [
        (0, "", Code.COUNT_DIFFERS)
    ]
    assert b.close_package("B1-P0099").code == Code.PACKAGE_UNKNOWN
    assert b.queries.rows("select count(*) as n from commit_link") == before
    assert b.close_package(ONE, order(2), order(4)).accepted


def test_temporary_cards_are_counted(b: Building) -> None:
    """They have no number on their face: too few and too many keep the package open."""
    for counted in (0, 2):
        assert codes(b.close_package(WINDOW, without_number=counted)) == [
            (0, "", Code.COUNT_DIFFERS)
        ]
    assert b.close_package(WINDOW, without_number=1).accepted


def test_an_order_that_is_stopped_leaves_the_list(b: Building) -> None:
    """Until its package is closed: its card is foreign then, and the rest closes without it. An
    emptied package is closed by an empty scan. A card whose hold is lifted is listed anew."""
    b.orders(OrderAct.HOLD, "K1", order(2), order(6))
    receipt = b.close_package(ONE, order(2), order(4))
    assert codes(receipt) == [(1, order(2), Code.SCAN_FOREIGN)]
    assert Code.ON_HOLD in receipt.refused[0].reason
    assert b.close_package(ONE, order(4)).accepted
    assert b.orders(OrderAct.CANCEL, "K2", order(4)).refused[0].code == Code.ALREADY_PACKED
    assert b.close_package(APART).accepted
    b.orders(OrderAct.RELEASE, "K3", order(2))
    b.orders(OrderAct.CANCEL, "K4", order(6))
    b.sort()
    assert summary(b.queries)["shipped"] == 6
    shipped = b.queries.rows("select package_id from return_line where order_id = ?", order(2))
    assert shipped == [{"package_id": "B1-P0006"}]


def test_the_lists_are_printed_again_when_a_card_leaves_them(b: Building) -> None:
    """Once for a command, in its commit, whatever it takes off; a command that takes off nothing
    sends none, and a repeat none again."""

    def unsent() -> list[str]:
        rows = b.queries.rows("select id, kind from outbox where acknowledged = 0")
        assert {r["kind"] for r in rows} <= {"lists"}
        assert {r["id"] for r in open_outbox(b.queries) if r["at"]} == {r["id"] for r in rows}
        return [r["id"] for r in rows]

    b.acknowledge("LISTS-B1-0001")
    b.orders(OrderAct.CANCEL, "K1", order(1), order(2))
    b.orders(OrderAct.CANCEL, "K1", order(1), order(2))
    assert unsent() == ["LISTS-B1:K1"]
    b.acknowledge("LISTS-B1:K1")
    b.orders(OrderAct.CANCEL, "K2", order(1))
    assert unsent() == []


def test_a_line_killed_by_the_close_answers_as_if_it_had_not_been(b: Building) -> None:
    """The commit took effect and nobody was told; asked again it is `repeated`."""
    b.doors[Line.SORTING].cut = 1
    with pytest.raises(Killed):
        b.close_package(ONE, order(2), order(4))
    b.restart()
    assert b.close_package(ONE, order(2), order(4)).repeated


def test_a_package_holds_no_more_than_its_size() -> None:
    """A pile that is larger becomes several packages, numbered on."""
    bodies = [
        Body(f"C.{n:04d}", SOCIAL, "102", "B1", "C", "sorting/work", destination="102-430102",
             order_id=f"O{n}")
        for n in range(PACKAGE_SIZE * 2 + 1)
    ]  # fmt: skip
    changes = decide_open("x", "B1", bodies, set(), 5).changes()
    opened = [e.data for e in changes.events if e.type == EventType.PACKAGE_OPENED]
    assert [(d["package_id"], d["count"]) for d in opened] == [
        ("B1-P0005", PACKAGE_SIZE),
        ("B1-P0006", PACKAGE_SIZE),
        ("B1-P0007", 1),
    ]


def closed_with(cards: Callable[[Sequence[Body]], Sequence[Body]]) -> Callable[[Building], None]:
    """A faulty line closes a package in which other cards lie than were counted."""

    def close(b: Building) -> None:
        (package,) = b.queries.packages("p.package_id = ?", ONE)
        bodies = cards(b.queries.bodies("b.package_id = ?", ONE))
        scanned = tuple(x.order_id for x in bodies)
        command = ClosePackage(ONE, scanned)
        b.commit(decide_close(command, package, bodies))

    return close


def packed_without_a_close(b: Building) -> None:
    writing = b.writing(Line.SORTING)
    for body in b.queries.bodies("b.package_id = ?", ONE):
        writing.change(body, EventType.BODY_PACKED, place=PACKED)
    b.commit(writing)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (closed_with(lambda cards: cards[:1]), "was not counted"),
        (packed_without_a_close, "an open package was packed"),
    ],
)
def test_what_was_not_counted_is_found(tmp_path: Path, wrong: Any, words: str) -> None:
    """Verification names a card that was packed without a count, or not counted and closed."""
    b = Building.make(tmp_path)
    inspected(b)
    b.sort_unscanned()
    wrong(b)
    b.close()
    assert words in verify(b.url, None, None).finding


def test_two_scans_at_once_close_it_once(b: Building) -> None:
    """Two people, one package: one closes it, the other is told so."""

    async def both() -> list[Receipt]:
        command = ClosePackage(ONE, (order(2), order(4)))
        close = b.sorting.close_package
        return list(await asyncio.gather(close(command), close(command)))

    assert [r.repeated for r in asyncio.run(both())] == [False, True]
