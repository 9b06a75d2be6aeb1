"""Packing (articles 11(10), 28(7)): a package is opened with the list of its cards, and closed when
exactly these were counted in it by a scanner.

Plain functions: bodies and what was scanned go in, a `Writing` and a receipt come out. A card with
an order has its social card number on its face; one without (a temporary card) is counted.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import groupby
from typing import Any

from domain.bodies import Body, Writing
from domain.changes import Event, EventType, Update
from domain.codes import Code
from domain.lines import ClosePackage, Receipt, RefusedRecord
from domain.places import PACKED, PACKING, Line
from domain.words import WORDS

PACKAGE_SIZE = 200


def whole_destinations(bodies: list[Body], limit: int) -> list[Body]:
    """Of bodies ordered by destination and cut off at `limit`: those whose destination is not
    cut, so that none gets one package more than it needs. One destination alone stays as it is."""
    last = bodies[-1].destination
    if len(bodies) < limit or bodies[0].destination == last:
        return bodies
    return [b for b in bodies if b.destination != last]


def decide_open(
    command_id: str,
    batch_id: str,
    bodies: Sequence[Body],
    with_temporary: Collection[str],
    first: int,
) -> Writing:
    """Open packages for sorted bodies of a batch, one destination, bank and kind a package;
    holders of a temporary card (orders `with_temporary`) apart. `first` is the number of the
    batch's next package. The same commit sends their lists off, since nobody packs without."""
    writing = Writing(Line.SORTING, command_id)

    def pile(body: Body) -> tuple[str, str, str, bool]:
        return body.destination, body.bank, body.kind, body.order_id in with_temporary

    lists = {"id": f"LISTS-{batch_id}-{first:04d}", "kind": "lists", "batch_id": batch_id}
    number = first
    for key, group in groupby(sorted(bodies, key=lambda b: (pile(b), b.body_id)), key=pile):
        cards = list(group)
        destination, bank, kind, temporary = key
        for at in range(0, len(cards), PACKAGE_SIZE):
            chunk = cards[at : at + PACKAGE_SIZE]
            package_id = f"{batch_id}-P{number:04d}"
            number += 1
            for body in chunk:
                writing.change(body, EventType.BODY_LISTED, place=PACKING, package_id=package_id)
            row = {
                "package_id": package_id,
                "batch_id": batch_id,
                "bank": bank,
                "kind": kind,
                "destination": destination,
                "has_temporary": int(temporary),
            }
            writing.insert("package", {**row, "state": "open"})
            data = {**row, "count": len(chunk), "outbox": {lists["id"]: lists["kind"]}}
            writing.event(Event(EventType.PACKAGE_OPENED, data=data))
    writing.insert("outbox", {**lists, "acknowledged": 0})
    return writing


def close_command(package_id: str) -> str:
    """The command that closes a package: it takes effect once."""
    return f"close:{package_id}"


def compare(command: ClosePackage, bodies: Sequence[Body], others: Mapping[str, Body]) -> Receipt:
    """Whether what was counted is the `bodies` of a package, each once; else each difference: by
    its place among the scans (from 1) or, if something was not scanned, without. `others`: bodies
    of scanned orders, by order id."""
    differs = _differences(command, bodies, others)
    counted = len(command.order_ids) + command.without_number
    if differs:
        reason = f"{command.package_id}: {counted} counted, {len(bodies)} on its list"
        return Receipt(False, Code.PACKAGE_DIFFERS, reason, records=counted, refused=tuple(differs))
    return Receipt(True, records=counted, taken=counted)


def decide_close(
    command: ClosePackage, package: Mapping[str, Any], bodies: Sequence[Body]
) -> Writing:
    """Close an open package in which exactly its `bodies` were counted (`compare`)."""
    writing = Writing(Line.SORTING, close_command(command.package_id))
    for body in bodies:
        said = {"package_id": command.package_id}
        writing.change(body, EventType.BODY_PACKED, said, place=PACKED)
    row = {"package_id": command.package_id, "state": "closed", "expect_state": "open"}
    writing.update(Update("package", ("package_id",), ("state",), ("state",), [row]))
    data = {
        "package_id": command.package_id,
        "batch_id": package["batch_id"],
        "scanned": len(command.order_ids),
        "without_number": command.without_number,
    }
    writing.event(Event(EventType.PACKAGE_CLOSED, data=data))
    return writing


def _differences(
    command: ClosePackage, bodies: Sequence[Body], others: Mapping[str, Body]
) -> list[RefusedRecord]:
    listed = {b.order_id for b in bodies if b.order_id}
    found: list[RefusedRecord] = []
    seen: set[str] = set()

    def differ(place: int, order_id: str, code: Code, reason: str = "", field: str = "") -> None:
        found.append(RefusedRecord(place, order_id, field, code, reason or WORDS[code].english))

    for place, order_id in enumerate(command.order_ids, start=1):
        if order_id not in listed:
            differ(place, order_id, Code.SCAN_FOREIGN, _where(order_id, others.get(order_id)))
        elif order_id in seen:
            differ(place, order_id, Code.SCAN_TWICE)
        seen.add(order_id)
    for order_id in sorted(listed - seen):
        differ(0, order_id, Code.SCAN_MISSING)
    without = sum(not b.order_id for b in bodies)
    if command.without_number != without:
        reason = f"{command.without_number} cards without a number counted, {without} on the list"
        differ(0, "", Code.COUNT_DIFFERS, reason, "counted_without_number")
    return found


def _where(order_id: str, body: Body | None) -> str:
    """Where a card that was scanned in the wrong package belongs."""
    if not order_id:
        return "no order stands behind its number"
    if body is None:
        return "its order has no card here"
    if body.package_id:
        return f"belongs to package {body.package_id}"
    return f"belongs to {body.place}" + (f", {body.condition}" if body.condition else "")
