"""What a line decided, ready to be committed: `decide(state, chunk) -> Changes`.

Changes are data. `ledger.commit` is the only door through which they take effect, all of them
or none, once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from domain.codes import Code
from domain.places import Movement

Row = Mapping[str, Any]


class EventType(StrEnum):
    """What can happen to an order or a body, or be done by people. `moves` in the comment: the
    event names a place."""

    RETURN_ACCEPTED = "return_accepted"
    ORDER_ADVISED = "order_advised"
    RECORD_REFUSED = "record_refused"
    ORDER_STOPPED = "order_stopped"
    ORDER_RELEASED = "order_released"
    CORRECTION_ACCEPTED = "correction_accepted"
    RECORD_CORRECTED = "record_corrected"
    NOTE_ACCEPTED = "note_accepted"
    CARTON_SIGNED_FOR = "carton_signed_for"
    CARTON_RECOUNTED = "carton_recounted"
    GROUP_SETTLED = "group_settled"  # how many bodies of a group stand in for missing ones
    BODY_COUNTED = "body_counted"  # moves: what was beyond the count is counted, back to its line
    BODY_WITHDRAWN = "body_withdrawn"  # moves: a recount found that there is no such card
    BODY_RECEIVED = "body_received"  # moves: into the vault
    BODY_ISSUED = "body_issued"  # moves: to a line
    BODY_TAKEN = "body_taken"  # moves: a line takes what was sent
    KEY_WRITE_RELEASED = "key_write_released"  # moves, if in doubt; leased to a station
    CHIP_TAKEN_BACK = "chip_taken_back"  # moves, if in doubt: its keys are proven anew, leased anew
    BODY_IN_DOUBT = "body_in_doubt"  # moves: a lease ran out, and the chip may have been written
    TRANSCRIPT_KEPT = "transcript_kept"  # what a station told when its lease was over
    KEYS_REPLACED = "keys_replaced"  # moves
    INSPECTED = "inspected"  # moves
    BODY_REJECTED = "body_rejected"  # moves
    BODY_HELD = "body_held"  # moves
    BODY_RELEASED = "body_released"  # moves: held no longer, back to work
    BODY_SORTED = "body_sorted"  # moves
    LOT_PRESENTED = "lot_presented"  # an inspection lot, its plan and the seed of its draw
    SAMPLE_DRAWN = "sample_drawn"  # of a lot
    BODY_DRAWN = "body_drawn"  # moves: to be read again
    SAMPLE_PASSED = "sample_passed"  # moves: it was, and is in order
    SAMPLE_MISSING = "sample_missing"  # it was not to be found: its lot counts it as nonconforming
    LOT_ACCEPTED = "lot_accepted"
    LOT_REFUSED = "lot_refused"
    LOT_RELEASED = "lot_released"  # refused before: two people let it go on
    LOT_RECALLED = "lot_recalled"  # refused before: two people have every card read again
    PACKAGE_OPENED = "package_opened"
    BODY_LISTED = "body_listed"  # moves: it is on the sorting list of an open package
    BODY_PACKED = "body_packed"  # moves: it was counted in its package
    BODY_SHIPPED = "body_shipped"  # moves
    PACKAGE_CLOSED = "package_closed"  # what was counted in it is what is on its list
    LISTS_CHANGED = "lists_changed"  # cards left the lists of open packages: printed anew
    ACT_CARRIED_OUT = "act_carried_out"  # by the line whose cards an act of two people is about
    STOCK_COUNTED = "stock_counted"  # what lies at a place, by scan, against the books
    STOCK_MISSING = "stock_missing"  # moves: two people adjust by a count
    STOCK_FOUND = "stock_found"  # moves: back to where it was missed
    BODY_SCRAPPED = "body_scrapped"  # moves: two people had it in hand
    RETURN_WRITTEN = "return_written"
    RETURN_ACKNOWLEDGED = "return_acknowledged"
    # How long things are kept (line `inventory`).
    PERSONAL_DATA_DESTROYED = "personal_data_destroyed"  # of a batch: its data key is gone
    BACKUP_MADE = "backup_made"  # said before it is written: a copy that may exist is listed
    BACKUP_REMOVED = "backup_removed"
    LEDGER_RESTORED = "ledger_restored"  # from a backup; what was committed after it is lost
    # Of people and of what takes two of them (line `custody`).
    PERSON_ADDED = "person_added"
    ROLES_CHANGED = "roles_changed"
    PASSWORD_CHANGED = "password_changed"
    PERSON_CLOSED = "person_closed"
    LOGGED_IN = "logged_in"
    LOGIN_REFUSED = "login_refused"
    LOGGED_OUT = "logged_out"
    ACT_PROPOSED = "act_proposed"
    ACT_CONFIRMED = "act_confirmed"
    ACT_DONE = "act_done"
    ACT_REFUSED = "act_refused"
    ACT_WITHDRAWN = "act_withdrawn"
    KEY_STAGED = "key_staged"
    KEY_ACTIVATED = "key_activated"
    KEY_RETIRED = "key_retired"
    KEY_DESTROYED = "key_destroyed"
    KEY_EXPORTED = "key_exported"
    KEY_RESTORED = "key_restored"


SENDING = (EventType.PACKAGE_OPENED, EventType.LISTS_CHANGED, EventType.RETURN_WRITTEN)
"""Events with an `outbox` in their data: what leaves by them (kind by id)."""


@dataclass(frozen=True)
class Event:
    """Body and order ids only; `data` never holds a name or a number of a person. An event with
    a `place` moves its body there (`condition` is the reason, for rejected and held)."""

    type: EventType
    body_id: str = ""
    order_id: str = ""
    place: str = ""
    condition: str = ""
    data: Row = field(default_factory=dict)


@dataclass(frozen=True)
class Insert:
    """New rows of one table, all with the same columns."""

    table: str
    rows: Sequence[Row]


@dataclass(frozen=True)
class Update:
    """Changed rows of one table. `key` finds a row, `set` are its new values, `expect` must
    still hold inside the transaction: one row that does not fit refuses the whole commit."""

    table: str
    key: Sequence[str]
    set: Sequence[str]
    expect: Sequence[str]
    rows: Sequence[Row]
    """Each row has a value for every key and set column, and `expect_<column>` for the rest."""


@dataclass(frozen=True)
class Delete:
    """Rows of one table that go: all whose `column` is one of `values`, and these must be `rows`
    in number, or the whole commit is refused."""

    table: str
    column: str
    values: Sequence[str]
    rows: int


@dataclass(frozen=True)
class Guard:
    """So many rows of `table` must have the values `equal` inside the transaction, or the commit
    is refused: what a line has read of another's rows may have changed since."""

    table: str
    equal: Row
    rows: int


