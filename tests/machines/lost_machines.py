"""A demo whose centre stands on two machines, which are killed as a power cut would.

Both are homes of their own on this machine, `centre up` and `centre up --join`, over one
PostgreSQL. `play` says what was seen and how long work stood still, in seconds.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from centre.config import TEMPLATE, with_ledger
from centre.machine import descendants
from centre.running import state_of
from domain.changes import EventType
from ledger.queries import Queries

CARDS = 60
SEED = 7
READERS = 2
"""Few: the work shall not be over before both machines were killed."""
SECONDS = 120.0
NODE = 'listen = "127.0.0.1:0"\n\n[card_management]'
"""The address of `[machines]` in a new configuration."""


@dataclass
class Seen:
    """`first`, `again`: where each part stood when two machines were up, before the head was killed
    and after. `pauses`: from a kill to the next commit of what stood there."""

    first: dict[str, str] = field(default_factory=dict)
    again: dict[str, str] = field(default_factory=dict)
    pauses: dict[str, float] = field(default_factory=dict)
    demo: int = -1
    left: int = -1
    said: str = ""


def homes(place: Path, url: str, port: int) -> tuple[Path, Path]:
    """The head's home and the further machine's, with the one configuration of both."""
    head, further = place / "head", place / "further"
    text = with_ledger(TEMPLATE, url)
    assert NODE in text
    text = text.replace(NODE, NODE.replace(":0", f":{port}"))
    for home in (head, further):
        home.mkdir()
        (home / "centre.toml").write_text(text, encoding="utf-8")
    note = {"seed": SEED, "cards": CARDS, "ledger": url}
    (head / "demo.json").write_text(json.dumps(note), encoding="utf-8")
    return head, further


def play(place: Path, url: str, port: int) -> Seen:
    seen = Seen()
    head, further = homes(place, url, port)
    with _process(place, "demo", "--seed", str(SEED), "--cards", str(CARDS), "--readers",
                  str(READERS), "--out", str(head), "--ledger", url) as demo:  # fmt: skip
        until(lambda: state_of(head), demo)
        (further / "keys").mkdir(mode=0o700)
        shutil.copy(head / "keys" / "ray-token", further / "keys")
        join = ("up", "--home", str(further), "--join", f"127.0.0.1:{port}")
        with _process(place, *join) as machine:
            seen.first = until(lambda: spread(head), demo)
            queries = Queries(url)
            until(lambda: replaced(queries) > CARDS // 20, demo)
            up = state_of(head)
            assert up is not None
            os.kill(up["pid"], signal.SIGKILL)
            seen.pauses["head"] = _next_commit(queries, demo)
            seen.again = until(lambda: spread(head, after=up["pid"]), demo)
            seen.pauses["further machine"] = _killed(machine, queries, demo)
            queries.close()
        with _process(place, *join) as machine:
            seen.said = demo.communicate(timeout=SECONDS)[0]
            seen.demo = demo.returncode
            machine.terminate()
            seen.said += machine.communicate(timeout=SECONDS)[0]
            seen.left = machine.returncode
    return seen


def spread(head: Path, after: int = 0) -> dict[str, str]:
    """The machine of each part, once all are ready on two machines; empty before. `after`: not of
    the centre with this process id."""
    state = state_of(head)
    if state is None or state["pid"] == after:
        return {}
    parts = state["actors"]
    where = {name: health["machine"] for name, health in parts.items()}
    ready = all(health["state"] == "ready" for health in parts.values())
    return where if ready and len(set(where.values())) > 1 else {}


def replaced(queries: Queries) -> int:
    found = queries.one("select count(*) as n from event where type = ?", EventType.KEYS_REPLACED)
    return int(found["n"]) if found else 0


def _killed(machine: subprocess.Popen[str], queries: Queries, demo: subprocess.Popen[str]) -> float:
    """SIGKILL to every process of a machine; how long what stood there stood still."""
    for pid in descendants(machine.pid):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return _next_commit(queries, demo)


def _next_commit(queries: Queries, demo: subprocess.Popen[str]) -> float:
    """Seconds until a line that has to take a new epoch now commits under it."""
    killed = time.monotonic()
    epochs = {r["line"]: r["epoch"] for r in queries.rows("select line, epoch from epoch")}
    newest = "select line, max(epoch) as epoch from commit_link group by line"
    until(lambda: any(r["epoch"] > epochs[r["line"]] for r in queries.rows(newest)), demo)
    return time.monotonic() - killed


def until(holds: Callable[[], Any], demo: subprocess.Popen[str]) -> Any:
    """What `holds` answers when it is true. Another process's state: there is no event."""
    deadline = time.monotonic() + SECONDS
    while not (found := holds()):
        if demo.poll() is not None or time.monotonic() > deadline:
            raise AssertionError(demo.communicate()[0][-3000:] if demo.poll() else "too late")
        time.sleep(0.05)
    return found


@contextmanager
def _process(place: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A `centre` command that is running within this block, and nothing of it afterwards."""
    process = subprocess.Popen(
        [sys.executable, "-m", "centre", *arguments],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "XDG_STATE_HOME": str(place / "state")}, start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        for pid in reversed(descendants(process.pid)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
