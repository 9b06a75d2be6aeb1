"""The meaning of the events about how long things are kept. Pure, and part of `ledger.replay`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from domain.changes import EventType
from ledger.faults import Fault

Data = Mapping[str, Any]
Fail = Callable[[str, str], Fault]
EVENTS = frozenset(
    {
        EventType.PERSONAL_DATA_DESTROYED,
        EventType.BACKUP_MADE,
        EventType.BACKUP_REMOVED,
        EventType.LEDGER_RESTORED,
    }
)


@dataclass
class _Batch:
    """Of its personal data: of how many orders, and the last day on which they are kept."""

    orders: int = 0
    expires_on: str = ""
    written: bool = False
    """Its centre return is."""


@dataclass
class KeepingReplay:
    """`destroyed`: batches whose personal data may be gone. `backups`: those that were not
    removed."""

    destroyed: set[str] = field(default_factory=set)
    backups: set[str] = field(default_factory=set)
    _batches: dict[str, _Batch] = field(default_factory=lambda: defaultdict(_Batch))

    def written(self, batch_id: str) -> None:
        """The centre return of the batch."""
        self._batches[batch_id].written = True

    def advised(self, order: Data, fail: Fail) -> None:
        """What ORDER_ADVISED says of an order."""
        if order["batch_id"] in self.destroyed:
            raise fail("个人信息已销毁的批次又来订单", "its batch's personal data are destroyed")
        batch = self._batches[order["batch_id"]]
        batch.orders += 1
        batch.expires_on = max(batch.expires_on, order["expires_on"])

    def apply(self, event_type: str, data: Data, fail: Fail) -> None:
        """Take one of EVENTS. Raises what `fail` makes."""
        match event_type:
            case EventType.PERSONAL_DATA_DESTROYED:
                batch = self._batches[data["batch_id"]]
                if data["batch_id"] in self.destroyed:
                    raise fail("重复销毁", "personal data destroyed twice")
                if not batch.written:
                    raise fail("未结批次的销毁", "personal data of an open batch destroyed")
                if data["on"] <= batch.expires_on:
                    raise fail("未到期而销毁", "personal data destroyed before their expiry")
                if data["orders"] != batch.orders:
                    raise fail("销毁订单数不符", "destroyed for another number of orders")
                self.destroyed.add(data["batch_id"])
            case EventType.BACKUP_MADE:
                if data["backup_id"] in self.backups:
                    raise fail("备份编号重复", "two backups with one id")
                self.backups.add(data["backup_id"])
            case EventType.BACKUP_REMOVED:
                if data["backup_id"] not in self.backups:
                    raise fail("没有这份备份", "there is no such backup")
                self.backups.discard(data["backup_id"])
