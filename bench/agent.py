"""APDU/s of the station agent through a real pcscd, against a bare loop of the same APDUs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from bench.chips import BenchError
from domain.card.apdu import get_key_information
from domain.card.segment import Segment, Step
from domain.turns import CentreTurn
from gateways.turns_wire import centre_turn_to_wire
from station_agents.virtual.pcscd import Pcscd
from station_agents.virtual.tray_process import TrayProcess

_ONCE = {0x82, 0xD4}
"""EXTERNAL AUTHENTICATE and WRITE KEY fit one challenge of one chip and can't be repeated."""


@dataclass(frozen=True)
class Compared:
    """APDU/s of both sides, round by round."""

    agent: list[float]
    bare: list[float]

    @property
    def ratio(self) -> float:
        return median(a / b for a, b in zip(self.agent, self.bare, strict=True))


def repeatable(script: Sequence[Sequence[Segment]]) -> list[list[Segment]]:
    """The segments of a card, as often as one likes on one chip: what serves only once is
    replaced by a read of the key information. What is journalled stays journalled."""

    def again(step: Step) -> Step:
        if step.apdu[1] in _ONCE:
            return Step(step.name, bytes(get_key_information()), step.expect)
        return step

    return [
        [replace(segment, steps=tuple(map(again, segment.steps))) for segment in part]
        for part in script
    ]


def measure(
    place: Path, tray: Path, script: Sequence[Sequence[Segment]], rounds: int, cards: int
) -> Compared:
    """`rounds` of `cards` runs of `script` (what the lines sent to a card) on the first card of
    `tray`, agent and bare loop in turn, on one reader of a private pcscd."""
    script = repeatable(script)
    wire = [
        [
            centre_turn_to_wire(CentreTurn("", 0, "", segment)).segment.SerializeToString().hex()
            for segment in part
        ]
        for part in script
    ]
    job = {"script": wire, "rounds": rounds, "cards": cards}
    # Short: it holds unix sockets, whose paths are limited to 107 bytes.
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as sockets,
        Pcscd(Path(sockets) / "pcsc", readers=1) as service,
        TrayProcess([tray], service.addresses, Path(sockets) / "tray.sock") as machine,
        (place / "agent.log").open("w") as log,
    ):
        done = subprocess.run(
            [sys.executable, "-m", "bench.agent_loop", service.readers[0], str(machine.control),
             str(place / "agent-journal.jsonl")],
            input=json.dumps(job), stdout=subprocess.PIPE, stderr=log, text=True, check=False,
            env={**os.environ, **service.environment},
        )  # fmt: skip
    if done.returncode:
        raise BenchError(f"the agent's loop ended with a fault: see {log.name}")
    apdus = cards * sum(len(segment.steps) for part in script for segment in part)
    times = json.loads(done.stdout)
    return Compared([apdus / agent for agent, _ in times], [apdus / bare for _, bare in times])
