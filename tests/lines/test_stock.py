"""Stock-takes: what lies at a place against the books, and the act of two people that adjusts."""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from actors.stock import count
from domain.changes import EventType
from domain.codes import Code
from domain.custody import ActKind, ActState, Reason
from domain.lines import NoteCarton, Receipt, StockCount
from domain.places import VAULT, Line, held, work
from ledger.verify import verify
from tests.ledger.building import SOCIAL, TEMPORARY, Building, factory_return, note, record
from tests.ledger.test_tampering import compute_anew, opened
from tests.lines.custody import Office, code_of
from tests.lines.test_floor_acts import AtKeys, Floor, floor, operators

__all__ = ["floor"]
AT_KEYS = held(Line.KEY_REPLACEMENT)
ISSUED = "transit/inventory>key_replacement"
_commands = itertools.count(1)


def counted(b: Building, place: str, *orders: str, line: str = "", **more: object) -> Receipt:
    name = line or Line.KEY_REPLACEMENT
    command = StockCount(f"c{next(_commands)}", place, order_ids=orders, **more)  # type: ignore[arg-type]
    return asyncio.run(count(name, b.doors[name], b.queries, command))


def codes(receipt: Receipt) -> list[tuple[int, str, str]]:
    return [(r.record_number, r.order_id, r.code) for r in receipt.refused]


def adjusted(f: Floor, receipt: Receipt, reason: Reason = Reason.LOST) -> str:
    act = f.office.propose("ou", ActKind.STOCK_ADJUST, receipt.reason, reason=str(reason))
    assert act.receipt.accepted, act.receipt
    return f.office.confirm("ouyang", act.acts[0].act_id).acts[0].state


def test_a_count_names_each_difference_and_changes_nothing(floor: Floor) -> None:
    """Missing, elsewhere, unknown, twice: by the place of the scan and the order. The same command
    again is the same count, and a place that is none of the line's is refused."""
    b = floor.b
    before = b.queries.bodies("true")
    first = counted(b, AT_KEYS, "B1-000002", "", "B1-000002")
    # Order 2 has no body that is known by its chip: its carton's cards lie before the line.
    assert first.code == Code.STOCK_DIFFERS
    assert (0, "B1-000001", Code.STOCK_MISSING) in codes(first)
    assert (2, "", Code.SCAN_UNKNOWN) in codes(first)
    assert (3, "B1-000002", Code.SCAN_TWICE) in codes(first)
    assert counted(b, AT_KEYS, "B1-000001").accepted
    elsewhere = counted(b, "inspection/held", "B1-000001", line=Line.INSPECTION)
    assert codes(elsewhere) == [(1, "B1-000001", Code.SCAN_ELSEWHERE)]
    assert AT_KEYS in elsewhere.refused[0].reason
    assert counted(b, VAULT).code == Code.PLACE_UNKNOWN
    assert counted(b, "sorting/packed").code == Code.PLACE_UNKNOWN
    command = StockCount("again", AT_KEYS)
    door = b.doors[Line.KEY_REPLACEMENT]
    both = [asyncio.run(count(Line.KEY_REPLACEMENT, door, b.queries, command)) for _ in range(2)]
    assert both[0] == both[1]
    assert b.queries.bodies("true") == before
    assert floor.finding() == ""


def test_two_storekeepers_adjust_and_what_is_found_goes_back(floor: Floor) -> None:
    """What was missed is held as STOCK_MISSING, bound to its order; counted again and found, two
    people bring it back to where and what it was. An old count adjusts nothing any more."""
    b = floor.b
    floor.office.lines[Line.KEY_REPLACEMENT] = AtKeys(b)
    missed = counted(b, AT_KEYS)
    assert (
        code_of(floor.office.propose("ke", ActKind.STOCK_ADJUST, missed.reason, reason="lost"))
        == Code.ROLE_MISSING
    )
    assert adjusted(floor, missed) == ActState.DONE
    assert floor.stands() == (AT_KEYS, Code.STOCK_MISSING, True)
    assert floor.finding() == ""
    again = floor.office.propose("ou", ActKind.STOCK_ADJUST, missed.reason, reason="lost")
    assert code_of(again) == Code.ACT_OUTDATED
    found = counted(b, AT_KEYS, "B1-000001")
    assert codes(found) == [(1, "B1-000001", Code.STOCK_FOUND)]
    assert adjusted(floor, found, Reason.MISPLACED) == ActState.DONE
    assert floor.stands() == (AT_KEYS, Code.FORMAL_KEYS_FOREIGN, True)
    assert counted(b, AT_KEYS, "B1-000001").accepted
    assert floor.finding() == ""
    unknown = floor.office.propose("ou", ActKind.STOCK_ADJUST, "N9", reason="lost")
    assert code_of(unknown) == Code.COUNT_UNKNOWN


