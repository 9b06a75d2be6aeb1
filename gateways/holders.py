"""What of the holders' sealed data leaves with lists and returns, opened where it is written."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import structlog

from domain.lines import KeyProvider
from domain.provider import RecordUnsealable
from gateways import portions
from ledger.queries import Queries

log = structlog.get_logger()


@dataclass(frozen=True, repr=False)
class Holder:
    """No repr: it would hold the person."""

    social_card_number: str
    name: str

    @property
    def masked_name(self) -> str:
        """The first character and an asterisk."""
        return f"{self.name[:1]}*"


async def open_holders(
    queries: Queries, provider: KeyProvider, order_ids: Sequence[str]
) -> dict[str, Holder]:
    """The holders of these orders, as far as the ledger has them. A record that does not open is
    left out and logged: it must not stop what leaves for the others."""
    stored = await asyncio.to_thread(
        queries.rows,
        "select order_id, batch_id, sealed from personal"
        " where order_id in (select value from json_each(?)) order by batch_id, order_id",
        json.dumps(order_ids),
    )
    holders: dict[str, Holder] = {}
    # A card may have come with another batch than its order's.
    for batch_id, rows in groupby(stored, key=lambda r: str(r["batch_id"])):
        records = [(str(r["order_id"]), base64.b64decode(r["sealed"])) for r in rows]
        for portion in portions.in_portions(records, portions.record_size):
            holders.update(await _open(provider, batch_id, portion))
    return holders


async def _open(
    provider: KeyProvider, batch_id: str, records: Sequence[tuple[str, bytes]]
) -> dict[str, Holder]:
    left = list(records)
    while left:
        try:
            opened = await provider.unseal(batch_id, left)
        except RecordUnsealable as e:
            bad = e.order_id
            if all(order_id != bad for order_id, _ in left):
                raise
            log.error("record.unsealable", batch_id=batch_id, order_id=bad)
            left = [(order_id, raw) for order_id, raw in left if order_id != bad]
            continue
        return {order_id: _holder(plain) for (order_id, _), plain in zip(left, opened, strict=True)}
    return {}


def _holder(plain: bytes) -> Holder:
    record = json.loads(plain)
    return Holder(record["social_card_number"], record["name"])
