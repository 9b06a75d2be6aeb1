"""The centre return (制卡中心回盘, articles 11(10), 28(7)): what a line of it says, and whether
that is the end of the story.

The return of a batch is written when nothing of the batch is left in work. What waits for somebody
outside by then has an *interim* line; when its outcome is known, a *revision* of the return has a
line that supersedes it. An order, and a body without order, has one final line at most, and no line
supersedes that.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from domain.codes import CORRECTABLE, STRANGERS, Code


class Result(StrEnum):
    SHIPPED = "shipped"
    REJECTED = "rejected"
    DESTROYED = "destroyed"
    CANCELLED = "cancelled"
    MISSING = "missing"
    HELD = "held"
    SURPLUS = "surplus"


ENDS = frozenset({Result.SHIPPED, Result.REJECTED, Result.DESTROYED, Result.CANCELLED})
"""Results that are the end, whatever the reason."""
STRAYED = STRANGERS - CORRECTABLE
"""Reasons for which a surplus body is no business of its batch, and no correction makes it one."""

AWAITED: Mapping[tuple[Result, str], tuple[str, str]] = {
    (Result.MISSING, Code.NOT_DELIVERED): (
        "该卡重新清点找到，或卡管撤单", "a recount finds the card, or its order is cancelled",
    ),
    (Result.HELD, Code.ON_HOLD): (
        "卡管恢复或撤销该单", "card management releases or cancels the order",
    ),
    (Result.HELD, Code.LOT_REFUSED): (
        "两人放行该批，或逐张复检", "two people release the lot, or have every card inspected",
    ),
    (Result.HELD, Code.IN_DOUBT): (
        "工位再次读卡，或两人销毁该卡", "a station reads the chip, or two people scrap the card",
    ),
    (Result.HELD, Code.STOCK_MISSING): (
        "盘点找回该卡，或两人核销", "a stock-take finds the card, or two people write it off",
    ),
    (Result.HELD, Code.OVER_COUNT): ("重新清点该箱", "the carton is counted anew"),
    (Result.SURPLUS, Code.OVER_COUNT): ("重新清点该箱", "the carton is counted anew"),
    **{
        (Result.SURPLUS, code): (
            "更正被拒记录，或两人销毁该卡", "a correction of the return, or two people scrap it",
        )
        for code in sorted(CORRECTABLE)
    },
}  # fmt: skip
"""Of interim lines: what is waited for (Chinese, English)."""
DECIDED = ("两人处置该卡，或卡管撤单", "two people decide on the card, or its order is cancelled")
"""What all other held cards wait for (foreign keys)."""


def is_final(result: str, reason: str) -> bool:
    """Whether a line that says so is the last of its order or body."""
    return result in ENDS or (result == Result.SURPLUS and reason in STRAYED)


def awaited(result: str, reason: str) -> tuple[str, str]:
    """What an interim line waits for (Chinese, English)."""
    return AWAITED.get((Result(result), reason), DECIDED)
