"""That a ledger has one head: what `centre up` holds of it for as long as it is up."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable

import structlog

from centre.config import Config
from domain.changes import Away
from ledger.connection import database
from ledger.database import Held, Hold, LedgerUnusable

log = structlog.get_logger()

WAIT_SECONDS = 30.0
"""Within which the hold of a machine that vanished is free (`ledger.postgres_hold.KEEPALIVE`)."""
KEEP_SECONDS = 1.0


def hold_of(config: Config) -> Hold:
    """Of this process on its ledger; not taken yet."""
    return database(config.ledger).hold(
        f"card-centre {os.getpid()} {socket.gethostname()}:{config.home}"
    )


def take(hold: Hold, say: Callable[[str], None], seconds: float = WAIT_SECONDS) -> None:
    """Wait for it a moment: a head that was killed may have it a little longer. Raises Held."""
    deadline, said = time.monotonic() + seconds, False
    while True:
        try:
            return hold.keep()
        except Held as e:
            if time.monotonic() >= deadline:
                raise
            if not said:
                say(f"台账已有总机，等待 the ledger has a head, waiting: {e}")
                said = True
        time.sleep(0.1)  # another process's lock: there is no event to wait for


async def keep(hold: Hold) -> None:
    """For as long as nobody else has it. While the database is away nobody does, and when it is
    back the hold is taken again. Raises Held."""
    lost = False
    while True:
        try:
            await asyncio.to_thread(hold.keep)
            if lost:
                log.info("hold.taken_again")
            lost = False
        except (Away, LedgerUnusable) as e:
            if not lost:
                log.warning("hold.lost", reason=str(e))
            lost = True
        except Held as e:
            log.error("hold.elsewhere", holder=str(e))
            raise
        await asyncio.sleep(KEEP_SECONDS)
