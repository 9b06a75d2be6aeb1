"""The bench at its smallest: it runs on real parts and says what `results.json` promises."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import results
from bench.__main__ import Size, run

SMALLEST = Size(
    rounds=1,
    cards=14,
    agent_rounds=1,
    agent_cards=2,
    stations=(4,),
    warm_seconds=0.5,
    seconds=2.0,
)


@pytest.fixture(scope="module")
def measured() -> results.Results:
    return run(SMALLEST)


def test_every_figure_is_measured(measured: results.Results) -> None:
    """All named fields are there, and what cannot be nothing is not: no figure is made up."""
    for name in results.NAMED:
        assert measured[name] > 0, name
    assert {"machine", "date", "commit"} <= set(measured)
    load = measured["loads"][0]
    # 4 stations, 12 turns a card, 0.83 cards/s: every turn that was due is counted.
    assert load["turns"] == pytest.approx(4 * 12 * 0.83 * 2.0, abs=4)
    assert all(ms >= 0 for ms in load["cpu_ms_per_card"].values())
    assert {"gateway", "provider", "ledger", "stations", "ray"} <= set(load["cpu_ms_per_card"])


def test_the_page_says_what_the_figures_say(measured: results.Results, tmp_path: Path) -> None:
    """RESULTS.md is made from results.json alone."""
    results.write(tmp_path, measured)
    kept = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    page = (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
    assert page == results.page(kept)
    for name in results.NAMED:
        assert f"| `{name}` | {kept[name]} |" in page
