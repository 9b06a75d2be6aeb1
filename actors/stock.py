"""Stock-take: what lies at a place, by scan, against the books; and the act that adjusts them.

The count is blind, kept as STOCK_COUNTED and changes nothing. Two people adjust by it
(stock.adjust): what is missing goes to what its line holds, as STOCK_MISSING: on the books, shown,
and still its order's, since a lost card may turn up. What was missing and lies there again goes
back to where it was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from domain.bodies import Body, Writing
from domain.changes import Event, EventType
from domain.codes import UNADVISED, Code
from domain.custody import Denied
from domain.lines import ConfirmedAct, LedgerDoor, Receipt, RefusedRecord, StockCount
from domain.places import STOCKED, Kind, Line, held, owner
from domain.words import WORDS
from ledger import stock
from ledger.queries import Queries

MOST_DIFFERENCES = 1_000
"""Of one count; a place with more is counted carton by carton."""


async def count(line: str, ledger: LedgerDoor, queries: Queries, command: StockCount) -> Receipt:
    """Compare and keep what differs under an id, once for a command. The receipt is accepted if
    nothing differs; it names the count as its `reason`."""
    command_id = f"count:{command.command_id}"
    known = queries.reply(line, command_id)
    if known is None:
        if command.place not in STOCKED or owner(command.place) != line:
            return Receipt(False, Code.PLACE_UNKNOWN, command.place)
        found = _Comparison(queries, command)
        if len(found.missing) + len(found.found) > MOST_DIFFERENCES:
            return Receipt(False, Code.FILE_TOO_LARGE, f"{len(found.missing)} missing: --carton")
        known = {
            "count_id": f"{line}-N{stock.counts_of(queries, line) + 1:04d}",
            "place": command.place,
            "carton_id": command.carton_id,
            "scanned": len(command.order_ids) + command.without_number,
            "missing": [b.body_id for b in found.missing],
            "found": [b.body_id for b in found.found],
            "differs": found.differs,
        }
        writing = Writing(line, command_id)
        writing.reply = known
        writing.event(Event(EventType.STOCK_COUNTED, data=known))
        await ledger.commit(writing.changes())
    refused = tuple(
        RefusedRecord(n, order_id, "social_card_number" if n else "", code, note)
        for n, order_id, code, note in known["differs"]
    )
    code = Code.STOCK_DIFFERS if refused else Code.OK
    return Receipt(not refused, code, known["count_id"], records=known["scanned"], refused=refused)


class _Comparison:
    """`missing`: on the books here, not scanned; `found`: missing from here before, scanned now.
    `differs`: (place of the scan from 1, or 0; order; code; note)."""

    def __init__(self, queries: Queries, command: StockCount) -> None:
        self._command = command
        self.missing: list[Body] = []
        self.found: list[Body] = []
        self.differs: list[tuple[int, str, str, str]] = []
        here = queries.bodies(
            "b.place = ? and ? in ('', b.carton_id) and b.condition <> ?",
            command.place, command.carton_id, Code.STOCK_MISSING,
        )  # fmt: skip
        # What a station has leased lies in its reader.
        here = [b for b in here if not b.leased_until or b.condition]
        lost = stock.missing_from(queries, command.place, command.carton_id)
        loose = self._numbered(queries, here, lost)
        self._unnumbered(here, lost, loose, _is_unknown_here(queries, command))

    def _numbered(
        self, queries: Queries, here: Sequence[Body], lost: Sequence[Body]
    ) -> Counter[str]:
        """Cards of bound bodies. Answers how many were scanned of each carton whose order has no
        body: they are known by their carton only; "" counts what no order stands behind."""
        of_order = {b.order_id: b for b in (*lost, *here) if b.order_id}
        elsewhere = queries.bodies_of_orders(self._command.order_ids)
        cartons = stock.cartons_of_orders(queries, self._command.order_ids)
        seen: set[str] = set()
        loose: Counter[str] = Counter()
        for place, order_id in enumerate(self._command.order_ids, start=1):
            if order_id and order_id in seen:
                self._differ(place, order_id, Code.SCAN_TWICE)
            elif order_id in of_order:
                if of_order[order_id].condition == Code.STOCK_MISSING:
                    self._is_found(of_order[order_id], place)
            elif body := elsewhere.get(order_id):
                where = f"{body.place} {body.condition}".strip()
                self._differ(place, order_id, Code.SCAN_ELSEWHERE, where)
            else:
                loose[cartons.get(order_id, "")] += 1
                if not order_id:
                    self._differ(place, "", Code.SCAN_UNKNOWN)
            seen.add(order_id)
        for body in here:
            if body.order_id and body.order_id not in seen:
                self._is_missing(body)
        return loose

    def _unnumbered(
        self, here: Sequence[Body], lost: Sequence[Body], loose: Counter[str], unknown: bool
    ) -> None:
        """Bodies without order, carton by carton, by their number alone. Those that have none on
        their face are counted with their carton, or not at all."""
        mine = [
            b for b in here if not b.order_id and b.condition not in UNADVISED
            and (self._command.carton_id or b.kind == Kind.SOCIAL_SECURITY_CARD)
        ]  # fmt: skip
        if self._command.carton_id:
            loose[self._command.carton_id] += self._command.without_number
            if unknown:  # nothing tells whose the numbers are
                loose[self._command.carton_id] += loose.pop("", 0)
                self.differs = [d for d in self.differs if d[2] != Code.SCAN_UNKNOWN]
        cartons = {b.carton_id for b in mine} | (loose.keys() - {""})
        for carton_id in sorted(cartons):
            there = [b for b in mine if b.carton_id == carton_id]
            gone = [b for b in lost if not b.order_id and b.carton_id == carton_id]
            more = loose[carton_id] - len(there)
            for body in there[::-1][: max(0, -more)]:
                self._is_missing(body)
            for body in gone[: max(0, more)]:
                self._is_found(body, 0)
            if more > len(gone):
                note = f"{carton_id}: {more - len(gone)} more than on the books"
                self._differ(0, "", Code.COUNT_DIFFERS, note)

    def _is_missing(self, body: Body) -> None:
        self.missing.append(body)
        self._differ(0, body.order_id, Code.STOCK_MISSING, body.body_id)

    def _is_found(self, body: Body, place: int) -> None:
        self.found.append(body)
        self._differ(place, body.order_id, Code.STOCK_FOUND, body.body_id)

    def _differ(self, place: int, order_id: str, code: Code, note: str = "") -> None:
        self.differs.append((place, order_id, str(code), note or WORDS[code].english))


def _is_unknown_here(queries: Queries, command: StockCount) -> bool:
    """Whether the numbers of this carton can't be known: its batch has no return yet."""
    carton = queries.carton(command.carton_id) if command.carton_id else None
    return carton is not None and queries.batch_return(carton.batch_id) is None


