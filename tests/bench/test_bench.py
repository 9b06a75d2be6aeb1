"""The bench at its smallest: it runs on real parts and says what `results.json` promises."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from bench import agent, keys, one_process, results, stations, whole_centre
from bench.chips import TURNS_OF_A_CARD
from bench.intake import take_in
from bench.masters import home_with_keys, take_temporary_keys
from counterparts.factory import make_delivery

CARDS = 14
LOAD = stations.Load(4, 0.83, 1.3, 1.5)


async def offer_in_process(place: Path) -> stations.Offered:
    """The stations of the bench at real doors, behind which the lines are in this process."""
    config = home_with_keys(place / "home")
    pem = config.transport_public_key.read_bytes()
    delivery = make_delivery(6, 60, place / "stations", pem)
    lines = one_process.Lines(config)
    try:
        take_temporary_keys(lines.provider, delivery.key_block.read_bytes())
        async with lines.doors() as door:
            await asyncio.to_thread(take_in, door, delivery)
            return await stations.offer(stations.Job(door, str(delivery.out_dir), 0, LOAD))
    finally:
        lines.close()


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> results.Results:
    place = tmp_path_factory.mktemp("bench")
    lines = one_process.measure(place, 1, CARDS)
    tray = min((place / "delivery" / "trays").glob("*.jsonl"))
    compared = agent.measure(place, tray, lines.lines[0].script, 1, 2)
    offered = asyncio.run(offer_in_process(place))
    spent = whole_centre.processor_seconds({os.getpid(): "gateway"}, os.getpid())
    prepared = keys.measure(place / "keys", 1)
    carried = [whole_centre.Carried(LOAD, offered, spent)]
    return results.gather(lines, compared, carried, prepared, 0.0)


def test_every_figure_is_measured(measured: results.Results) -> None:
    """All named fields are there, and none is nothing."""
    for name in results.NAMED:
        assert measured[name] > 0, name
    assert {"machine", "date", "commit"} <= set(measured)
    assert measured["loads"][0]["cpu_ms_per_card"]["gateway"] > 0


def test_every_turn_that_was_due_is_counted(measured: results.Results) -> None:
    """4 stations with 14 turns a card and 0.83 cards/s: whether the centre was quick or slow, each
    moment of the timetable has its turn."""
    assert measured["loads"][0]["turns"] == pytest.approx(4 * TURNS_OF_A_CARD * 0.83 * 1.5, abs=4)


def test_the_page_says_what_the_figures_say(measured: results.Results, tmp_path: Path) -> None:
    """RESULTS.md is made from results.json alone."""
    results.write(tmp_path, measured)
    kept = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    page = (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
    assert page == results.page(kept)
    for name in results.NAMED:
        assert f"| `{name}` | {kept[name]} |" in page