def test_a_card_that_stays_missing_is_written_off_by_two(floor: Floor) -> None:
    """Without a card in hand, since there is none; its order is free then."""
    floor.office.lines[Line.KEY_REPLACEMENT] = AtKeys(floor.b)
    assert adjusted(floor, counted(floor.b, AT_KEYS)) == ActState.DONE
    act = floor.office.propose("ou", ActKind.CARD_SCRAP, "C1.0003", reason=str(Reason.LOST))
    assert code_of(act) == Code.NOT_TO_SCRAP
    (body,) = floor.b.queries.bodies("b.condition = ?", Code.STOCK_MISSING)
    act = floor.office.propose("ou", ActKind.CARD_SCRAP, body.body_id, reason=str(Reason.LOST))
    assert code_of(floor.office.confirm("ouyang", act.acts[0].act_id)) == Code.OK
    assert floor.stands(body.body_id)[1:] == (Code.SCRAPPED, False)
    assert floor.finding() == ""


def test_cards_known_by_their_carton_only_are_counted_by_carton(tmp_path: Path) -> None:
    """In the vault no card has an order yet: without the factory return numbers count as cards of
    the carton that is counted; cards without a number are counted by hand, with their carton or not
    at all. More than the books have is told, and is a recount's work."""
    b = Building.make(tmp_path)
    b.take_note(
        note([NoteCarton("C1", "102", SOCIAL, 3, ""), NoteCarton("T1", "102", TEMPORARY, 2, "w")])
    )
    b.sign_for("D1", C1=3, T1=2)
    vault = {"line": Line.INVENTORY, "carton_id": "C1"}
    assert counted(b, VAULT, "", "", "", **vault).accepted
    short = counted(b, VAULT, "", "", **vault)
    assert [(r.code, r.reason) for r in short.refused] == [(Code.STOCK_MISSING, "C1.0003")]
    more = counted(b, VAULT, "", "", "", "", **vault)
    assert [r.code for r in more.refused] == [Code.COUNT_DIFFERS]
    cards = {"line": Line.INVENTORY, "carton_id": "T1"}
    assert counted(b, VAULT, without_number=2, **cards).accepted
    assert [r.code for r in counted(b, VAULT, without_number=1, **cards).refused] == [
        Code.STOCK_MISSING
    ]
    whole = counted(b, VAULT, line=Line.INVENTORY).refused
    assert [r.reason for r in whole] == ["C1.0003", "C1.0002", "C1.0001"]
    b.take_return(factory_return([record(n) for n in range(1, 4)]))
    issued = {"carton_id": "C1"}
    two = counted(b, ISSUED, "B1-000001", "B1-000003", **issued)
    assert [(r.code, r.reason) for r in two.refused] == [(Code.STOCK_MISSING, "C1.0003")]
    b.close()


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Floor]:
    folder = tmp_path_factory.mktemp("stock")
    b = Building.make(folder)
    people = operators(folder, b)
    people.lines[Line.KEY_REPLACEMENT] = AtKeys(b)
    yield Floor(b, people)
    people.close()
    b.close()


