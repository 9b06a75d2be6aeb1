"""`centre up` with lines and a provider that die at named states.

`python -m tests.demo.crashing_centre CRASH_DIR --home HOME --card-management HOST:PORT`. States:
`<line>.<event>.before` and `.after` (around the commit that holds the event), `provider.before`
and `provider.after` (around a call that makes WRITE KEY commands), `ledger.before`, `ledger.after`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from actors.shell import MakeLine
from centre import floor
from centre.config import load
from centre.wiring import Wiring, make_provider, production
from domain.changes import Changes, Committed
from domain.lines import LedgerDoor
from domain.provider import Answer, KeyChange, Provider, Request
from ledger.queries import Queries
from tests.demo.crash import CrashPoints


class CrashingDoor:
    """A door that may kill its line before a commit is asked for, or after it was answered."""

    def __init__(self, door: LedgerDoor, crash: CrashPoints) -> None:
        self._door, self._crash = door, crash

    async def commit(self, changes: Changes) -> Committed:
        states = {f"{changes.line}.{e.type}" for e in changes.events}
        for state in states:
            self._crash(f"{state}.before")
        committed = await self._door.commit(changes)
        for state in states:
            self._crash(f"{state}.after")
        return committed

    async def reclaim(self) -> bool:
        return await self._door.reclaim()


class CrashingProvider:
    """A provider that may die before or after it made WRITE KEY commands."""

    def __init__(self, provider: Provider, crash: CrashPoints) -> None:
        self._provider, self._crash = provider, crash

    def __getattr__(self, name: str) -> Any:
        return getattr(self._provider, name)

    def perform(self, requests: Sequence[Request]) -> list[Answer]:
        writes = any(isinstance(r, KeyChange) for r in requests)
        if writes:
            self._crash("provider.before")
        answers = self._provider.perform(requests)
        if writes:
            self._crash("provider.after")
        return answers


def crashing_line(
    directory: Path, make: MakeLine, ledger: LedgerDoor, queries: Queries, provider: Any, epoch: int
) -> Any:
    return make(CrashingDoor(ledger, CrashPoints(directory)), queries, provider, epoch)


def crashing_provider(directory: Path, config: Any) -> Any:
    return CrashingProvider(make_provider(config), CrashPoints(directory))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("crash_dir", type=Path)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--card-management", required=True)
    options = parser.parse_args()
    config = load(options.home).with_card_management(options.card_management)
    real = production(config)
    wiring = Wiring(
        provider=partial(crashing_provider, options.crash_dir, config),
        lines={
            name: partial(crashing_line, options.crash_dir, make)
            for name, make in real.lines.items()
        },
    )
    floor.up(config, print, wiring)


if __name__ == "__main__":
    main()
