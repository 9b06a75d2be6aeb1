"""What leaves the centre: dispatched from the outbox until it was taken."""

from __future__ import annotations

import asyncio
from pathlib import Path

from domain.lines import KeyProvider, SortingLine
from ledger.queries import Queries


async def run_outbox(
    *,
    queries: Queries,
    provider: KeyProvider,
    sorting: SortingLine,
    out: Path,
    card_management: str = "",
    look: asyncio.Event | None = None,
    idle_seconds: float = 1.0,
) -> None:
    """Dispatch until cancelled. `queries`: a reading connection of its own. Files go to
    `out`/lists and `out`/return; `card_management` is host:port of its CentreReturns door, empty:
    none is configured. `look`, when set by others, cuts the idle pause short."""
    raise NotImplementedError
