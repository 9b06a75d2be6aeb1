"""What sorting decides when card management cancels or holds orders (articles 8, 11).

A plain function: the command and how its orders stand go in, a `Writing` with all consequences
comes out. A body that sorting has is set apart, or taken back, in the same commit; one that is
still on its way is set apart by the line that it comes to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from actors.receiving import receipt_from_json, receipt_to_json
from domain.bodies import Body, Writing
from domain.changes import Event, EventType, Update
from domain.codes import Code
from domain.factory_return import is_id
from domain.lines import OrderAct, OrdersCommand, Receipt, RefusedRecord
from domain.places import PACKED, PACKING, READ_AGAIN, Line, Standing, held, work
from domain.words import WORDS
from ledger.digests import digest_of
from ledger.queries import OrderState

WORK = work(Line.SORTING)
HELD = held(Line.SORTING)
REASON = {OrderAct.CANCEL: Code.CANCELLED, OrderAct.HOLD: Code.ON_HOLD}


def orders_command(command_id: str) -> str:
    """The command under which the ledger keeps what card management was answered."""
    return f"orders:{command_id}"


def answer_again(command: OrdersCommand, stored: Mapping[str, Any]) -> Receipt:
    """What this command was answered, also if nothing of it could be taken; ID_REUSED if another
    came under its id."""
    if stored["digest"] != _digest(command):
        return Receipt(False, Code.ID_REUSED, f"{command.command_id}: other orders")
    receipt = receipt_from_json(stored, repeated=True)
    return replace(receipt, **_overall(receipt.taken))


def _digest(command: OrdersCommand) -> str:
    """Tells a repeat from another command under the same id."""
    return digest_of([command.act, *command.order_ids])


def _overall(taken: int) -> dict[str, Any]:
    return {"accepted": bool(taken), "code": "" if taken else Code.NOTHING_TAKEN}


def decide_orders(
    command: OrdersCommand, states: Mapping[str, OrderState]
) -> tuple[Writing, Receipt]:
    """Mark each order, or refuse it by its place in the command. What is so already is taken and
    changes nothing. The reply is to be kept whatever came of it: the command again, later, must not
    do what it could not do now."""
    writing = Writing(Line.SORTING, orders_command(command.command_id))
    refused = []
    unlisted = set()
    for place, order_id in enumerate(command.order_ids, start=1):
        state = states.get(order_id)
        code = _why_not(command.act, state)
        if code is None and order_id in command.order_ids[: place - 1]:
            code = Code.REPEATED_NUMBER
        if state is None or code is not None:
            code = code or Code.ORDER_UNKNOWN
            reason = WORDS[code].english
            # What is no id may be anything, and the reply is kept for good: its place says enough.
            named = order_id if is_id(order_id) else ""
            refused.append(RefusedRecord(place, named, "order_id", code, reason))
        else:
            _mark(writing, command, state)
            if state.body is not None and state.body.place == PACKING:
                unlisted.add(state.body.batch_id)
    for batch_id in sorted(unlisted):
        _lists_again(writing, command, batch_id)
    count = len(command.order_ids)
    taken = count - len(refused)
    receipt = Receipt(**_overall(taken), records=count, taken=taken, refused=tuple(refused))
    writing.reply = {"digest": _digest(command), **receipt_to_json(receipt)}
    return writing, receipt


def _why_not(act: OrderAct, state: OrderState | None) -> Code | None:
    if state is None:
        return Code.ORDER_UNKNOWN
    body = state.body
    if body is not None and (body.place == PACKED or body.standing is Standing.SHIPPED):
        return Code.ALREADY_PACKED
    if state.final:
        return Code.RETURN_FINAL
    if act is OrderAct.RELEASE and state.stopped != Code.ON_HOLD:
        return Code.NOT_ON_HOLD
    if act is OrderAct.HOLD and state.stopped == Code.CANCELLED:
        return Code.CANCELLED
    return None


def _mark(writing: Writing, command: OrdersCommand, state: OrderState) -> None:
    reason = REASON.get(command.act, "")
    if state.stopped == reason:
        return
    kind = EventType.ORDER_STOPPED if reason else EventType.ORDER_RELEASED
    data = {"code": reason} if reason else {}
    writing.event(Event(kind, order_id=state.order_id, data=data))
    row = {"order_id": state.order_id, "reason": reason}
    if state.stopped is None:
        writing.insert("order_stop", row)
    else:
        row["expect_reason"] = state.stopped
        writing.update(Update("order_stop", ("order_id",), ("reason",), ("reason",), [row]))
    body = state.body
    if body is None:
        return
    on_hold = body.place == HELD and body.condition == Code.ON_HOLD
    if reason and (on_hold or body.place in (WORK, READ_AGAIN, PACKING)):
        set_apart(writing, body, reason)
    elif on_hold:
        writing.change(body, EventType.BODY_RELEASED, place=WORK, condition="")


def _lists_again(writing: Writing, command: OrdersCommand, batch_id: str) -> None:
    """Whoever packs by the lists that were printed would look for a card that is set apart."""
    # No id has a colon: other lists have other ids.
    lists = {"id": f"LISTS-{batch_id}:{command.command_id}", "kind": "lists", "batch_id": batch_id}
    writing.insert("outbox", {**lists, "acknowledged": 0})
    data = {"batch_id": batch_id, "outbox": {lists["id"]: lists["kind"]}}
    writing.event(Event(EventType.LISTS_CHANGED, data=data))


def set_apart(writing: Writing, body: Body, reason: str) -> None:
    """A body whose order is stopped leaves the work of sorting, and the list of its package."""
    writing.change(body, EventType.BODY_HELD, place=HELD, condition=reason, package_id="")
