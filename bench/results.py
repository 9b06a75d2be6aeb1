"""The figures of one run: `results.json`, and `RESULTS.md` made from it."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from bench import agent, keys, ledgers, one_process, profiling, whole_centre
from bench.ledgers import table
from bench.one_process import WINDOW

ROOT = Path(__file__).parents[1]
TURN_MILLISECONDS = 50
AIMS = {
    "cpu_ratio": "≤ 1.5",
    "apdu_ratio": "≥ 0.8",
    "key_ratio": "≥ 0.7",
    "turn_p99_ms": f"≤ {TURN_MILLISECONDS}",
}
NAMED = {
    "floor_cpu_ms_per_card": "floor: provider calls and commits alone",
    "line_cpu_ms_per_card": "lines: key replacement and inspection, chips not counted",
    "cpu_ratio": "lines / floor",
    "chip_cpu_ms_per_card": "virtual chips",
    "cards_per_second": "through the lines in one process, chips included, by the clock",
    "apdu_ratio": "agent / bare loop, APDU/s through pcscd",
    "key_ratio": "key preparation, provider / bare ciphers, the lowest of all providers",
    "turn_p50_ms": "a turn with 200 chips in flight (a station each, 0.83 cards/s), median",
    "turn_p99_ms": "the same, 99th percentile",
}
Results = dict[str, Any]


def gather(
    lines: one_process.Measured,
    compared: agent.Compared,
    loads: Sequence[whole_centre.Carried],
    prepared: Sequence[keys.Prepared],
    busy: float,
) -> Results:
    """All figures; medians over the rounds. The last of `loads` is the one of the aim; `busy` is
    the load average of the machine before the bench began."""
    own = [1_000 * (r.total - r.chips) / r.cards for r in lines.lines]
    floor = [1_000 * f / r.cards for f, r in zip(lines.floor, lines.lines, strict=True)]
    cards = lines.lines[0].cards
    aimed = loads[-1].result
    return {
        "floor_cpu_ms_per_card": round(median(floor), 3),
        "line_cpu_ms_per_card": round(median(own), 3),
        "cpu_ratio": round(median(a / b for a, b in zip(own, floor, strict=True)), 3),
        "chip_cpu_ms_per_card": round(median(1_000 * r.chips / r.cards for r in lines.lines), 3),
        "cards_per_second": round(median(r.cards / r.clock for r in lines.lines), 1),
        "apdu_ratio": round(compared.ratio, 3),
        "turn_p50_ms": round(aimed.p50, 1),
        "turn_p99_ms": round(aimed.p99, 1),
        "key_ratio": round(min(p.ratio for p in prepared), 3),
        "keys": [_keys(p) for p in prepared],
        "machine": machine(),
        "date": today(),
        "commit": commit(),
        "load_average_before": round(busy, 2),
        "cores": os.cpu_count() or 1,
        "stations_within_aim": within_aim(loads),
        "rounds": len(own),
        "cards_per_round": cards,
        "agent_apdus_per_second": round(median(compared.agent)),
        "bare_apdus_per_second": round(median(compared.bare)),
        "loads": [_load(carried) for carried in loads],
        "profile_parts": profiling.parts_of(lines.profile, cards),
        "profile_functions": profiling.functions_of(lines.profile, cards),
    }


def _keys(p: keys.Prepared) -> Results:
    return {
        "provider": p.name,
        "chips_per_second": round(p.provider),
        "floor_chips_per_second": round(p.floor),
        "ratio": round(p.ratio, 3),
    }


def within_aim(loads: Sequence[whole_centre.Carried]) -> int:
    """The most stations whose cards were carried as they came, with the 99th percentile of a turn
    within the aim; 0 if there were none."""
    return max(
        (
            c.load.stations
            for c in loads
            if c.result.p99 <= TURN_MILLISECONDS and c.result.carried >= 0.97 * c.result.offered
        ),
        default=0,
    )


def _load(carried: whole_centre.Carried) -> Results:
    r = carried.result
    return {
        "stations": carried.load.stations,
        "cards_per_second_offered": round(r.offered, 1),
        "cards_per_second_carried": round(r.carried, 1),
        "turn_p50_ms": round(r.p50, 1),
        "turn_p99_ms": round(r.p99, 1),
        "turns": r.turns,
        "unanswered": r.unanswered,
        "cpu_ms_per_card": {name: round(ms, 2) for name, ms in carried.processes.items()},
    }


def today() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def machine() -> str:
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    gigabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} × {cpu}, {gigabytes:.0f} GB, "
        f"Linux {platform.release()}, Python {platform.python_version()}"
    )


def commit() -> str:
    """The commit that was measured; `+` when files had been changed since."""
    head = _git("rev-parse", "--short=12", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!bench/RESULTS.md",
                   ":!bench/results.json")  # fmt: skip
    return head + ("+" if changed else "") if head else "unknown"


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def write(directory: Path, results: Results) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    text = json.dumps(results, ensure_ascii=False, indent=1) + "\n"
    (directory / "results.json").write_text(text, encoding="utf-8")
    (directory / "RESULTS.md").write_text(page(results), encoding="utf-8")


def page(results: Mapping[str, Any]) -> str:
    """`RESULTS.md`."""
    return (
        "\n\n".join(
            [
                "# Bench\n\nMade by `make bench`; do not edit.",
                f"{results['date']} · commit {results['commit']} · {results['machine']} · "
                f"load average before: {results['load_average_before']}",
                _named(results),
                _how(results),
                _prepared(results),
                *([ledgers.page(results)] if "ledgers" in results else []),
                _loads(results),
                _profile(results),
                _limit(results),
            ]
        )
        + "\n"
    )


def _named(results: Mapping[str, Any]) -> str:
    rows = [(f"`{name}`", results[name], AIMS.get(name, ""), what) for name, what in NAMED.items()]
    return table(("figure", "measured", "aim", "of what"), rows)


def _how(results: Mapping[str, Any]) -> str:
    return f"""\
