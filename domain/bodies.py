"""Bodies, and how a line writes down what it decides about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from domain.changes import Changes, Delete, Event, EventType, Guard, Insert, Refused, Row, Update
from domain.codes import Code
from domain.groups import Group, GroupKey
from domain.places import (
    MISSING_READ,
    SURPLUS_READ,
    Account,
    Movement,
    Standing,
    is_legal,
    standing,
)


@dataclass(frozen=True)
class Body:
    """One piece of plastic. `identification_code` and `order_id` are empty until a chip was read
    and bound; `lease` only grows, one for each time that its first writing segment was released;
    `live` is false once it can no longer be its order's card. `ticket` is the
    feeder's mark of the plastic: by it a chip that can't be read is known again, and found in the
    stack where the feeder put it. While a station may be writing on its chip, and as long as it is
    in doubt, `leased_to` names the station, `leased_until` when its lease ends (ISO 8601, UTC) and
    `leased_in` the presentation; empty else."""

    body_id: str
    kind: str
    bank: str
    batch_id: str
    carton_id: str
    place: str
    condition: str = ""
    identification_code: str = ""
    order_id: str = ""
    lease: int = 0
    released: bool = False
    live: bool = True
    destination: str = ""
    package_id: str = ""
    ticket: str = ""
    leased_to: str = ""
    leased_until: str = ""
    leased_in: str = ""

    @property
    def account(self) -> Account:
        return Account(self.place, self.kind, self.bank, self.condition)

    @property
    def standing(self) -> Standing:
        return standing(self.place)

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Body:
        return cls(**{**row, "released": bool(row["released"]), "live": bool(row["live"])})

    def row(self) -> dict[str, Any]:
        """As the ledger's table `body` holds it."""
        return {**vars(self), "released": int(self.released), "live": int(self.live)}


_SET = (
    "identification_code", "order_id", "place", "condition", "lease", "released", "live",
    "destination", "package_id", "ticket", "leased_to", "leased_until", "leased_in",
)  # fmt: skip

BORN_WITH = ("kind", "bank", "batch_id", "carton_id")
BORNE = (
    "identification_code", "lease", "released", "live", "destination", "package_id", "ticket",
    "leased_to", "leased_until", "leased_in",
)  # fmt: skip
"""What the data of a body's events say about it besides place, condition and order: the first
four once, in the event of its receipt; the rest there and whenever they change. So the events
alone tell every column of its row (`ledger.replay`)."""


_UNSAID = {f.name: f.default for f in fields(Body)} | {"released": 0, "live": 1}


