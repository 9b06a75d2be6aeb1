"""The meaning of leases in the events of a body: who may have been writing on its chip, and what
became of it when that was for too long.

Pure, and part of `ledger.replay`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from domain.bodies import Body
from domain.changes import EventType
from domain.codes import Code
from domain.places import Line, Standing, work
from ledger.faults import Fault

Fail = Callable[[str, str], Fault]

_WORK = work(Line.KEY_REPLACEMENT)
_GRANTS = frozenset({EventType.KEY_WRITE_RELEASED, EventType.CHIP_TAKEN_BACK})
_ENDS_DOUBT = frozenset(
    {*_GRANTS, EventType.BODY_REJECTED, EventType.BODY_HELD, EventType.BODY_SCRAPPED}
    | {EventType.STOCK_MISSING}
)
"""A look at the chip, or two people with the card in hand: never a clock."""


def check_lease(
    event_type: str, data: Mapping[str, Any], before: Body, after: Body, fail: Fail
) -> None:
    """Raises what `fail` makes."""
    grants, releases = event_type in _GRANTS, event_type == EventType.KEY_WRITE_RELEASED
    if after.lease != before.lease + grants or after.released != (before.released or releases):
        raise fail("租约不符", "the lease does not follow")
    if event_type in (EventType.CHIP_TAKEN_BACK, EventType.KEYS_REPLACED) and not after.released:
        raise fail("密钥未释放", "keys that were never released")
    if grants and after.place != _WORK:
        raise fail("租约不符", "leased where nobody works on it")
    if not grants and _of(after) not in (_of(before), ("", "", "")):
        raise fail("租约不符", "leased by no event that leases")
    doubted = after.condition == Code.IN_DOUBT
    if after.leased_until and not doubted and after.place != _WORK:
        raise fail("租约不符", "a lease outlived the work")
    _check_doubt(event_type, before, after, fail)
    if event_type == EventType.TRANSCRIPT_KEPT and (
        before != after or data["of_lease"] > after.lease
    ):
        raise fail("迟到记录移动了卡体", "a late transcript moved something")


def _check_doubt(event_type: str, before: Body, after: Body, fail: Fail) -> None:
    was, is_now = before.condition == Code.IN_DOUBT, after.condition == Code.IN_DOUBT
    begins = event_type == EventType.BODY_IN_DOUBT
    bound = after.live and after.released and after.leased_until
    back = event_type == EventType.STOCK_FOUND
    if begins != (is_now and not was and not back) or (
        begins and not (before.place == _WORK and bound)
    ):
        raise fail("存疑不符", "in doubt without a lease that ran out, or not bound any more")
    if was and not is_now and event_type not in _ENDS_DOUBT:
        raise fail("存疑不符", "no look at the card ended the doubt")
    rejects = before.standing is Standing.HELD and after.standing is Standing.REJECTED
    if rejects and not (was or event_type == EventType.BODY_SCRAPPED):
        raise fail("未经双人报废", "what is held was rejected by no two people")


def _of(body: Body) -> tuple[str, str, str]:
    return body.leased_to, body.leased_until, body.leased_in