def content(queries: Queries, count_id: str, reason: str) -> dict[str, Any]:
    """What adjusting by this count would do. Raises Denied."""
    counted = stock.count(queries, count_id)
    if counted is None:
        raise Denied(Code.COUNT_UNKNOWN, count_id)
    if not (counted["missing"] or counted["found"]):
        raise Denied(Code.NOTHING_TO_ADJUST, count_id)
    _bodies(queries, counted)
    return {
        "line": owner(counted["place"]),
        **{c: counted[c] for c in ("place", "missing", "found")},
        "reason": reason,
    }


def decide(queries: Queries, act: ConfirmedAct, writing: Writing) -> dict[str, Any]:
    """Raises Denied if one of the bodies has moved since it was counted."""
    place = act.content["place"]
    missing, found = _bodies(queries, act.content)
    said = {"act_id": act.act_id, "reason": act.content["reason"]}
    for body in missing:
        was = {"was_place": body.place, "was_condition": body.condition}
        writing.change(
            body, EventType.STOCK_MISSING, {**said, **was}, place=held(Line(owner(place))),
            condition=Code.STOCK_MISSING, leased_to="", leased_until="", leased_in="",
        )  # fmt: skip
    conditions = stock.conditions_before(queries, [b.body_id for b in found])
    for body in found:
        writing.change(
            body, EventType.STOCK_FOUND, said, place=place, condition=conditions[body.body_id]
        )
    return {"missing": len(missing), "found": len(found)}


def _bodies(queries: Queries, counted: Mapping[str, Any]) -> tuple[list[Body], list[Body]]:
    bodies = queries.bodies_by_id([*counted["missing"], *counted["found"]])
    missing = [bodies[i] for i in counted["missing"]]
    found = [bodies[i] for i in counted["found"]]
    if any(b.place != counted["place"] or b.condition == Code.STOCK_MISSING for b in missing) or (
        any(b.condition != Code.STOCK_MISSING for b in found)
    ):
        raise Denied(Code.ACT_OUTDATED, counted["place"])
    return missing, found