@settings(
    max_examples=12,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],  # each example is a batch in one ledger
    suppress_health_check=[*HealthCheck],
)
@given(st.data())
def test_after_adjusting_a_count_the_same_count_differs_in_nothing(
    office: Floor, data: st.DataObject
) -> None:
    """Whatever was scanned of what the books have there, once it was adjusted: counted again so,
    nothing differs, and the books still add up to what was received."""
    b, n = office.b, next(_commands)
    batch, carton = f"B{n}", f"C{n}"
    records = [record(n * 10 + k, carton=carton, batch=batch) for k in range(1, 6)]
    b.take_return(factory_return(records, file_id=f"F{n}", batch=batch, digest=f"d{n}"))
    b.take_note(note([NoteCarton(carton, "102", SOCIAL, 5, "")], delivery_id=f"D{n}", batch=batch))
    b.sign_for(f"D{n}", **{carton: 5})
    for r in records[: data.draw(st.integers(0, 3), "bound")]:
        b.set_apart(carton, Code.FORMAL_KEYS_FOREIGN, r.record_number, r.order_id)
    mine = "b.carton_id = ?"
    for place in (AT_KEYS, work(Line.KEY_REPLACEMENT), ISSUED, AT_KEYS):
        here = {x.order_id for x in b.queries.bodies(f"{mine} and b.place = ?", carton, place)}
        known = {x.order_id for x in b.queries.bodies(mine, carton)}
        loose = {r.order_id for r in records} - known if "" in here else set()
        pool = sorted((here - {""}) | loose)
        scans = data.draw(st.lists(st.sampled_from(pool), unique=True), place) if pool else []
        first = counted(b, place, *scans, carton_id=carton)
        if {r.code for r in first.refused} & {Code.STOCK_MISSING, Code.STOCK_FOUND}:
            assert adjusted(office, first) == ActState.DONE
        after = {r.code for r in counted(b, place, *scans, carton_id=carton).refused}
        assert after <= {Code.COUNT_DIFFERS}
        assert len(b.queries.bodies(mine, carton)) == 5
    assert office.finding() == ""


TAMPERED = {
    "missed by an act that names another body": (
        "update event set data = json_set(data, '$.content.missing', json('[\"C1.0002\"]'))"
        " where type = 'act_proposed' and data ->> 'kind' = 'stock.adjust'",
    ),
    "missed by no act": ("update event set type = 'body_held' where type = 'stock_missing'",),
    "confirmed by nobody": (
        "update event set type = 'act_withdrawn' where type = 'act_confirmed'"
        " and data ->> 'act_id' = (select data ->> 'act_id' from event"
        " where type = 'act_carried_out')",
    ),
    "another result than its line's": (
        "update event set data = json_set(data, '$.result.missing', 7)"
        " where type = 'act_carried_out'",
    ),
    "missed elsewhere than it was": (
        "update event set data = json_set(data, '$.was_place', 'inspection/held')"
        " where type = 'stock_missing'",
    ),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adjusted")
    b = Building.make(folder)
    b.take_return(factory_return([record(n) for n in range(1, 4)]))
    b.take_note(note([NoteCarton("C1", "102", SOCIAL, 3, "")]))
    b.sign_for("D1", C1=3)
    b.set_apart("C1", Code.FORMAL_KEYS_FOREIGN, 1, "B1-000001")
    office: Office = operators(folder, b)
    office.lines[Line.KEY_REPLACEMENT] = AtKeys(b)
    assert adjusted(Floor(b, office), counted(b, AT_KEYS)) == ActState.DONE
    (event,) = b.queries.rows("select data from event where type = ?", EventType.STOCK_MISSING)
    assert json.loads(event["data"])["was_place"] == AT_KEYS
    office.close()
    b.close()
    return folder


@pytest.mark.parametrize("how", sorted(TAMPERED))
def test_an_adjustment_that_was_made_up_is_found(finished: Path, tmp_path: Path, how: str) -> None:
    """Though every hash was computed anew."""
    shutil.copy(finished / "ledger.db", tmp_path / "ledger.db")
    assert verify(tmp_path / "ledger.db", None, None).ok
    with opened(tmp_path) as connection:
        for statement in TAMPERED[how]:
            assert connection.run(statement)
        compute_anew(connection)
    assert not verify(tmp_path / "ledger.db", None, None).ok
