"""Which processes of a running floor can be killed, by what they are.

The operating system and the supervisor's word (`run/state.json`) tell; a process is a victim only
if it descends from the floor that was started here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from centre.machine import PROC, descendants
from centre.running import state_of
from proof.chaos.second import SECOND
from proof.postgres import USER, PostgresServer

POWER = "power"
"""Everything at once: the whole floor loses its power."""
POSTGRES = "postgres"
BACKEND = "backend"
"""One connection's process in the database server, which starts all of them anew then."""

_PROGRAMS: dict[str, Callable[[Sequence[str]], str]] = {
    "raylet": lambda words: "raylet",
    "pcscd": lambda words: "pcscd",
}
"""By the name of the program."""
_MODULES: dict[str, Callable[[Sequence[str]], str]] = {
    "centre": lambda words: "supervisor" if "up" in words else "",
    # A chip's change is on file before it answers, so a kill of its tray is to it what a cut of
    # the power is to a chip: the old memory or the new one.
    "station_agents.virtual.tray": lambda words: "tray",
    "station_agents": lambda words: words[words.index("--station") + 1],
}
"""By the Python module that runs: `python -m MODULE …`."""


def alive(floor: int, home: Path, second: int | None) -> dict[str, int]:
    """Process ids by victim, of the floor whose first process is `floor`: the actors by their own
    names (lines, `gateway`, `provider-0` …), `supervisor` (`centre up`), `raylet`, the stations by
    name, `pcscd`, `tray`; of the second machine `second-supervisor` and `second-raylet`."""
    family, there = descendants(floor), descendants(second) if second else []
    found = {name: pid for pid in family if (name := _name(pid))}
    found |= {f"{SECOND}-{name}": pid for pid in there if (name := _name(pid))}
    state = state_of(home)
    if state is not None and state["pid"] in family:
        actors = {name: actor["pid"] for name, actor in state["actors"].items()}
        found |= {name: pid for name, pid in actors.items() if pid in (*family, *there)}
    return found


def of_server(server: PostgresServer) -> dict[str, int]:
    """The postmaster, and the newest process that serves a connection of the floor, if any does."""
    serving = [pid for pid in server.backends() if f"postgres: {USER} " in _command(pid)]
    return {POSTGRES: server.pid, **({BACKEND: max(serving)} if serving else {})}


def _command(pid: int) -> str:
    with suppress(OSError):
        return (PROC / str(pid) / "cmdline").read_text("utf-8", "replace")
    return ""


def _name(pid: int) -> str:
    with suppress(ValueError, IndexError):
        words = _command(pid).split("\0")
        if program := _PROGRAMS.get(Path(words[0]).name):
            return program(words)
        if "-m" in words and (module := _MODULES.get(words[words.index("-m") + 1])):
            return module(words)
    return ""
