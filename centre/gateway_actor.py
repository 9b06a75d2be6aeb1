"""The actor that holds the doors: gRPC server and outbox, made in the process that uses them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import structlog

from actors.hsm.pool import KeyPool
from actors.shell import PAUSES, fault_of, handle, this_process
from actors.shell_line import RayLine
from actors.shell_provider import health_of_keys, key_pool
from centre.config import Config
from domain.card.profile import load_profile
from domain.changes import Away
from domain.places import CARD_LINES, Line
from gateways.doors import serve
from gateways.expiry import run_expiry
from gateways.floor import Floor, Limits
from gateways.inbox import run_inbox
from gateways.outbox import run_outbox
from ledger.queries import Queries

log = structlog.get_logger()


class GatewayShell:
    """Serves the doors and empties the outbox until its process ends."""

    def __init__(self, config: Config, listen: str, prepare: Callable[[], None]) -> None:
        self._config, self._listen, self._prepare = config, listen, prepare
        self._task: asyncio.Task[None] | None = None
        self._note = "not started"
        self._ready = False
        self._keys: KeyPool | None = None

    async def health(self) -> dict[str, Any]:
        """Also opens the doors: the first call after a restart does."""
        if self._task is None or self._task.done():
            self._note = fault_of(self._task, "gateway") or self._note
            self._task = asyncio.ensure_future(self._run())
        if not self._ready or self._keys is None:
            return {**this_process(), "state": "loading", "note": self._note}
        return {**this_process(), **health_of_keys(self._keys, self._note)}

    async def _run(self) -> None:
        self._prepare()
        attempt = 0
        while True:
            try:
                await self._serve()
            except (Away, OSError) as e:
                # OSError: the port of a gateway that was killed is not free yet
                self._note = f"waits: {type(e).__name__}"
                log.warning("gateway.waiting", reason=self._note)
                await asyncio.sleep(PAUSES[min(attempt, len(PAUSES) - 1)])
                attempt += 1

    async def _serve(self) -> None:
        config = self._config
        if self._keys is None:
            self._keys = key_pool(config.providers)
        floor = Floor(
            inventory=RayLine(handle(Line.INVENTORY)),
            sorting=RayLine(handle(Line.SORTING)),
            custody=RayLine(handle(Line.CUSTODY)),
            provider=self._keys,
            chip_lines={
                str(line): RayLine(handle(line))
                for line in (Line.KEY_REPLACEMENT, Line.INSPECTION, Line.SAMPLING)
            },
            counted={str(line): RayLine(handle(line)) for line in CARD_LINES},
            queries=Queries(config.ledger),
            profile=load_profile(config.profile),
            limits=Limits(
                max_records_per_file=config.max_records_per_file,
                personal_data_days=config.personal_data_days,
            ),
        )
        doors = await serve(floor, self._listen)
        self._ready, self._note = True, doors.address
        log.info("gateway.ready", listen=doors.address)
        inbox = asyncio.ensure_future(run_inbox(floor, config.inbox))
        outbox = asyncio.ensure_future(
            run_outbox(
                queries=Queries(config.ledger),
                provider=floor.provider,
                sorting=floor.sorting,
                out=config.home,
                card_management=config.card_management,
                fonts=config.list_fonts,
                board=floor.board,
            )
        )
        expiry = asyncio.ensure_future(run_expiry(Queries(config.ledger), config.home))
        tasks = (inbox, outbox, expiry)
        try:
            # None ends by itself: the first that fails takes the others down with it.
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._ready = False
            await doors.stop()
