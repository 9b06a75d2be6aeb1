"""Writing: what a line decides about bodies, as events, movements and guarded rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.bodies import BORN_WITH, BORNE, Body, Writing
from domain.changes import EventType
from domain.places import (
    SURPLUS_COUNTED,
    VAULT,
    Account,
    Kind,
    Line,
    Movement,
    Standing,
    held,
    transit,
    work,
)

SOURCE = Account(SURPLUS_COUNTED, Kind.SOCIAL_SECURITY_CARD, "102")
ISSUED = transit(Line.INVENTORY, Line.KEY_REPLACEMENT)
WORK = work(Line.KEY_REPLACEMENT)
BODY = Body("C.0001", Kind.SOCIAL_SECURITY_CARD, "102", "B", "C", VAULT)


def writing() -> Writing:
    return Writing(Line.KEY_REPLACEMENT, "x")


def test_a_row_and_a_body_are_one_thing() -> None:
    """`row` and `from_row` are inverse to each other."""
    body = replace(BODY, lease=3, released=True, live=False, order_id="O", package_id="P")
    assert Body.from_row(body.row()) == body
    assert body.standing is Standing.IN_WORK


def test_receiving_makes_the_row_the_movement_and_the_event() -> None:
    """All three say the same; the event alone tells what the body is."""
    w = writing()
    w.receive(replace(BODY, destination="430102"), SOURCE)
    changes = w.changes()
    (event,) = changes.events
    assert (event.type, event.place) == (EventType.BODY_RECEIVED, VAULT)
    assert event.data == {
        "source": SURPLUS_COUNTED,
        "kind": Kind.SOCIAL_SECURITY_CARD,
        "bank": "102",
        "batch_id": "B",
        "carton_id": "C",
        "destination": "430102",
    }
    assert changes.movements == (Movement(SOURCE, BODY.account, 1),)
    assert [i.table for i in changes.inserts] == ["body"]


def test_movements_are_sums() -> None:
    """Bodies that go the same way are one movement."""
    w = writing()
    for n in range(5):
        w.change(replace(BODY, body_id=f"C.{n}"), EventType.BODY_ISSUED, place=ISSUED)
    (movement,) = w.changes().movements
    assert movement.count == 5


def test_the_guard_is_how_the_body_was_first() -> None:
    """A body that changes twice in one command is guarded by place and lease from before."""
    w = writing()
    issued = replace(BODY, place=ISSUED, lease=2)
    taken = w.change(issued, EventType.BODY_TAKEN, place=WORK)
    w.change(taken, EventType.KEY_WRITE_RELEASED, lease=3, released=True)
    (update,) = w.changes().updates
    (row,) = update.rows
    assert (row["expect_place"], row["expect_lease"]) == (ISSUED, 2)
    assert (row["place"], row["lease"], row["released"]) == (WORK, 3, 1)
    assert tuple(update.expect) == ("place", "lease")


@pytest.mark.parametrize(
    ("source", "target"), [(VAULT, WORK), (WORK, VAULT), (VAULT, "courier/x"), (VAULT, "nowhere")]
)
def test_no_body_goes_where_it_may_not(source: str, target: str) -> None:
    """An illegal move raises, and nothing of it is written."""
    w = writing()
    with pytest.raises(ValueError, match="no body goes"):
        w.change(replace(BODY, place=source), EventType.BODY_TAKEN, place=target)
    assert w.empty
    with pytest.raises(ValueError, match="no body goes"):
        w.receive(replace(BODY, place=WORK), SOURCE)
    assert w.empty


def test_a_change_without_movement_names_no_place() -> None:
    """An event with a place moves its body; one without does not."""
    w = writing()
    w.change(replace(BODY, place=WORK), EventType.KEY_WRITE_RELEASED, {"station": "S"}, lease=1)
    changes = w.changes()
    assert changes.movements == ()
    assert changes.events[0].place == ""
    assert changes.events[0].data == {"station": "S", "lease": 1}


BORNE_VALUES = {
    "identification_code": st.sampled_from(["", "code"]),
    "lease": st.integers(0, 3),
    "released": st.booleans(),
    "live": st.booleans(),
    "destination": st.sampled_from(["", "430102"]),
    "package_id": st.sampled_from(["", "P1"]),
    "ticket": st.sampled_from(["", "T1"]),
    "leased_to": st.sampled_from(["", "S1"]),
    "leased_until": st.sampled_from(["", "2024-03-01T08:10:00.000+00:00"]),
    "leased_in": st.sampled_from(["", "a presentation"]),
}
EMPTY = ("identification_code", "destination", "package_id", "ticket", "leased_to", "leased_until",
         "leased_in")  # fmt: skip


@given(st.fixed_dictionaries(BORNE_VALUES), st.fixed_dictionaries(BORNE_VALUES))
def test_events_alone_tell_the_whole_row(first: dict[str, Any], then: dict[str, Any]) -> None:
    """Whatever a body is born with and whatever changes, the data of its events, one over the
    other, and their places give its row again."""
    body = Body.from_row({**BODY.row(), **first})
    w = writing()
    w.receive(body, SOURCE)
    after = w.change(
        w.change(body, EventType.BODY_ISSUED, place=ISSUED),
        EventType.BODY_TAKEN,
        place=WORK,
        **then,
    )
    told: dict[str, object] = {"live": 1, "body_id": body.body_id, "order_id": ""}
    told |= dict.fromkeys(("released", "lease"), 0) | {"condition": ""}
    told |= dict.fromkeys(EMPTY, "")
    for event in w.changes().events:
        told |= {c: event.data[c] for c in (*BORN_WITH, *BORNE) if c in event.data}
        if event.place:
            told |= {"place": event.place, "condition": event.condition}
    assert told == after.row()


def test_the_same_decision_has_the_same_bytes_and_another_has_not() -> None:
    """`canonical` tells one content from another, whatever the order of names."""

    def issue(place: str = ISSUED, reply: object = None, **data: object) -> bytes:
        w = writing()
        w.change(BODY, EventType.BODY_ISSUED, data, place=place)
        w.reply = reply
        return w.changes().canonical()

    assert issue(a=1, b=2) == issue(b=2, a=1)
    assert len({issue(), issue(a=1), issue(a="1"), issue(reply={}), issue(reply=[])}) == 5


def test_a_reason_is_an_account_of_its_own() -> None:
    """What is held for one reason lies apart from what is held for another."""
    w = writing()
    at_work = replace(BODY, place=WORK)
    for n, reason in enumerate(("NOT_IN_RETURN", "WRONG_KIND")):
        w.change(
            replace(at_work, body_id=f"C.{n}"),
            EventType.BODY_HELD,
            place=held(Line.KEY_REPLACEMENT),
            condition=reason,
        )
    assert [m.target.condition for m in w.changes().movements] == ["NOT_IN_RETURN", "WRONG_KIND"]
