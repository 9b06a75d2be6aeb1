"""What inventory decides when a carton of a signed delivery is counted anew.

A plain function: what is known goes in, a `Writing` with all consequences comes out. The new
count takes the place of the old one in one commit: cards that were beyond it become counted ones
and go on, bodies that nobody saw are withdrawn, missing ones are made; and what stands for what
is settled again, since a stranger that the old count had explained may now stand for a card that
is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from domain.bodies import Body, Writing
from domain.changes import Event, EventType, Update
from domain.codes import Code
from domain.groups import Group, GroupKey
from domain.lines import Receipt
from domain.places import (
    MISSING_COUNTED,
    SURPLUS_COUNTED,
    SURPLUS_READ,
    VAULT,
    Account,
    Line,
    transit,
    work,
)
from ledger.queries import Carton

ISSUED = transit(Line.INVENTORY, Line.KEY_REPLACEMENT)
AT_KEYS = work(Line.KEY_REPLACEMENT)


@dataclass(frozen=True)
class Counted:
    """A carton as it stands: its bodies without those that were withdrawn; `rows`: how many it
    ever had; `number`: how often it was recounted; `issue`: whether what is made goes on at
    once."""

    carton: Carton
    bodies: Sequence[Body]
    rows: int
    number: int
    group: Group
    issue: bool

    @property
    def beyond(self) -> list[Body]:
        return [b for b in self.bodies if b.condition == Code.OVER_COUNT]

    @property
    def unseen(self) -> list[Body]:
        """Bodies that were counted and never came to a reader."""
        return [
            b
            for b in self.bodies
            if b.place in (VAULT, ISSUED, AT_KEYS)
            and not (b.identification_code or b.order_id or b.ticket)
        ]


def recount_problem(known: Counted, counted: int) -> Receipt | None:
    """Why a count can't be taken; None if it can."""
    seen = len(known.bodies) - len(known.unseen)
    if counted < seen:
        where = f"{known.carton.carton_id}: {seen} cards were seen"
        return Receipt(False, Code.COUNT_TOO_LOW, where)
    return None


def decide_recount(known: Counted, counted: int) -> Writing:
    """The carton has `counted` cards, wherever they lie now."""
    carton = known.carton
    writing = Writing(Line.INVENTORY, f"recount:{carton.carton_id}:{known.number + 1}")
    group = replace(known.group, counted=known.group.counted - carton.counted + counted)
    data = {
        "carton_id": carton.carton_id,
        "batch_id": carton.batch_id,
        "bank": carton.bank,
        "kind": carton.kind,
        "before": carton.counted,
        "counted": counted,
    }
    writing.event(Event(EventType.CARTON_RECOUNTED, data=data))
    writing.settle(GroupKey(carton.batch_id, carton.bank, carton.kind), known.group, group)
    tally = _Tally(writing, carton, known.group)
    for body in known.beyond:
        tally.take_up(body)
    excess = len(known.bodies) - counted
    for body in known.unseen[::-1][: max(0, excess)]:
        tally.withdraw(body)
    for number in range(known.rows + 1, known.rows + 1 + max(0, -excess)):
        tally.receive(number, issue=known.issue)
    row = {"carton_id": carton.carton_id, "counted": counted, "expect_counted": carton.counted}
    writing.update(Update("carton", ("carton_id",), ("counted",), ("counted",), [row]))
    return writing


class _Tally:
    """Counts up and down, card by card: the first `advised` of a group are the advised ones, what
    is beyond them is surplus."""

    def __init__(self, writing: Writing, carton: Carton, group: Group) -> None:
        self._writing, self._carton = writing, carton
        self._counted, self._advised = group.counted, group.advised

    def _up(self) -> str:
        self._counted += 1
        return MISSING_COUNTED if self._counted <= self._advised else SURPLUS_COUNTED

    def take_up(self, body: Body) -> None:
        """A card beyond the old count is one of the new: fed again, it goes on."""
        source = self._up()
        bank, kind = body.bank, body.kind
        self._writing.move_outside(
            Account(source, kind, bank), Account(SURPLUS_READ, kind, bank), 1
        )
        self._writing.change(
            body, EventType.BODY_COUNTED, {"source": source}, place=AT_KEYS, condition=""
        )

    def withdraw(self, body: Body) -> None:
        """A body that nobody saw does not exist."""
        target = MISSING_COUNTED if self._counted <= self._advised else SURPLUS_COUNTED
        self._counted -= 1
        self._writing.change(body, EventType.BODY_WITHDRAWN, place=target, live=False)

    def receive(self, number: int, *, issue: bool) -> None:
        carton = self._carton
        body = Body(
            f"{carton.carton_id}.{number:04d}",
            carton.kind,
            carton.bank,
            carton.batch_id,
            carton.carton_id,
            VAULT,
            destination=carton.destination,
        )
        self._writing.receive(body, Account(self._up(), carton.kind, carton.bank))
        if issue:
            self._writing.change(body, EventType.BODY_ISSUED, place=ISSUED)
