"""The commands of the simulator.

python -m proof.simulate --seed 7 --hours 8        one simulation
python -m proof.simulate --seed 7 --soak 30        one working day after another, 30 minutes
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Sequence

from proof.simulation.home import make_home, memory_directory
from proof.simulation.world import Outcome, quiet_logs, simulate

DAY_HOURS = 8.0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m proof.simulate", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--hours", type=float, default=DAY_HOURS, help="simulated hours")
    parser.add_argument("--soak", type=float, metavar="MINUTES", help="go on for so long")
    options = parser.parse_args(arguments)
    place, started, done = memory_directory(), time.perf_counter(), list[Outcome]()
    try:
        with quiet_logs():
            home = make_home(place / "template")
        while True:
            outcome = simulate(options.seed + len(done), options.hours, home)
            done.append(outcome)
            if options.soak is not None:
                print(outcome, flush=True)
            if outcome.broken:
                print(outcome.story)
            if outcome.broken or time.perf_counter() - started > 60 * (options.soak or 0):
                break
    except KeyboardInterrupt:
        print("stopped")
    finally:
        shutil.rmtree(place, ignore_errors=True)
    if options.soak is None and done:
        print(f"simulate: {done[0]}")
    if options.soak is not None:
        print(_in_all(done, time.perf_counter() - started))
    return 1 if not done or done[-1].broken else 0


def _in_all(done: Sequence[Outcome], seconds: float) -> str:
    hours, cards = sum(o.hours for o in done), sum(o.cards for o in done)
    faults, shipped = sum(o.faults for o in done), sum(o.shipped for o in done)
    broken = next((f"seed {o.seed}: {o.broken}" for o in done if o.broken), "all promises hold")
    return (
        f"soak: {hours / DAY_HOURS:.1f} simulated days, {faults:,} faults, {cards:,} cards,"
        f" {shipped:,} shipped, {sum(o.steps for o in done):,} steps checked,"
        f" {seconds:.0f} s: {broken}"
    )


if __name__ == "__main__":
    sys.exit(main())
