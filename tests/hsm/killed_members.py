"""Cards that get their keys from two provider actors over one SoftHSM2 token, which are killed.

`python -m tests.hsm.killed_members PLACE`: Ray as the centre runs it, a ledger, two providers and
the key replacement line; the readers are here. One provider is killed, then both. What was seen is
the JSON object on the last line of the output.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from actors.hsm.pkcs11_provider import Pkcs11Provider
from actors.hsm.token import token_config
from actors.shell import ask, start
from actors.shell_ledger import LEDGER, LedgerShell
from actors.shell_line import LineShell, RayLine
from actors.shell_provider import ProviderShell, RayProvider
from centre import ray_runtime
from centre.wiring import make_replacement, now
from domain.card.profile import load_profile
from domain.changes import EventType
from domain.places import Line
from domain.provider import Chip, KeyChange
from domain.turns import Verdict, Wait
from ledger.chip_records import LedgerChipRecords
from ledger.queries import Queries
from tests.conformance.card_side import identification_code
from tests.lines.small_floor import Chip as CardInReader
from tests.lines.small_floor import SmallFloor, Station

PROVIDERS = ("provider-0", "provider-1")
CARDS = 90
SECONDS = 60.0


def make_provider(place: Path) -> Pkcs11Provider:
    return Pkcs11Provider(
        token_config(place / "token", place / "pin"),
        load_profile("ssc-3des"),
        LedgerChipRecords(place / "ledger.db"),
    )


@dataclass
class Reader(Station):
    """A station whose line is an actor, and which waits when it is told to."""

    actor: Any = None
    codes: set[str] = field(default_factory=set)

    def line(self, stage: str) -> RayLine:
        return RayLine(self.actor)

    async def wait(self, told: Wait) -> None:
        self.codes.add(told.code)
        await asyncio.sleep(told.milliseconds / 1000)


async def _until(holds: Callable[[], Any]) -> None:
    async with asyncio.timeout(SECONDS):
        # Another process's state: there is no event to wait for.
        while not await holds():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def _kill(*actors: Any) -> None:
    # Asked before: a busy one answers late, and the first would be back by then.
    for state in [await ask(actor.health) for actor in actors]:
        os.kill(state["pid"], signal.SIGKILL)


def main() -> None:
    place = Path(sys.argv[1])
    floor = SmallFloor.make(place)
    chips = floor.chips(floor.deliver(seed=5, cards=CARDS))
    floor.close()
    (place / "run").mkdir()
    ledger = f"sqlite:{place / 'ledger.db'}"
    ray_runtime.start(place)
    try:
        start(LEDGER, LedgerShell, ledger, now, _prepare)
        provider = partial(make_provider, place)
        members = [start(name, ProviderShell, provider, _prepare) for name in PROVIDERS]
        line = start(
            Line.KEY_REPLACEMENT, LineShell, Line.KEY_REPLACEMENT, ledger,
            partial(make_replacement, "ssc-3des", 10.0), now, True, PROVIDERS, _prepare,
        )  # fmt: skip
        seen = asyncio.run(_work(floor, chips, line, members))
        seen["more"] = asyncio.run(_one_more(place, members))
    finally:
        ray_runtime.stop(place)
    queries = Queries(place / "ledger.db")
    events = queries.rows(
        "select type, body_id, count(*) as n from event where type in (?, ?) group by 1, 2",
        EventType.KEY_WRITE_RELEASED,
        EventType.KEYS_REPLACED,
    )
    queries.close()
    seen["events"] = dict(Counter(f"{r['type']} {r['n']}" for r in events))
    seen["writes"] = dict(Counter(c.writes for c in chips))
    sys.stdout.write(f"{json.dumps(seen)}\n")


def _prepare() -> None:
    """Nothing: no log, no metrics."""


async def _work(
    floor: SmallFloor, chips: list[CardInReader], line: Any, members: list[Any]
) -> dict[str, Any]:
    async def state(wanted: str) -> bool:
        return bool((await ask(line.health))["state"] == wanted)

    async def ready(*actors: Any) -> bool:
        states = [await ask(a.health) for a in actors]
        return all(s["state"] == "ready" for s in states)

    await _until(lambda: ready(line, *members))
    fed = iter(chips)
    feeding = asyncio.Event()
    feeding.set()
    done = asyncio.Queue[Verdict | None]()
    anew = 0
    told: set[str] = set()

    async def reader() -> None:
        station = Reader(floor, actor=line, codes=told)
        for chip in fed:
            await feeding.wait()
            verdict = await station.present(chip, Line.KEY_REPLACEMENT)
            done.put_nowait(verdict)

    async def some() -> int:
        """Wait for a part of the cards; how many of them are to be read anew."""
        async with asyncio.timeout(SECONDS):
            return [await done.get() for _ in range(CARDS // 6)].count(None)

    readers = asyncio.gather(*(reader() for _ in range(6)))
    anew += await some()
    await _kill(members[0])
    anew += await some()
    one_killed = sorted(told)
    feeding.clear()  # or the work might be over before both are there to be killed
    await _until(lambda: ready(line, members[0]))
    feeding.set()
    anew += await some()
    # Else they might be back before anybody has missed both.
    pin = floor.place / "pin"
    pin.rename(pin.with_name("away"))
    await _kill(*members)
    await _until(lambda: state("paused"))
    paused = await ask(line.health)
    pin.with_name("away").rename(pin)
    await _until(lambda: state("ready"))
    await asyncio.wait_for(readers, SECONDS)
    anew += [done.get_nowait() for _ in range(done.qsize())].count(None)
    return {
        "told, one killed": one_killed,
        "told": sorted(told),
        "paused": [paused["code"], paused["note"]],
        "read anew": anew,
    }


async def _one_more(place: Path, members: list[Any]) -> list[str]:
    """What each member says to one more chip of a carton whose bodies all have their keys."""
    queries = Queries(place / "ledger.db")
    full = queries.one(
        "select carton_id, batch_id from body group by 1, 2 having min(released) = 1 limit 1"
    )
    queries.close()
    assert full is not None
    stranger = Chip(identification_code(999_999), full["batch_id"], full["carton_id"])
    asked = [KeyChange(stranger, "MK", bytes(8))]
    return [a.refused for m in members for a in await RayProvider(m).perform(asked)]


if __name__ == "__main__":
    main()
