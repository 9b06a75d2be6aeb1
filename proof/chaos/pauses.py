"""How long nothing went on after a kill, by the ledger's own commit times."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from ledger.queries import Queries

FELT_SECONDS = 3.0
"""What was under way when a process died is still committed; a pause that begins later has
another cause."""


@dataclass(frozen=True)
class Kill:
    """One kill. `at`: seconds since the epoch; `progress`: 0…1."""

    number: int
    victim: str
    pid: int
    at: float
    progress: float


def commit_times(queries: Queries) -> list[float]:
    """Of all commits, in seconds since the epoch, ascending."""
    rows = queries.rows("select at from commit_link order by at")
    return [datetime.fromisoformat(r["at"]).timestamp() for r in rows]


def pause_after(kill: Kill, times: Sequence[float]) -> float:
    """The longest time without a commit that began at the kill or within FELT_SECONDS of it."""
    first = bisect_right(times, kill.at)
    begins, longest = kill.at, 0.0
    for time in times[first:]:
        if begins > kill.at + FELT_SECONDS:
            break
        longest = max(longest, time - begins)
        begins = time
    return longest
