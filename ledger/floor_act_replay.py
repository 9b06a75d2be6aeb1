"""The meaning of acts of two people on cards: a line does what was confirmed, once, and no more.

Pure, and part of `ledger.replay`. The act is confirmed in the stream of the custody line
(`ledger.custody_replay`), carried out in one commit of the line that its content names, and then
called done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from domain.bodies import Body
from domain.changes import EventType
from domain.codes import Code
from domain.custody import FLOOR, ActKind, ActState
from domain.places import LEGAL, STOCK_MOVES
from ledger.faults import Fault

Data = Mapping[str, Any]
Fail = Callable[[str, str], Fault]

LOTS = {
    ActKind.LOT_RELEASE: EventType.LOT_RELEASED,
    ActKind.LOT_INSPECT: EventType.LOT_RECALLED,
}
EFFECTS = frozenset(
    {EventType.BODY_SCRAPPED, EventType.STOCK_MISSING, EventType.STOCK_FOUND, *LOTS.values()}
)
"""Events that only an act of two people brings."""


def _effects_of(act: Data) -> set[tuple[str, str]]:
    """Event types with their body (or lot), as the act says them."""
    if act["kind"] == ActKind.STOCK_ADJUST:
        missing, found = act["content"]["missing"], act["content"]["found"]
        return {(EventType.STOCK_MISSING, b) for b in missing} | {
            (EventType.STOCK_FOUND, b) for b in found
        }
    if act["kind"] in LOTS:
        return {(LOTS[act["kind"]], act["subject"])}
    assert act["kind"] == ActKind.CARD_SCRAP
    return {(EventType.BODY_SCRAPPED, act["subject"])}


@dataclass
class FloorActReplay:
    """What lines have carried out so far."""

    results: dict[str, Any] = field(default_factory=dict)
    """By act."""
    missing: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Place and condition of each body when a stock-take missed it."""
    _brought: set[tuple[str, str, str]] = field(default_factory=set)
    """Effects of this commit that no act has accounted for yet: act, event type, subject."""

    def begin(self) -> None:
        self._brought = set()

    def end(self, fail: Fail) -> None:
        if self._brought:
            raise fail("无对应事项", "no act of two people says so")

    def brings(self, event_type: str, subject: str, data: Data, fail: Fail) -> None:
        effect = data["act_id"], event_type, subject
        if effect in self._brought:
            raise fail("事项重复执行", "an act does the same twice")
        self._brought.add(effect)

    def moved(self, event_type: str, data: Data, before: Body, after: Body, fail: Fail) -> None:
        """What a stock-take missed is found where it was missed, or scrapped, and nothing else;
        nobody else goes those ways."""
        was, is_now = (b.condition == Code.STOCK_MISSING for b in (before, after))
        stood = before.place, before.condition
        if (event_type == EventType.STOCK_MISSING) != (is_now and not was):
            raise fail("盘点调整不符", "missing without a stock-take")
        if event_type == EventType.STOCK_MISSING:
            if stood != (data["was_place"], data["was_condition"]) or before.live != after.live:
                raise fail("盘点调整不符", "missed where it was not")
            self.missing[after.body_id] = stood
        if was and not is_now:
            back = self.missing.pop(after.body_id)
            found = event_type == EventType.STOCK_FOUND and back == (after.place, after.condition)
            if not (found or event_type == EventType.BODY_SCRAPPED):
                raise fail("盘点调整不符", "what was missing is elsewhere now")
        way = before.place, after.place
        if way in STOCK_MOVES and way not in LEGAL and not (was or is_now):
            raise fail("非法移动", "only a stock-take does that")

    def carried_out(self, line: str, act: Data | None, data: Data, fail: Fail) -> None:
        """ACT_CARRIED_OUT closes a commit; `act` is the custody line's record of it."""
        act_id = data["act_id"]
        if act is None or act["kind"] not in FLOOR or act["state"] != ActState.CONFIRMED:
            raise fail("事项未经双人确认", "no act that two people have confirmed")
        if act["content"]["line"] != line:
            raise fail("事项不属于该线", "the act is another line's")
        if act_id in self.results:
            raise fail("事项重复执行", "an act is carried out twice")
        due = {(act_id, *effect) for effect in _effects_of(act)}
        if self._brought != due:
            raise fail("事项未如实执行", "the line did more or less than the act says")
        self._brought = set()
        self.results[act_id] = data["result"]

    def check_ended(self, act_id: str, act: Data, fail: Fail) -> None:
        """The custody line calls an act on cards done when its line has done it, and refused only
        if it has not."""
        done = act["state"] == ActState.DONE
        if act["kind"] in FLOOR and done != (act_id in self.results):
            raise fail("事项执行情况不符", "done by no line, or refused when it was done")
        if act["kind"] in FLOOR and done and self.results[act_id] != act["result"]:
            raise fail("事项结果不符", "another result than its line's")