class Writing:
    """Collects the changes of one command: events, and the movements and guarded row changes
    that follow from them. A body moves only along `domain.places.LEGAL`."""

    def __init__(self, line: str, command_id: str) -> None:
        self._line = line
        self._command_id = command_id
        self._events: list[Event] = []
        self._moves: Counter[tuple[Account, Account]] = Counter()
        self._inserts: dict[str, list[Row]] = {}
        self._updates: dict[str, Row] = {}
        self._last: dict[str, Body] = {}
        self._other_updates: list[Update] = []
        self._settled: dict[GroupKey, tuple[Group, Group]] = {}
        self._guards: list[Guard] = []
        self._deletes: list[Delete] = []
        self.reply: Any = None

    def event(self, event: Event) -> None:
        self._events.append(event)

    def insert(self, table: str, row: Row) -> None:
        self._inserts.setdefault(table, []).append(row)

    def update(self, update: Update) -> None:
        self._other_updates.append(update)

    def delete(self, delete: Delete) -> None:
        self._deletes.append(delete)

    def guard(self, table: str, equal: Row, rows: int) -> None:
        """Refuse the commit unless so many rows have these values by then."""
        self._guards.append(Guard(table, equal, rows))

    def move_outside(self, source: Account, target: Account, count: int) -> None:
        """Bodies known by count only."""
        if count:
            self._moves[source, target] += count

    def settle(self, key: GroupKey, before: Group, after: Group) -> None:
        """The numbers of a group change: what its strangers stand for is settled with them, once
        in a command. Of the two lines that decide on a group, the one whose `before` is not the
        last settled one any more is refused."""
        first, _ = self._settled.get(key, (before, before))
        self._settled[key] = first, after

    def receive(self, body: Body, source: Account) -> None:
        """A new body, out of an outside account."""
        self._check(source.place, body.place, new=True)
        self._moves[source, body.account] += 1
        row = body.row()
        # Most bodies come without these: only what is not empty is worth its bytes.
        borne = {c: row[c] for c in BORNE if row[c] != _UNSAID[c]}
        data = {"source": source.place, **{c: row[c] for c in BORN_WITH}, **borne}
        self._events.append(
            Event(
                EventType.BODY_RECEIVED,
                body.body_id,
                body.order_id,
                body.place,
                body.condition,
                data,
            )
        )
        self.insert("body", row)

    def change(self, body: Body, event: EventType, data: Row | None = None, **changed: Any) -> Body:
        """Change `body` and say so in an event; `place` and `condition` among `changed` move it.
        Answers the body as it will be. The commit fails if its place or lease had changed; a
        body that this command has changed already, handed in as it was before, is refused."""
        if self._last.get(body.body_id, body) != body:
            raise Refused(Code.GUARD_FAILED, f"{body.body_id} is changed twice in one command")
        after = replace(body, **changed)
        self._last[body.body_id] = after
        moved = after.account != body.account
        row, before = after.row(), body.row()
        said = {c: row[c] for c in BORNE if row[c] != before[c]}
        if moved:
            self._check(body.place, after.place)
            self._moves[body.account, after.account] += 1
        self._events.append(
            Event(
                event,
                body.body_id,
                after.order_id,
                after.place if moved else "",
                after.condition if moved else "",
                {**(data or {}), **said},
            )
        )
        # A body may change several times in one command: what must hold is how it was first.
        first = self._updates.get(
            body.body_id, {"expect_place": body.place, "expect_lease": body.lease}
        )
        self._updates[body.body_id] = {
            "body_id": body.body_id,
            **{c: row[c] for c in _SET},
            "expect_place": first["expect_place"],
            "expect_lease": first["expect_lease"],
        }
        return after

    def _check(self, source: str, target: str, *, new: bool = False) -> None:
        if not is_legal("" if new else source, target):
            raise ValueError(f"no body goes from {source} to {target}")

    @property
    def empty(self) -> bool:
        rows = self._inserts or self._other_updates or self._deletes
        return not (self._events or self._moves or rows)

    def changes(self) -> Changes:
        updates = list(self._other_updates)
        events, moves = list(self._events), Counter(self._moves)
        inserts = {table: list(rows) for table, rows in self._inserts.items()}
        for key, (before, after) in sorted(self._settled.items(), key=lambda item: item[0]):
            row = {**key._asdict(), "times": before.times + 1, "stand_ins": after.due}
            events.append(Event(EventType.GROUP_SETTLED, data=row))
            surplus = Account(SURPLUS_READ, key.kind, key.bank)
            missing = Account(MISSING_READ, key.kind, key.bank)
            more = after.due - before.stand_ins
            if more:
                moves[(surplus, missing) if more > 0 else (missing, surplus)] += abs(more)
            if before.times:
                guarded = [{**row, "expect_times": before.times}]
                columns = ("times", "stand_ins")
                updates.append(
                    Update("settled_group", GroupKey._fields, columns, ("times",), guarded)
                )
            else:
                inserts.setdefault("settled_group", []).append(row)
        if self._updates:
            rows = list(self._updates.values())
            updates.append(Update("body", ("body_id",), _SET, ("place", "lease"), rows))
        return Changes(
            self._line,
            self._command_id,
            tuple(events),
            tuple(Movement(a, b, n) for (a, b), n in sorted(moves.items())),
            tuple(Insert(t, r) for t, r in inserts.items()),
            tuple(updates),
            self.reply,
            tuple(self._guards),
            tuple(self._deletes),
        )
