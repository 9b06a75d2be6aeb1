"""What a line logs while it works names what it works on."""

from __future__ import annotations

import asyncio

import structlog
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from domain.changes import Away
from domain.turns import NoAnswer, StationTurn, Wait
from tests.lines.small_floor import SmallFloor


class _AwayProvider:
    """Every operation finds the provider away, as between a crash and a restart."""

    def __getattr__(self, name: str) -> object:
        async def away(*_: object) -> None:
            structlog.get_logger().warning("below.the.line")
            raise Away("the key provider restarts")

        return away


def test_a_line_that_fails_names_batch_carton_and_station(floor: SmallFloor) -> None:
    """Every log line of a chunk, also one from below the line, names the batches, cartons and
    stations of its turns; none after it does."""
    delivery = floor.deliver(seed=11, cards=8)
    plastic = next(c.plastic for c in floor.chips(delivery) if c.plastic.face_number)
    floor.replacement._provider = _AwayProvider()  # type: ignore[assignment]
    # A silent chip is known by its face, which the provider has to look up.
    silent = NoAnswer(plastic.carton_id, plastic.face_number)
    turn = StationTurn("S7", "R1", "p1", 0, "key_replacement", silent)
    with capture_logs([merge_contextvars]) as logs:
        (reply,) = asyncio.run(floor.replacement.turns([turn]))
        assert isinstance(reply.content, Wait)
        structlog.get_logger().info("afterwards")
    floor.restart_lines()
    about = {
        "batch_ids": [delivery.batch_id],
        "carton_ids": [plastic.carton_id],
        "stations": ["S7"],
    }
    *lines, afterwards = logs
    assert {line["event"] for line in lines} == {"below.the.line", "line.away"}
    assert all(about.items() <= line.items() for line in lines)
    assert not about.keys() & afterwards.keys()
