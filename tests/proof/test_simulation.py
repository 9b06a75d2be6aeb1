"""The simulator holds what it promises about itself: a fixed set of seeds and two fresh ones pass,
a seed is reproduced exactly, and it misses every safeguard that is switched off.

`make simulate SEED=…` runs one of them alone; a failing seed stands in the message.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from proof.planted import BUGS, Planted
from proof.simulation.home import Home, make_home, memory_directory
from proof.simulation.world import simulate

ROOT = Path(__file__).resolve().parents[2]
HOURS = 0.6
"""One small delivery each."""


@pytest.fixture(scope="module")
def home() -> Iterator[Home]:
    place = memory_directory()
    yield make_home(place / "template")
    shutil.rmtree(place)


def fresh() -> int:
    """Another one in each run: what fails says which it was."""
    return random.SystemRandom().randrange(1_000, 1_000_000)


@pytest.mark.parametrize("seed", [3, pytest.param(fresh(), id="fresh")])
def test_all_promises_hold(home: Home, seed: int) -> None:
    outcome = simulate(seed, HOURS, home)
    assert not outcome.broken, f"{outcome}\n{outcome.story}"
    assert outcome.faults
    assert outcome.commits


def test_the_same_seed_gives_the_same_trace() -> None:
    """In another process, too, whose sets and dicts of text have another order."""
    told = [
        subprocess.run(
            [sys.executable, "-m", "proof.simulate", "--seed", "4", "--hours", str(HOURS)],
            cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": hash_seed}, text=True,
            stdout=subprocess.PIPE, check=True,
        ).stdout.splitlines()[-1]
        for hash_seed in ("1", "2")
    ]  # fmt: skip
    one, other = (line.partition("trace ")[2].split(":")[0] for line in told)
    assert one == other
    assert len(one) == 16


FOUND_WITH = {
    "epoch": 1,
}
"""A seed that finds each, so that this test takes seconds; `make planted-bugs` looks for one."""


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_safeguard_that_is_switched_off_is_missed(home: Home, bug: Planted) -> None:
    with bug.plant():
        outcome = simulate(FOUND_WITH.get(bug.name, 1), HOURS, home)
    assert outcome.promise in bug.promises, outcome
