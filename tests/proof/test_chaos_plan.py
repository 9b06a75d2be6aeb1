"""What `make chaos` kills follows from its seed; how long a pause was, from the ledger alone."""

from __future__ import annotations

import pytest

from proof.chaos.pauses import Kill, pause_after
from proof.chaos.plan import LAST_MOMENT, Plan

PARTS = ("gateway", "ledger", "pcscd", "raylet", "tray")


def test_a_seed_says_when_and_whom() -> None:
    """The same seed has the same moments and victims, another one has others; in as many kills as
    there are kinds, each comes once, and one that is not alive comes as soon as it is."""
    plans = [Plan(7, 10) for _ in range(2)]
    assert plans[0].moments == plans[1].moments == sorted(plans[0].moments)
    assert all(0 <= moment <= LAST_MOMENT for moment in plans[0].moments)
    first, second = ([plan.choose(PARTS) for _ in PARTS] for plan in plans)
    assert first == second
    assert sorted(map(str, first)) == sorted(PARTS)
    assert Plan(8, 10).moments != plans[0].moments
    plan = Plan(7, 10)
    absent = str(first[1])
    without = [plan.choose(PARTS), plan.choose(set(PARTS) - {absent}), plan.choose(PARTS)]
    assert without == [first[0], first[2], absent]
    assert plan.choose(()) is None


@pytest.mark.parametrize(
    ("commits", "pause"),
    [
        ([9.0, 10.5, 11.0], 0.5),
        # What was under way is still committed; the pause began with the kill all the same.
        ([10.1, 18.0, 18.1], 7.9),
        # A lull that began later has another cause.
        ([10.5, 12.0, 13.5, 40.0], 1.5),
        ([9.0], 0.0),
    ],
)
def test_a_pause_begins_at_the_kill_or_soon_after(commits: list[float], pause: float) -> None:
    """The longest time without a commit that the kill can have caused."""
    assert pause_after(Kill(1, "raylet", 1, 10.0, 0.5), commits) == pytest.approx(pause)
