"""What the doors see of the floor at this moment: stations with their readers, what each waits
for, and what could not leave.

In memory alone. When the gateway starts anew the agents come back within seconds and say it again.
Used from one event loop; every call is a few dictionary accesses. Seconds are of `clock`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from domain.codes import Code
from domain.turns import CentreTurn, NoAnswer, Opening, Restart, StationTurn, Verdict, Wait
from stubs.common_pb2 import ReaderStatistics

MOST_STATIONS = 1_000
MOST_READERS = 64
"""Of one station. What is beyond these limits works all the same and is not shown."""


@dataclass
class ReaderSeen:
    """A reader. `turn_at`: its last turn, or when it was first seen. `code` says why it does not
    go on, since when; empty: it works."""

    reader: str
    turn_at: float
    stage: str = ""
    carton_id: str = ""
    code: str = ""
    since: float = 0.0
    cards: int = 0
    statistics: ReaderStatistics | None = None
    """What its station has counted of it."""
    until_verdict: bool = False
    """The code is a restart's: a chip that is opened again and again has no other sign."""

    def wait(self, code: str, now: float, *, until_verdict: bool = False) -> None:
        if self.code != code:
            self.code, self.since = code, now
        self.until_verdict = until_verdict


@dataclass
class StationSeen:
    """A station. `left_at` counts while it has no stream."""

    station_id: str
    streams: int = 0
    left_at: float = 0.0
    readers: dict[str, ReaderSeen] = field(default_factory=dict)


@dataclass(frozen=True)
class NotLeft:
    """An outbox row whose tries fail since `since`, the last one with `code`."""

    code: str
    since: float


class Board:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.stations: dict[str, StationSeen] = {}
        self.outbox: dict[str, NotLeft] = {}

    # Stations.

    def joined(self, station_id: str) -> None:
        """The station has one stream more."""
        station = self._station(station_id)
        if station is not None:
            station.streams += 1

    def left(self, station_id: str) -> None:
        """The station has one stream less."""
        station = self.stations.get(station_id)
        if station is not None and station.streams:
            station.streams -= 1
            station.left_at = self.clock()

    def news(self, station_id: str, reader: str, code: str) -> None:
        """The station says of a reader why it does not work, or that it does."""
        seen = self._reader(station_id, reader)
        if seen is not None:
            seen.wait(code, self.clock())

    def counted(self, statistics: ReaderStatistics) -> None:
        """A station says what it has counted of a reader."""
        seen = self._reader(statistics.station_id, statistics.reader)
        if seen is not None:
            seen.statistics = statistics

    def asked(self, turn: StationTurn) -> None:
        """A turn came: its reader works."""
        seen = self._reader(turn.station_id, turn.reader)
        if seen is None:
            return
        seen.turn_at, seen.stage = self.clock(), turn.stage
        if isinstance(turn.content, Opening | NoAnswer):
            seen.carton_id = turn.content.carton_id
        if seen.code in _MACHINES:
            seen.code = ""

    def answered(self, turn: StationTurn, reply: CentreTurn) -> None:
        """`turn` was answered."""
        seen = self._reader(turn.station_id, turn.reader)
        if seen is None:
            return
        match reply.content:
            case Verdict(next_stage, _, _):
                seen.code = ""
                seen.cards += not next_stage
            case _ if seen.code in _MACHINES:
                pass  # said after this turn was asked: a turn that broke off is answered later
            case Wait(_, code):
                seen.wait(code, self.clock())
            case Restart(code) if code != Code.OK:
                seen.wait(code, self.clock(), until_verdict=True)
            case _ if not seen.until_verdict:
                seen.code = ""

    def _station(self, station_id: str) -> StationSeen | None:
        station = self.stations.get(station_id)
        if station is None:
            if not station_id or len(self.stations) >= MOST_STATIONS:
                return None
            station = self.stations[station_id] = StationSeen(station_id)
        return station

    def _reader(self, station_id: str, reader: str) -> ReaderSeen | None:
        station = self._station(station_id)
        if station is None:
            return None
        seen = station.readers.get(reader)
        if seen is None and len(station.readers) < MOST_READERS:
            seen = station.readers[reader] = ReaderSeen(reader, self.clock())
        return seen

    # The outbox.

    def not_left(self, outbox_id: str, code: str) -> None:
        """A try to send this row failed."""
        known = self.outbox.get(outbox_id)
        self.outbox[outbox_id] = NotLeft(code, known.since if known else self.clock())

    def open_in_outbox(self, outbox_ids: Iterable[str]) -> None:
        """The rows that are not acknowledged; others are forgotten."""
        open_ids = set(outbox_ids)
        self.outbox = {k: v for k, v in self.outbox.items() if k in open_ids}


_MACHINES = frozenset(
    {
        Code.FEEDER_EMPTY, Code.FEEDER_AWAY, Code.READER_AWAY, Code.READER_QUARANTINED,
        Code.PCSC_AWAY,
    }
)  # fmt: skip
"""What a station says of its machines: a turn from the reader takes it back."""
