"""What leaves a simulated centre: the outbox, emptied to card management; and the signed heads."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from domain.changes import Away, Refused
from domain.lines import KeyProvider
from gateways.centre_return import write_return
from ledger.heads import append_head_file, head_digest, signed_head, unsigned_heads
from ledger.queries import Queries
from proof.simulation.faults import Faults
from proof.simulation.promises import Promises

LOOK_SECONDS = 20.0
SIGN_SECONDS = 60.0


class CardManagement:
    """Takes each return once, whole; the same again is acknowledged, another under its id not."""

    def __init__(self, promises: Promises) -> None:
        self._promises = promises
        self.received: dict[str, str] = {}

    def take(self, file_id: str, content: bytes) -> None:
        digest = hashlib.sha256(content).hexdigest()
        if self.received.setdefault(file_id, digest) != digest:
            self._promises.broken(6, f"{file_id} came twice with other content")


class Outbox:
    """Delivers until it is acknowledged, as `gateways.outbox` does; lists are printed nowhere."""

    def __init__(
        self, queries: Queries, keys: KeyProvider, sorting: Any, out: Path,
        management: CardManagement, faults: Faults,
    ) -> None:  # fmt: skip
        self._queries, self._keys, self._sorting = queries, keys, sorting
        self._out, self._management, self._faults = out, management, faults

    async def run(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            for row in self._queries.rows(
                "select id, kind, batch_id from outbox where acknowledged = 0 order by id"
            ):
                try:
                    await self._deliver(row)
                except (Away, Refused):
                    continue

    async def _deliver(self, row: dict[str, Any]) -> None:
        outbox_id = row["id"]
        if row["kind"] == "centre_return":
            path = self._out / f"{outbox_id}.jsonl"
            await write_return(self._queries, self._keys, outbox_id, row["batch_id"], path)
            fate = self._faults.message("return to card management", 600.0)
            await asyncio.sleep(fate.out)
            if fate.lost:
                raise Away("card management does not answer")
            self._management.take(outbox_id, path.read_bytes())
            await asyncio.sleep(fate.back)
            if fate.answer_lost:
                raise Away("card management does not answer")
        await self._sorting.acknowledge([outbox_id])
        self._faults.trace.note("outbox", f"{outbox_id} left and was taken")


Record = Callable[[list[dict[str, Any]]], Awaitable[Any]]


class Signer:
    """Has the newest commit of each line signed: into the head file first, then into the ledger."""

    def __init__(self, queries: Queries, keys: KeyProvider, record: Record, file: Path) -> None:
        self._queries, self._keys, self._record, self._file = queries, keys, record, file

    async def run(self) -> None:
        while True:
            await asyncio.sleep(SIGN_SECONDS)
            try:
                await self.sign()
            except (Away, Refused):
                continue

    async def sign(self) -> None:
        links = unsigned_heads(self._queries)
        if not links:
            return
        digests = [head_digest(x["line"], x["number"], x["hash"], x["at"]) for x in links]
        signatures = await self._keys.sign(digests)
        heads = [signed_head(x, s) for x, s in zip(links, signatures, strict=True)]
        append_head_file(self._file, heads)
        await self._record(heads)
