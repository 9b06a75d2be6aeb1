"""On which machine what stands, and what machines of one centre must agree on.

What needs the home's disk or the token stays with the head: doors, key providers, the custody of
keys and people, the committing process of an SQLite ledger. Other lines need the ledger and the
providers only, and stand anywhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any

import ray
from ray.experimental.internal_kv import _internal_kv_put

from centre.config import Config
from domain.places import Line
from ledger.schema import VERSION

MOVING = (
    Line.KEY_REPLACEMENT, Line.INSPECTION, Line.SORTING, Line.SAMPLING, Line.INVENTORY,
)  # fmt: skip
"""Those with the most work first: they leave the head first."""
AT_HOME = {"resources": {"home": 0.001}}
"""Only the head has this resource."""
ANYWHERE = {"num_cpus": 1}
"""One of `ray_runtime.ROOM`."""
AGREED = b"card-centre"
"""The key in Ray's store under which the head says what `agreed` does."""


def options(name: str) -> dict[str, Any]:
    """Ray's options for the actor `name`."""
    return ANYWHERE if name in MOVING else AT_HOME


def agreed(config: Config) -> dict[str, Any]:
    """What must be the same on all machines of a centre: release, and ledger (URL, schema)."""
    return {
        "release": version("card-centre"), "ledger": str(config.ledger), "schema": VERSION,
    }  # fmt: skip


def publish(config: Config, started: str) -> None:
    """Tell machines that want to join what they must agree on, and when this head started. Ray
    must be up."""
    _internal_kv_put(AGREED, json.dumps({**agreed(config), "started": started}).encode())


def machines() -> dict[str, str]:
    """The machines that are up: name (`actors.shell.machine`) and address."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    up = {node["NodeName"]: node["NodeManagerAddress"] for node in nodes if node["Alive"]}
    return dict(sorted(up.items()))


def uneven(where: Mapping[str, str], machines: Iterable[str]) -> str | None:
    """The line that should move, so that no machine has two lines more than another; None if none
    should. `where`: the machine of each actor."""
    there: dict[str, list[str]] = {machine: [] for machine in machines}
    for name in MOVING:
        if where.get(name) in there:
            there[where[name]].append(name)
    fullest = max(there.values(), key=len, default=[])
    fewest = min(there.values(), key=len, default=[])
    return fullest[0] if len(fullest) - len(fewest) > 1 else None


def start_anew(line: Any) -> None:
    """End the process of a line; Ray starts it where the fewest are. Its handle stays good."""
    ray.kill(line, no_restart=False)
