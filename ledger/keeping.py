"""How long things are kept: personal data of batches, and copies of the ledger and of the token."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import Any

from domain.changes import EventType
from domain.places import Line
from ledger.connection import as_json
from ledger.queries import Queries
from ledger.returns import interim_lines

LEDGER, TOKEN = "ledger", "token"
"""What a backup can hold: the ledger with its sealed rows, the token with the data keys."""


class Open(StrEnum):
    """Why a batch still needs its personal data."""

    RETURN = "return"
    """Its centre return is not written."""
    RECEIPT = "receipt"
    """Something of it did not leave, or was not taken."""
    FINAL = "final"
    """A line of its return is interim."""


@dataclass(frozen=True)
class Kept:
    """A batch that has personal data whose time is over in the ledger: of how many orders, and the
    last day on which they were to be kept. `destroyed`: its data key is gone, only the deleting is
    not finished."""

    batch_id: str
    orders: int
    expires_on: str
    open: Open | None
    destroyed: bool


def overdue(queries: Queries, today: date) -> list[Kept]:
    """Every batch with records whose last day has passed, the first to expire first. Costs as much
    as is overdue, not as is kept."""
    found = queries.rows(
        "select batch_id, count(*) as orders, max(expires_on) as expires_on from personal"
        " where expires_on < ? group by batch_id order by max(expires_on), batch_id",
        today.isoformat(),
    )
    batch_ids = [r["batch_id"] for r in found]
    open_for, destroyed = _open_for(queries, batch_ids), destroyed_batches(queries, batch_ids)
    return [
        Kept(**r, open=open_for[r["batch_id"]], destroyed=r["batch_id"] in destroyed) for r in found
    ]


def last_expiry(queries: Queries, batch_id: str) -> str:
    """The last day of any record of a batch: those of corrections have a later one."""
    found = queries.one(
        "select max(p.expires_on) as day from orders o join personal p on p.order_id = o.order_id"
        " where o.batch_id = ?",
        batch_id,
    )
    return (found and found["day"]) or ""


def destroyed_batches(queries: Queries, batch_ids: Sequence[str]) -> set[str]:
    """Those of these batches whose personal data were destroyed."""
    found = queries.rows(
        "select data->>'batch_id' as batch_id from event"
        " where type = ? and body_id = '' and order_id = ''"
        " and data->>'batch_id' in (select value from json_each(?))",
        EventType.PERSONAL_DATA_DESTROYED,
        as_json(batch_ids),
    )
    return {r["batch_id"] for r in found}


def _open_for(queries: Queries, batch_ids: Sequence[str]) -> dict[str, Open | None]:
    """By batch, why it is open; None for one of which everything left, was taken, and is final."""
    found: dict[str, Open | None] = dict.fromkeys(batch_ids, Open.RETURN)
    interim = {r["batch_id"] for r in interim_lines(queries)}
    for row in queries.rows(
        "select batch_id, min(acknowledged) as taken,"
        " sum(case when kind = 'centre_return' then 1 else 0 end) as returns from outbox"
        " where batch_id in (select value from json_each(?)) group by batch_id",
        as_json(batch_ids),
    ):
        batch_id = row["batch_id"]
        if row["returns"]:
            if not row["taken"]:
                found[batch_id] = Open.RECEIPT
            else:
                found[batch_id] = Open.FINAL if batch_id in interim else None
    return found


def last_destroyed(queries: Queries) -> date | None:
    """The day on which personal data were destroyed last."""
    found = queries.one(
        "select max(data->>'on') as day from event where type = ?",
        EventType.PERSONAL_DATA_DESTROYED,
    )
    return date.fromisoformat(found["day"]) if found and found["day"] else None


def sealed_orders(queries: Queries, batch_id: str, after: str, limit: int) -> list[str]:
    """The next orders of a batch, after this one, whose personal data are still there."""
    rows = queries.rows(
        "select o.order_id from orders o join personal p on p.order_id = o.order_id"
        " where o.batch_id = ? and o.order_id > ? order by o.order_id limit ?",
        batch_id,
        after,
        limit,
    )
    return [r["order_id"] for r in rows]


def look_up_values(queries: Queries, order_ids: Sequence[str]) -> int:
    """How many look-up values these orders have."""
    found = queries.one(
        "select count(*) as n from number_index where order_id in (select value from json_each(?))",
        as_json(order_ids),
    )
    return int(found["n"]) if found else 0


def orders_advised(queries: Queries, batch_id: str) -> int:
    found = queries.one("select count(*) as n from orders where batch_id = ?", batch_id)
    return int(found["n"]) if found else 0


@dataclass(frozen=True)
class Backup:
    """A copy of the ledger or of the token that was made, and is not known to be gone."""

    backup_id: str
    at: str
    place: str
    holds: tuple[str, ...]
    """LEDGER, TOKEN."""
    expires_on: str
    destroyed: int = 0
    """Batches in it whose personal data were destroyed since."""
    readable_with: tuple[str, ...] = ()
    """Tokens backed up that still hold data keys of these: with one of them, what this backup
    has of their sealed records can be opened. Empty: it can't be, anywhere."""

    def is_over(self, today: date) -> bool:
        return today > date.fromisoformat(self.expires_on)


def backups(queries: Queries) -> list[Backup]:
    """Every backup of the register that was not removed, the oldest first."""
    steps = _inventory_events(
        queries,
        EventType.BACKUP_MADE,
        EventType.BACKUP_REMOVED,
        EventType.RETURN_ACCEPTED,
        EventType.PERSONAL_DATA_DESTROYED,
    )
    there: dict[str, Backup] = {}
    inside: dict[str, set[str]] = {}
    """The batches whose data (or keys) each backup has."""
    kept: set[str] = set()
    destroyed: set[str] = set()
    for step in steps:
        said = step["said"]
        match step["type"]:
            case EventType.RETURN_ACCEPTED:
                kept.add(said["batch_id"])
            case EventType.PERSONAL_DATA_DESTROYED:
                kept.discard(said["batch_id"])
                destroyed.add(said["batch_id"])
            case EventType.BACKUP_MADE:
                backup_id = said["backup_id"]
                there[backup_id] = Backup(
                    backup_id, step["at"], said["place"], tuple(said["holds"]), said["expires_on"]
                )
                inside[backup_id] = set(kept)
            case _:
                there.pop(said["backup_id"], None)
    tokens = [b for b in there.values() if TOKEN in b.holds]
    found = []
    for backup in there.values():
        gone = inside[backup.backup_id] & destroyed
        opening = tuple(t.backup_id for t in tokens if inside[t.backup_id] & gone)
        with_rows = LEDGER in backup.holds
        found.append(
            Backup(
                **{
                    **vars(backup),
                    "destroyed": len(gone),
                    "readable_with": opening if with_rows else (),
                }
            )
        )
    return found


def _inventory_events(queries: Queries, *types: EventType) -> list[Mapping[str, Any]]:
    """Events of these types with `at` and what they `said`, in the order of their stream."""
    found = queries.rows(
        "select e.type, c.at, e.data from event e"
        " join commit_link c on c.line = e.line and c.number = e.number"
        " where e.line = ? and e.type in (select value from json_each(?))"
        " order by e.number, e.position",
        Line.INVENTORY,
        as_json([str(t) for t in types]),
    )
    return [{"type": r["type"], "at": r["at"], "said": json.loads(r["data"])} for r in found]