@dataclass(frozen=True)
class Changes:
    """All that one command does. The same `command_id` with the same content takes effect once
    and is answered with the same `reply`; with other content it is refused."""

    line: str
    command_id: str
    events: Sequence[Event] = ()
    movements: Sequence[Movement] = ()
    inserts: Sequence[Insert] = ()
    updates: Sequence[Update] = ()
    reply: Any = None
    guards: Sequence[Guard] = ()
    deletes: Sequence[Delete] = ()

    def canonical(self) -> bytes:
        """The bytes whose hash tells this content from another. (Guards are no content: they say
        when it was decided.)"""
        return canonical_json(
            [
                self.line,
                self.command_id,
                [event_row(e) for e in self.events],
                [movement_row(m) for m in self.movements],
                [[i.table, [dict(r) for r in i.rows]] for i in self.inserts],
                [[u.table, [dict(r) for r in u.rows]] for u in self.updates],
                self.reply,
                # Only where there are any: what older commands hashed to stays what it was.
                *([[d.table, d.column, list(d.values)] for d in self.deletes]),
            ]
        )


_CANONICAL = json.JSONEncoder(
    ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False
)
"""Made once: a ledger has many values."""


def canonical_json(value: Any) -> bytes:
    """One spelling for one value: sorted names, no blanks, UTF-8."""
    return _CANONICAL.encode(value).encode("utf-8")


def event_row(event: Event) -> dict[str, Any]:
    """An event as the ledger stores and hashes it."""
    return {
        "type": str(event.type),
        "body_id": event.body_id,
        "order_id": event.order_id,
        "place": event.place,
        "condition": event.condition,
        "data": dict(event.data),
    }


def movement_row(m: Movement) -> dict[str, Any]:
    """A movement as the ledger stores and hashes it."""
    return {
        "source_place": m.source.place,
        "source_condition": m.source.condition,
        "target_place": m.target.place,
        "target_condition": m.target.condition,
        "kind": m.source.kind,
        "bank": m.source.bank,
        "count": m.count,
    }


@dataclass(frozen=True)
class Committed:
    """`repeated`: the command had taken effect before, and `reply` is the one of that time."""

    reply: Any
    number: int
    repeated: bool


class Refused(Exception):
    """A commit that took no effect: its epoch is stale, a guard failed, or the command id had
    other content. `code` is one of `domain.codes.Code`."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}"


class Away(Exception):
    """A part that is needed does not answer now; what was asked may or may not have happened
    and can be asked again under the same id."""

    code = Code.UNAVAILABLE
    """What who waits for it is told."""


class KeysAway(Away):
    """No key provider is left: what needs keys pauses until one is back."""

    code = Code.KEY_PROVIDER_AWAY


class Fault(Away):
    """A part met a fault of its program over what it was asked: asked again it may fail again."""
