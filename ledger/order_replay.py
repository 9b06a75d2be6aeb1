"""The meaning of the events of an order: it is advised once, stopped and released as card
management says, and has at most one live body.

Pure, and part of `ledger.replay`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from domain.bodies import Body
from domain.changes import EventType, Row
from domain.codes import STOPPED, Code
from domain.places import PACKED, Standing
from ledger.faults import Fault

Fail = Callable[[str, str], Fault]


@dataclass(slots=True)
class _Order:
    stopped: str | None = None
    """Why card management stopped it; empty if it was released again, None if it never was."""
    card: Body | None = None
    """Its live body, as it stands now."""


@dataclass
class OrderReplay:
    """The orders to which something is still to happen."""

    _open: dict[str, _Order] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._open)

    def advised(self, order_id: str, fail: Fail) -> None:
        if order_id in self._open or not order_id:
            raise fail("订单重复", "an order is advised twice")
        self._open[order_id] = _Order()

    def leaves(self, order_id: str) -> str | None:
        """Nothing happens to the order any more. Answers the reason in its row of `order_stop`,
        None if it has none."""
        order = self._open.pop(order_id, None)
        return order.stopped if order else None

    def stop_of(self, order_id: str) -> str:
        """Why the order is stopped; empty if it is not."""
        order = self._open.get(order_id)
        return (order.stopped or "") if order else ""

    def stopped(self, event_type: str, order_id: str, data: Row, fail: Fail) -> None:
        """An order that was advised is stopped, or released, before its card is packed."""
        released = event_type == EventType.ORDER_RELEASED
        reason = "" if released else data["code"]
        order = self._open.get(order_id)
        if order is None or (not released and reason not in STOPPED):
            raise fail("订单未通知", "the order was never advised")
        before = order.stopped or ""
        if reason == before or (before == Code.CANCELLED) or (released and before != Code.ON_HOLD):
            raise fail("订单状态不符", "the order is not in that state")
        card = order.card
        if card and (card.place == PACKED or card.standing is Standing.SHIPPED):
            raise fail("卡片已装包", "its card is packed")
        order.stopped = reason

    def bind(self, before: Body | None, after: Body, fail: Fail) -> None:
        """Chip and order are bound once; an order has at most one live body."""
        if before and (
            before.identification_code not in ("", after.identification_code)
            or before.order_id not in ("", after.order_id)
        ):
            raise fail("绑定被更改", "chip or order of a bound body changes")
        if not after.order_id:
            return
        order = self._open.get(after.order_id)
        if order is None:
            raise fail("订单未通知", "the order was never advised")
        holds = order.card is not None and order.card.body_id == after.body_id
        if after.live:
            if order.card is not None and not holds:
                raise fail("订单有两张有效卡", "an order has two live bodies")
            order.card = after
        elif holds:
            order.card = None
