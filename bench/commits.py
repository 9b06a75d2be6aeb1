"""Durable transitions a second, by size of chunk and number of lines, and how soon a line that died
is back.

A transition is one body moved: an event, its part of a movement, a guarded row. On SQLite one
process commits for all lines, as the ledger actor does; on PostgreSQL each line is a process with
a connection of its own.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import threading
import time
import uuid
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from bench.chips import BenchError, Chip, ChipTime
from bench.masters import home_with_keys
from bench.one_process import Lines
from centre.wiring import now
from counterparts.factory import make_delivery
from domain.bodies import Body, Writing
from domain.changes import EventType
from domain.codes import Code
from domain.places import Kind, Line, held, work
from ledger.commit import Ledger
from ledger.connection import ledger_file
from station_agents.virtual.tray_file import Plastic, read_tray

CHUNKS = (1, 16, 256, 1_000)
LINES = (Line.KEY_REPLACEMENT, Line.INSPECTION, Line.SAMPLING, Line.SORTING)
COUNTS = (1, 2, 4)
_WORK, _HELD = work(Line.KEY_REPLACEMENT), held(Line.KEY_REPLACEMENT)


@dataclass(frozen=True)
class Carried:
    """What so many lines committed together in chunks of this size."""

    database: str
    lines: int
    chunk: int
    per_second: float


def measure(database: str, url: str, seconds: float) -> list[Carried]:
    """Every number of lines with every chunk, `seconds` each, in the empty ledger at `url`."""
    Ledger(url, now).close()
    together = _threads if ledger_file(url) is not None else _processes
    return [
        Carried(database, count, chunk, together(url, LINES[:count], chunk, seconds))
        for count in COUNTS
        for chunk in CHUNKS
    ]


def _threads(url: str, lines: Sequence[str], chunk: int, seconds: float) -> float:
    ledger, lock = Ledger(url, now), threading.Lock()
    done: list[float] = []
    movers = [_Mover(ledger, line, chunk) for line in lines]
    threads = [
        threading.Thread(target=lambda m=mover: done.append(m.run(seconds, lock)))
        for mover in movers
    ]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        ledger.close()
    if len(done) != len(lines):
        raise BenchError("a line of the bench did not commit")
    return sum(done)


def _processes(url: str, lines: Sequence[str], chunk: int, seconds: float) -> float:
    context = multiprocessing.get_context("spawn")
    ends = []
    for line in lines:
        ours, theirs = context.Pipe()
        process = context.Process(target=_line_process, args=(theirs, url, line, chunk, seconds))
        process.start()
        ends.append((process, ours))
    for _, end in ends:
        end.recv()
    for _, end in ends:
        end.send("go")
    done = [end.recv() for _, end in ends]
    for process, _ in ends:
        process.join()
    return float(sum(done))


def _line_process(end: Connection, url: str, line: str, chunk: int, seconds: float) -> None:
    ledger = Ledger(url, now)
    mover = _Mover(ledger, line, chunk)
    end.send("ready")
    end.recv()
    end.send(mover.run(seconds, nullcontext()))
    ledger.close()


class _Mover:
    """A line that holds its bodies and takes them back to work, a chunk at a time."""

    def __init__(self, ledger: Ledger, line: str, chunk: int) -> None:
        self._ledger, self._line = ledger, line
        self._epoch = ledger.open_epoch(line)
        self._run = uuid.uuid4().hex
        self._bodies = [
            Body(f"{self._run}.{n}", Kind.SOCIAL_SECURITY_CARD, "102", "B1", "C1", _WORK)
            for n in range(chunk)
        ]
        writing = Writing(line, f"{self._run}:bodies")
        for body in self._bodies:
            writing.insert("body", body.row())
        ledger.commit(writing.changes(), self._epoch)

    def run(self, seconds: float, one_at_a_time: Any) -> float:
        """Transitions a second."""
        started, commits = time.perf_counter(), 0
        while time.perf_counter() - started < seconds:
            commits += 1
            writing = Writing(self._line, f"{self._run}:{commits}")
            self._bodies = [self._moved(writing, body) for body in self._bodies]
            changes = writing.changes()
            with one_at_a_time:
                self._ledger.commit(changes, self._epoch)
        return commits * len(self._bodies) / (time.perf_counter() - started)

    def _moved(self, writing: Writing, body: Body) -> Body:
        if body.place == _WORK:
            return writing.change(
                body, EventType.BODY_HELD, place=_HELD, condition=Code.FORMAL_KEYS_FOREIGN
            )
        return writing.change(body, EventType.BODY_RELEASED, place=_WORK, condition="")


@dataclass(frozen=True)
class Recovered:
    """Seconds from the start of a new instance of key replacement until it has answered a chip of
    every carton, so that it has all its open cards."""

    database: str
    cards: int
    seconds: float


def recover(place: Path, database: str, url: str, cards: int) -> Recovered:
    """Take a delivery of `cards` into the empty ledger at `url`, and start the lines anew."""
    config = replace(home_with_keys(place / "home"), ledger=url)
    pem = config.transport_public_key.read_bytes()
    delivery = make_delivery(7, cards, place / "delivery", pem)
    lines = Lines(config)
    asyncio.run(lines.take_in(delivery))
    lines.close()
    first: dict[str, Plastic] = {}
    for tray in delivery.trays:
        for plastic in read_tray(tray)[0].cards.values():
            if not plastic.silent:
                first.setdefault(plastic.carton_id, plastic)
    chips = [Chip(plastic, "station-1", ChipTime(), sound=False) for plastic in first.values()]
    started = time.perf_counter()
    lines = Lines(config)
    try:
        replies = asyncio.run(lines.ask(Line.KEY_REPLACEMENT, [chip.turn for chip in chips]))
        seconds = time.perf_counter() - started
    finally:
        lines.close()
    if len(replies) != len(chips):
        raise BenchError("a line that came back did not answer")
    return Recovered(database, cards, seconds)