- **Floor, lines, chips**: one process, {results["rounds"]} rounds of
  {results["cards_per_round"]} cards, lines and floor in turn, medians. Processor time of the whole
  process, the loop that stands for the stations included, the chips not. {WINDOW} chips are in
  work at a time. The floor makes the same calls of the provider (its quota asks the ledger there
  too) and commits the same changes, in the same chunks, into a copy of the ledger.
- **Agent**: {results["agent_apdus_per_second"]} APDU/s, the bare loop
  {results["bare_apdus_per_second"]}, on one reader, in turn. The segments are those of a card from
  the lines; WRITE KEY and EXTERNAL AUTHENTICATE, which serve only once, are replaced by reads.
- **Turns**: a centre as `centre up` brings it up, and stations that speak to its doors, all on this
  machine: the load's own processor time is part of it. Every turn is due at a fixed moment and
  counted from there; what was never answered counts with what it had waited."""


def _prepared(results: Mapping[str, Any]) -> str:
    head = ("masters", "chips/s and core", "bare ciphers", "ratio")
    rows = [
        (k["provider"], k["chips_per_second"], k["floor_chips_per_second"], k["ratio"])
        for k in results["keys"]
    ]
    return f"""\
## Keys of chips

{table(head, rows)}

Chunks of {keys.CHIPS} chips of three cities; of each chip EXTERNAL AUTHENTICATE with its temporary
loading key, WRITE KEY and the check value of every key of the profile, by processor time of one
core. Bare: the same derivations and the same cipher calls, each key made ready once, with nothing
around them; outcomes are compared. What the ledger answers is given from memory. A double in C
stands for an SDF device: its speed says nothing about one."""


def _loads(results: Mapping[str, Any]) -> str:
    rows = [
        (
            load["stations"],
            load["cards_per_second_offered"],
            load["cards_per_second_carried"],
            load["turn_p50_ms"],
            load["turn_p99_ms"],
            f"{load['unanswered']} of {load['turns']}",
        )
        for load in results["loads"]
    ]
    head = ("stations", "cards/s offered", "carried", "turn p50 ms", "p99 ms", "never answered")
    names = sorted({name for load in results["loads"] for name in load["cpu_ms_per_card"]})
    processes = [
        (name, *(load["cpu_ms_per_card"].get(name, "") for load in results["loads"]))
        for name in names
    ]
    total = ("all", *(f"{_whole(load):.1f}" for load in results["loads"]))
    by_load = ("process", *(f"{load['stations']} stations" for load in results["loads"]))
    return (
        f"## Stations at one centre\n\n{table(head, rows)}\n\n"
        f"Carried as they came, 99 of 100 turns within {TURN_MILLISECONDS} ms: "
        f"{results['stations_within_aim']} stations.\n\n"
        "Processor milliseconds a card, by process:\n\n"
        f"{table(by_load, [*processes, total])}"
    )


def _whole(load: Mapping[str, Any]) -> float:
    return float(sum(load["cpu_ms_per_card"].values()))


def _profile(results: Mapping[str, Any]) -> str:
    parts = [(r["part"], r["ms_per_card"]) for r in results["profile_parts"]]
    functions = [(f"`{r['function']}`", r["ms_per_card"]) for r in results["profile_functions"]]
    return (
        "## Profile of the lines\n\n"
        "One more round under cProfile, which makes small functions look dearer than they are.\n\n"
        f"{table(('part, with what it calls', 'ms a card'), parts)}\n\n"
        f"{table(('function, by itself', 'ms a card'), functions)}"
    )


def _limit(results: Mapping[str, Any]) -> str:
    above = [row for row in results["profile_parts"] if not row["part"].startswith("floor")]
    part = max(above, key=lambda row: float(row["ms_per_card"]))
    load = max(results["loads"], key=lambda load: float(load["cards_per_second_carried"]))
    process, spent = max(load["cpu_ms_per_card"].items(), key=lambda item: float(item[1]))
    cores, whole = results["cores"], _whole(load)
    return f"""\
## The next limit

- Of the lines, above the floor: {part["part"]} ({part["ms_per_card"]} ms a card under the
  profiler).
- Of the whole centre: processor time. {whole:.1f} ms a card on {cores} cores are at the most
  {1_000 * cores / whole:.0f} cards/s; {load["cards_per_second_carried"]} were carried. Most of it
  goes to {process} ({spent:.1f} ms)."""
