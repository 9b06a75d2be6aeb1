"""Files with personal data go when those of their batch were destroyed in the ledger."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import structlog

from gateways.files_out import sync_directory
from ledger.connection import as_json
from ledger.keeping import destroyed_batches
from ledger.queries import Queries

log = structlog.get_logger()

LOOK_SECONDS = 600.0


async def run_expiry(queries: Queries, home: Path) -> None:
    """Look now and then until cancelled. `queries`: a reading connection of its own."""
    while True:
        try:
            await asyncio.to_thread(remove_expired, queries, home)
        except Exception as e:  # noqa: BLE001  # a ledger or a disk that is away: tried again
            log.warning("expiry.waiting", error=type(e).__name__)
        await asyncio.sleep(LOOK_SECONDS)


def remove_expired(queries: Queries, home: Path) -> int:
    """Remove lists and returns of destroyed batches; answers how many files and folders."""
    expired = [*_lists(queries, home / "lists"), *_returns(queries, home / "return")]
    for path in expired:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    for folder in {path.parent for path in expired}:
        sync_directory(folder)
    if expired:
        log.info("expiry.removed", files=len(expired))
    return len(expired)


def _lists(queries: Queries, folder: Path) -> list[Path]:
    """Folders of lists, which are called as their batches."""
    names = _names(folder)
    return [folder / name for name in destroyed_batches(queries, names)]


def _returns(queries: Queries, folder: Path) -> list[Path]:
    """Files of returns, which are called as their entries of the outbox."""
    names = _names(folder)
    entries = queries.rows(
        "select id, batch_id from outbox where id in (select value from json_each(?))",
        as_json([Path(name).stem for name in names]),
    )
    gone = destroyed_batches(queries, [e["batch_id"] for e in entries])
    ids = {e["id"] for e in entries if e["batch_id"] in gone}
    return [folder / name for name in names if Path(name).stem in ids]


def _names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder)) if folder.exists() else []
