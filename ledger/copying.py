"""A copy of the ledger as it is at one moment, made while others commit, and its way back."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path
from typing import Any

from ledger.connection import database, ledger_file
from ledger.heads import latest_links
from ledger.queries import Queries


def copy_ledger(ledger: str | Path, target: Path) -> list[dict[str, Any]]:
    """Write a copy of the ledger to `target`, a new file (0600): one snapshot; commits go on
    meanwhile. Answers the newest link of each line in it. Raises LedgerUnusable, Away."""
    with closing(Queries(ledger)) as live:
        live.begin()
        database(ledger).copy(target, live)
        if ledger_file(ledger) is None:
            links = latest_links(live)
        else:
            # SQLite copies what is there when it copies, not what a reader saw.
            with closing(Queries(target)) as copied:
                links = latest_links(copied)
    descriptor = os.open(target, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return links
