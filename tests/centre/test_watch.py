"""What stands still is said with its reason; what is at work, or has nothing to do, is not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from centre.watch import Frame, Standing, render, stands_still
from domain.codes import WORDS, Code, next_step
from ledger.lots import Lot, LotState
from ledger.progress import Progress
from stubs.operator_pb2 import FloorState, OutboxState, QueueState, ReaderState, StationState

AT = "2026-01-01T08:00:00.000+00:00"
LONG_AGO = "2026-01-01T07:50:00.000+00:00"
JUST_NOW = "2026-01-01T07:59:59.000+00:00"


def reader(**changed: Any) -> ReaderState:
    usual = {"reader": "R1", "stage": "inspection", "carton_id": "C1", "seconds_since_turn": 0.1}
    return ReaderState(**{**usual, **changed})


def station(*readers: ReaderState, **changed: Any) -> StationState:
    return StationState(**{"station_id": "S1", "readers": readers or [reader()], **changed})


def floor(*stations: StationState, **changed: Any) -> FloorState:
    queues = [QueueState(stage="inspection", turns=3, limit=4096)]
    return FloorState(**{"stations": stations, "queues": queues, **changed})


def line(name: str = "inspection", waiting: int = 0, last_at: str = JUST_NOW) -> Progress:
    return Progress(name, waiting, 0, 0, 0, 60.0, last_at)


def frame(
    seen: FloorState | None, *lines: Progress, actor: str = "ready", outbox: Sequence[Any] = ()
) -> Frame:
    state = {
        "listen": "127.0.0.1:1",
        "actors": {"sorting": {"state": actor, "note": "waits: no answer", "since": LONG_AGO}},
    }
    return Frame(Path("/srv/centre"), AT, state, seen, lines or (line(),), outbox, {})


LOT = Lot("L1", "B1", "D1", "103", "social_security_card", 90, "", "II", "0.65", "E", 20, 0, "",
          LotState.REFUSED, 1)  # fmt: skip
LEFT = {"id": "F1", "kind": "centre_return", "batch_id": "B1", "at": LONG_AGO}

STILL = {
    "a part that is not ready": (
        frame(floor(station()), actor="loading"), Code.LINE_AWAY, 600),
    "doors that do not answer": (frame(None), Code.UNAVAILABLE, -1),
    "a station that went away": (
        frame(floor(station(seconds_away=40))), Code.STATION_AWAY, 40),
    "a chip that the centre lets wait": (
        frame(floor(station(reader(code="KEY_UNKNOWN", seconds_waiting=9)))), Code.KEY_UNKNOWN, 9),
    "a machine that fails": (
        frame(floor(station(reader(code="PCSC_AWAY", seconds_waiting=9)))), Code.PCSC_AWAY, 9),
    "an empty feeder while cards wait": (
        frame(floor(station(reader(code="FEEDER_EMPTY", seconds_waiting=9))), line(waiting=2)),
        Code.FEEDER_EMPTY, 9),
    "a reader that asks nothing and says nothing": (
        frame(floor(station(reader(seconds_since_turn=50)))), Code.READER_QUIET, 50),
    "cards for which no station works": (
        frame(floor(), line(waiting=2, last_at=LONG_AGO)), Code.STATION_MISSING, 600),
    "a line that moves nothing though all is well": (
        frame(floor(station()), line("sorting", waiting=2, last_at=LONG_AGO)), Code.LINE_IDLE, 600),
    "a file that is not taken": (
        frame(floor(station(), outbox=[OutboxState(id="F1", code="DIGEST_DIFFERS")]),
              outbox=[LEFT]), Code.DIGEST_DIFFERS, 600),
    "an inspection lot that was refused": (
        replace(frame(floor(station())), lots=[LOT]), Code.LOT_REFUSED, -1),
    "a full queue": (
        frame(floor(station(), queues=[QueueState(stage="inspection", turns=9, limit=9)])),
        Code.BUSY, -1),
}  # fmt: skip


@pytest.mark.parametrize("what", STILL)
def test_what_stands_still_has_its_reason(what: str) -> None:
    """One line: the code that says why, for how long, and on the screen its Chinese words and
    what to do next."""
    shown, code, seconds = STILL[what]
    (found,) = stands_still(shown)
    assert (found.code, found.seconds) == (code, seconds)
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    with console.file:
        console.print(render(shown))
    text = console.export_text()
    for words in (found.where, WORDS[code].chinese, str(code), next_step(code)):
        assert words in text


MOVES = {
    "readers at work": frame(floor(station())),
    "an empty feeder when no card waits": frame(
        floor(station(reader(code="FEEDER_EMPTY", seconds_waiting=9_000)))),
    "a turn that waits a moment": frame(
        floor(station(reader(code="BUSY", seconds_waiting=0.3)))),
    "a file that has just been written": frame(
        floor(station()), outbox=[{**LEFT, "at": JUST_NOW}]),
    "cards that wait for a return or a count": frame(
        floor(), line("inventory", waiting=50, last_at=LONG_AGO)),
    "a centre that is down": replace(frame(None), state=None),
}  # fmt: skip


@pytest.mark.parametrize("what", MOVES)
def test_what_goes_on_is_not_said_to_stand_still(what: str) -> None:
    """No false alarm: who is shown ten reads none."""
    assert stands_still(MOVES[what]) == []


def test_one_cause_is_not_told_twice() -> None:
    """A line that is idle because its station is away has the station as its reason."""
    shown = frame(floor(station(seconds_away=60)), line("sorting", waiting=2, last_at=LONG_AGO))
    assert stands_still(shown) == [Standing("工位 S1", Code.STATION_AWAY, 60)]


def test_many_readers_are_shown_by_station() -> None:
    """Two hundred stations fit a screen: one line each, with how many readers work."""
    readers = [reader(reader=f"R{n}", code="FEEDER_EMPTY" if n else "") for n in range(30)]
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    with console.file:
        console.print(render(frame(floor(station(*readers)))))
    text = console.export_text()
    assert "1/30" in text
    assert text.count("S1") == 1
