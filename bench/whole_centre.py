"""A whole centre as `centre up` brings it up, under the load of `bench.stations`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.chips import BenchError
from bench.intake import take_in
from bench.masters import home_with_keys
from bench.stations import Job, Load, Offered
from centre.config import Config
from centre.running import state_of
from counterparts.factory import make_delivery

START_SECONDS = 120.0
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Carried:
    """One load and what came of it; `processes`: processor milliseconds of each process for a
    card that was finished."""

    load: Load
    result: Offered
    processes: dict[str, float]


def measure(place: Path, loads: Sequence[Load]) -> list[Carried]:
    """Bring a centre up in `place`, take a delivery in, and put each load on it in turn. Raises
    BenchError if the centre does not start or a card goes wrong."""
    config = home_with_keys(place / "home")
    pem = config.transport_public_key.read_bytes()
    # 30 more than needed: faults are planted in a few.
    cards = sum(load.cards for load in loads) + 30
    delivery = make_delivery(6, cards, place / "delivery", pem)
    carried: list[Carried] = []
    with _centre(config) as door:
        take_in(door, delivery)
        for load in loads:
            skip = sum(before.load.cards for before in carried)
            carried.append(_offer(config, Job(door, str(delivery.out_dir), skip, load)))
    return carried


def _offer(config: Config, job: Job) -> Carried:
    before = _spent(config)
    done = subprocess.run(
        [sys.executable, "-m", "bench.stations"],
        input=json.dumps(asdict(job)),
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    after = _spent(config)
    if done.returncode:
        raise BenchError("the simulated stations ended with a fault (see above)")
    result = Offered(**json.loads(done.stdout))
    used = {name: after[name] - before.get(name, 0.0) for name in after}
    used |= {"stations": result.generator_cpu, "chips": result.chip_cpu}
    return Carried(job.load, result, {name: 1_000 * s / result.cards for name, s in used.items()})


@contextmanager
def _centre(config: Config) -> Iterator[str]:
    """`centre up` as a process of its own; the address of its doors."""
    with (config.logs / "up.out").open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "centre", "up", "--home", str(config.home)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield _door(config, process)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(START_SECONDS)


def _door(config: Config, process: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        state = state_of(config.home)
        if state and all(actor["state"] == "ready" for actor in state["actors"].values()):
            return str(state["listen"])
        time.sleep(0.1)  # another process's file: there is no event to wait for
    raise BenchError(f"the centre does not start: see {config.logs}")


def _spent(config: Config) -> dict[str, float]:
    """Processor seconds so far of every process of the centre."""
    state = json.loads((config.run / "state.json").read_text(encoding="utf-8"))
    names = {int(actor["pid"]): name for name, actor in state["actors"].items()}
    return processor_seconds({**names, state["pid"]: "supervisor"}, state["pid"])


def processor_seconds(names: Mapping[int, str], first: int) -> dict[str, float]:
    """Processor seconds so far of `first` and all that descends from it, by the `names` of
    process ids; what has no name is Ray's own."""
    seconds: dict[str, float] = {}
    for pid in _descendants(first):
        name = names.get(pid, "ray")
        seconds[name] = seconds.get(name, 0.0) + _used(pid)
    return seconds


def _descendants(pid: int) -> list[int]:
    """`pid` and all that descends from it."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            fields = _stat(int(entry.name))
            if fields:
                parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found, left = [], [pid]
    while left:
        found.append(left.pop())
        left += parents.get(found[-1], [])
    return found


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the name (proc(5)); empty if it has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()


def _used(pid: int) -> float:
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / _TICKS if fields else 0.0
