"""What stands still is said with its reason; what is at work, or has nothing to do, is not."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from centre.watch import Frame, Standing, stands_still
from centre.watch_screen import render
from domain.codes import Code
from domain.words import WORDS, next_step
from ledger.leases import Doubts
from ledger.lots import Lot, LotState
from ledger.progress import Progress, Unscanned
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


def on_screen(shown: Frame, width: int, height: int | None = None) -> str:
    console = Console(width=width, height=height, file=io.StringIO(), markup=False, highlight=False)
    with console.capture() as captured:
        console.print(render(shown, console, height))
    return captured.get()


UNSCANNED = Unscanned("B1", 5, "B1-P0001", LONG_AGO)
LOT = Lot("L1", "B1", "D1", "103", "social_security_card", 90, "", "II", "0.65", "E", 20, 0, "",
          LotState.REFUSED, 1)  # fmt: skip
DOUBTS = Doubts(3, "C1.0007", LONG_AGO)
OPEN = {"batch_id": "B1", "result": "held", "reason": "IN_DOUBT", "lines": 3}
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
    "an inspection lot that was refused, of a centre that is down": (
        replace(frame(None), state=None, lots=[LOT]), Code.LOT_REFUSED, -1),
    "cards in doubt": (
        replace(frame(floor(station())), doubts=DOUBTS), Code.IN_DOUBT, 600),
    "packages that nobody scans": (
        replace(frame(floor(station())), unscanned=[UNSCANNED]), Code.PACKAGE_UNSCANNED, 600),
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
    text = on_screen(shown, 200)
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
    "packages that are being scanned": replace(
        frame(floor(station())), unscanned=[replace(UNSCANNED, at=JUST_NOW)]),
    "cards that wait for a return or a count": frame(
        floor(), line("inventory", waiting=50, last_at=LONG_AGO)),
    "a centre that is down": replace(frame(None), state=None),
}  # fmt: skip


@pytest.mark.parametrize("what", MOVES)
def test_what_goes_on_is_not_said_to_stand_still(what: str) -> None:
    """No false alarm: who is shown ten reads none."""
    assert stands_still(MOVES[what]) == []


def test_one_cause_is_not_told_twice() -> None:
    """A line that is idle because its station is away has the station as its reason; a card in
    doubt is no open line of a return beside that."""
    shown = frame(floor(station(seconds_away=60)), line("sorting", waiting=2, last_at=LONG_AGO))
    assert stands_still(shown) == [Standing("工位 S1", Code.STATION_AWAY, 60)]
    shown = replace(frame(floor(station())), doubts=DOUBTS, interim=[OPEN])
    assert on_screen(shown, 200).count(Code.IN_DOUBT) == 1


def test_many_readers_are_shown_by_station() -> None:
    """Two hundred stations fit a screen: one line each, with how many readers work."""
    readers = [reader(reader=f"R{n}", code="FEEDER_EMPTY" if n else "") for n in range(30)]
    text = on_screen(frame(floor(station(*readers))), 200)
    assert "1/30" in text
    assert text.count("S1") == 1


LINE_NAMES = ("inventory", "key_replacement", "inspection", "sampling", "sorting")


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40)])
@pytest.mark.parametrize("away", [0, 3, 60])
def test_a_terminal_shows_what_matters_first(width: int, height: int, away: int) -> None:
    """However much stands still: the verdict under the headline, every line with its figures, and
    what has no room is counted; never more lines than the terminal has, nor wider ones."""
    stations = [station(station_id=f"S{n:02}", seconds_away=40 if n < away else 0)
                for n in range(60)]  # fmt: skip
    shown = frame(floor(*stations), *(line(name) for name in LINE_NAMES))
    shown = replace(shown, waits={f"B{n}": ["等待扫描 for the scan"] for n in range(9)})
    text = on_screen(shown, width, height).rstrip("\n").split("\n")
    assert len(text) <= height
    assert all(cell_len(row.rstrip()) <= width for row in text)
    whole = "\n".join(text)
    assert ("停滞" in text[1]) if away else ("无停滞" in text[1])
    for words in ("生产线", "换密钥", "分拣", "未显示"):
        assert words in whole
    if away == 3:
        assert all(f"工位 S0{n}" in whole for n in range(3))
