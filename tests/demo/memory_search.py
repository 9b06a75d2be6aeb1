"""The keys of a demo, sought in the memory of its processes while they work (through /proc, as
root): those of the province and its two components, the factory's, and keys of chips."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import IO

from centre.machine import descendants
from counterparts.chips import make_masters
from domain.card.profile import load_profile
from tests.demo.running import CARDS, SEED

CHIPS = 3
"""How many chips' keys are sought; each has a temporary and soon a formal set."""
MAY_HOLD_KEYS = ("provider", "tray", "terminal")
"""By the start of their names: the HSM's own processes, the plastic, and where custodians make or
type in their components."""
_PART = 1 << 22
_GREP = ("grep", "--text", "--only-matching", "--no-filename", "--fixed-strings", "--file")


def keys_in_memory(home: Path, demo: int, place: Path) -> dict[str, list[str]]:
    """What stands where, by process, with an empty list for one that holds nothing. `demo`: its
    process id; `place`: with the custodians' `envelopes`, and `before/trays` as they are now."""
    secrets: dict[bytes, str] = {}
    for key, what in _keys(place):
        secrets |= dict.fromkeys((key, key.hex().encode(), key.hex().upper().encode()), what)
    processes = _processes(home, demo)
    found: dict[str, list[str]] = {name: [] for name in processes.values()}
    for finding in found_in_memory(processes, secrets, place / "patterns"):
        name, _, what = finding.partition(": ")
        found[name].append(what)
    return found


def _keys(place: Path) -> Iterator[tuple[bytes, str]]:
    parts = [json.loads(file.read_text("ascii")) for file in (place / "envelopes").iterdir()]
    assert len(parts) == 2, "a component of each custodian"
    for one, other in zip(*parts, strict=True):
        halves = [bytes.fromhex(part["component"]) for part in (one, other)]
        yield from ((half, "a component") for half in halves)
        master = bytes(a ^ b for a, b in zip(*halves, strict=True))
        yield master, "a master of the province"
    # As the factory draws them (counterparts/factory.py).
    random = Random(f"keys/{SEED}/{CARDS}")
    for key in make_masters(load_profile("ssc-3des"), random).values():
        yield key, "a master of the factory"
    for tray in (place / "before" / "trays").glob("tray-*.jsonl"):
        for line in tray.read_text("utf-8").splitlines()[1 : 1 + CHIPS]:
            for value in json.loads(line)["social"]["keys"]:
                yield bytes.fromhex(value["value"]), "a temporary key of a chip"
    for journal in (place / "before" / "trays").glob("tray-*.journal"):
        rows = [json.loads(line) for line in journal.read_text("utf-8").splitlines()[:-1]]
        formal = [row["key"][2] for row in rows if "key" in row]
        for value in formal[: 8 * CHIPS]:
            yield bytes.fromhex(value), "a formal key of a chip"


def _processes(home: Path, demo: int) -> dict[int, str]:
    """All that belong to the demo, by the name of their part: `provider-0`, `gateway`,
    `station_agents`, `raylet` …"""
    actors = json.loads((home / "run" / "state.json").read_text("utf-8"))["actors"]
    named = {actor["pid"]: name for name, actor in actors.items()}
    ids = {*descendants(demo), *named}
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            # Ray's own processes name the directory of their session.
            session = (home / "run" / "ray-directory").read_bytes()
            if session in command.read_bytes():
                ids.add(int(command.parent.name))
    programs = {pid: named.get(pid) or _program(pid) for pid in sorted(ids)}
    return {p: x if p in named else f"{x} {p}" for p, x in programs.items() if x}


def _program(pid: int) -> str:
    """What runs there; empty if it has ended."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return ""
    words = [Path(os.fsdecode(word)).name for word in command if word]
    module = words[words.index("-m") + 1] if "-m" in words[:-1] else (words or ["?"])[0]
    short = module.rpartition(".")[2]
    return {"demo_terminal": "terminal"}.get(short, short)


def found_in_memory(
    processes: Mapping[int, str], secrets: Mapping[bytes, str], patterns: Path
) -> list[str]:
    """`process: what` for every secret that stands in the memory of a process. `processes`: names
    by process id; `patterns`: a file that can be written, and is gone afterwards.

    A process that ends meanwhile is looked at as far as it went. PermissionError without the
    right to look: the search must not pass for want of it.
    """
    # grep takes its patterns by lines, and a line is text: a secret with such a byte is left out.
    fit = {secret: what for secret, what in secrets.items() if not {0, 10} & set(secret)}
    findings = set()
    try:
        with os.fdopen(os.open(patterns, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as f:
            f.write(b"\n".join(fit) + b"\n")
        for pid, name in processes.items():
            matched = _grep(pid, patterns)
            findings |= {f"{name}: {fit[secret]}" for secret in matched}
    finally:
        patterns.unlink()
    return sorted(findings)


def _grep(pid: int, patterns: Path) -> set[bytes]:
    with subprocess.Popen(
        [*_GREP, str(patterns)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "LC_ALL": "C"},  # bytes, not characters
    ) as grep:
        assert grep.stdin is not None
        assert grep.stdout is not None
        feeder = threading.Thread(target=_feed, args=(pid, grep.stdin))
        feeder.start()
        matched = set(grep.stdout.read().split(b"\n")) - {b""}
        feeder.join()
    assert grep.returncode in (0, 1), "grep failed"
    return matched


def _feed(pid: int, grep: IO[bytes]) -> None:
    with grep, suppress(ProcessLookupError, FileNotFoundError):
        for part in memory_of(pid):
            grep.write(part)


def memory_of(pid: int) -> Iterator[bytes]:
    """All that a process can write to, in pieces; between two mappings the end of a line."""
    maps = Path(f"/proc/{pid}/maps").read_text("utf-8").splitlines()
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in maps:
            place, rights, *_ = line.split()
            if not rights.startswith("rw"):
                continue
            start, end = (int(x, 16) for x in place.split("-"))
            # Pages that were never touched, or are gone, cannot be read.
            with suppress(OSError):
                memory.seek(start)
                left = end - start
                while left > 0 and (part := memory.read(min(left, _PART))):
                    left -= len(part)
                    yield part
            yield b"\n"
