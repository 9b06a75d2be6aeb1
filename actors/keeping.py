"""How long things are kept: what the inventory line does about it once a day.

Personal data of a batch whose time is over go in this order, each step of which can be repeated:
its data key is destroyed in the token, so from here on nothing opens what it sealed; the chain says
so; then the rows go, a chunk a commit, and what was theirs in the database file. Files of the
batch follow the chain (`gateways.expiry`). A batch that is still open is left alone, and shown.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import date, timedelta

import structlog

from domain.bodies import Writing
from domain.changes import Delete, Event, EventType
from domain.codes import Code
from domain.lines import BackupMade, LedgerDoor, Receipt
from domain.places import Line
from ledger.digests import digest_of
from ledger.keeping import (
    Kept,
    backups,
    last_destroyed,
    last_expiry,
    look_up_values,
    orders_advised,
    overdue,
    sealed_orders,
)
from ledger.queries import Queries

log = structlog.get_logger()

ORDERS_AT_ONCE = 1_000
"""Whose rows go in one commit: others' commits wait for it some ten milliseconds."""

A_DAY = timedelta(days=1)
DestroyDataKeys = Callable[[Sequence[str]], Awaitable[None]]
"""`KeyCustodian.destroy_data_keys`."""


class Keeping:
    """Part of the inventory line, which is the one that takes personal data in."""

    def __init__(
        self,
        ledger: LedgerDoor,
        queries: Queries,
        destroy_keys: DestroyDataKeys,
        today: Callable[[], date],
        orders_at_once: int = ORDERS_AT_ONCE,
    ) -> None:
        self._ledger, self._queries, self._destroy_keys = ledger, queries, destroy_keys
        self._today, self._orders_at_once = today, orders_at_once
        self._day: date | None = None
        self._due: list[Kept] = []
        self._to_reclaim = False

    async def step(self) -> bool:
        """Destroy what is due today, a batch a call; whether there is more to do at once."""
        today = self._today()
        if today != self._day:
            over = overdue(self._queries, today)
            for kept in over:
                if kept.open:
                    log.warning("personal_data.kept", batch_id=kept.batch_id, open=kept.open)
            self._due = [
                kept
                for kept in over
                if not kept.open and last_expiry(self._queries, kept.batch_id) < today.isoformat()
            ]
            last = last_destroyed(self._queries)
            # Of yesterday's, too: this instance may be the next one.
            self._to_reclaim = bool(self._due) or (last is not None and today - last <= A_DAY)
            self._day = today
        if self._due:
            await self._destroy(self._due[0], today)
            self._due.pop(0)
            return True
        if self._to_reclaim:
            self._to_reclaim = not await self._ledger.reclaim()
        return False

    async def _destroy(self, kept: Kept, today: date) -> None:
        batch_id = kept.batch_id
        # Also of one whose destruction was said: a token that was restored may have it again.
        await self._destroy_keys([batch_id])
        if not kept.destroyed:
            orders = orders_advised(self._queries, batch_id)
            await self._ledger.commit(decide_destroyed(kept, orders, today).changes())
            log.info("personal_data.destroyed", batch_id=batch_id, orders=orders)
        last, at_once = "", self._orders_at_once
        while order_ids := sealed_orders(self._queries, batch_id, last, at_once):
            numbers = look_up_values(self._queries, order_ids)
            await self._ledger.commit(decide_deleted(batch_id, order_ids, numbers).changes())
            last = order_ids[-1]

    async def record_backup(self, made: BackupMade) -> Receipt:
        """List a backup before it is written: a copy that may exist is known."""
        if any(b.backup_id == made.backup_id for b in backups(self._queries)):
            return Receipt(True, repeated=True)
        await self._ledger.commit(decide_backup(made).changes())
        log.info("backup.listed", backup_id=made.backup_id, holds=made.holds)
        return Receipt(True)

    async def remove_backup(self, backup_id: str) -> Receipt:
        """A backup is gone, destroyed wherever it lay."""
        if all(b.backup_id != backup_id for b in backups(self._queries)):
            return Receipt(False, Code.BACKUP_UNKNOWN, backup_id)
        await self._ledger.commit(decide_removed(backup_id).changes())
        log.info("backup.removed", backup_id=backup_id)
        return Receipt(True)


def decide_destroyed(kept: Kept, orders: int, today: date) -> Writing:
    """The data key of a batch is gone: nobody reads its personal data any more."""
    writing = Writing(Line.INVENTORY, f"destroyed:{kept.batch_id}")
    said = {
        "batch_id": kept.batch_id,
        "orders": orders,
        "expired_on": kept.expires_on,
        "on": today.isoformat(),
    }
    writing.event(Event(EventType.PERSONAL_DATA_DESTROYED, data=said))
    return writing


def decide_backup(made: BackupMade) -> Writing:
    writing = Writing(Line.INVENTORY, f"backup:{made.backup_id}")
    writing.event(Event(EventType.BACKUP_MADE, data={**vars(made), "holds": [*made.holds]}))
    return writing


def decide_removed(backup_id: str) -> Writing:
    writing = Writing(Line.INVENTORY, f"backup removed:{backup_id}")
    writing.event(Event(EventType.BACKUP_REMOVED, data={"backup_id": backup_id}))
    return writing


def decide_restored(backup_id: str, at: str, lost: Mapping[str, tuple[int, int]]) -> Writing:
    """This ledger came out of a backup (made at `at`). `lost`: by line the first and the last
    number of the commits that heads kept outside name and it does not have."""
    writing = Writing(Line.INVENTORY, f"restored:{backup_id}:{digest_of([dict(lost)])}")
    said = {"backup_id": backup_id, "at": at, "lost": {k: [*v] for k, v in lost.items()}}
    writing.event(Event(EventType.LEDGER_RESTORED, data=said))
    return writing


def decide_deleted(batch_id: str, order_ids: list[str], numbers: int) -> Writing:
    """Delete the sealed records of these orders and their `numbers` look-up values."""
    writing = Writing(Line.INVENTORY, f"deleted:{batch_id}:{order_ids[0]}")
    writing.delete(Delete("personal", "order_id", order_ids, len(order_ids)))
    writing.delete(Delete("number_index", "order_id", order_ids, numbers))
    return writing
