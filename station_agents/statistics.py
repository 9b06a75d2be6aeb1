"""What a station counts of each reader since it started: for the centre, metrics and the log."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, fields
from typing import Any, Final

from station_agents import metrics
from stubs.common_pb2 import ReaderStatistics

_CARDS_TIMED: Final = 256


@dataclass
class Statistics:
    """Of one reader; the names are those of the contract (proto/common.proto)."""

    reader: str
    cards: int = 0
    apdus: int = 0
    retries: int = 0
    power_on_failures: int = 0
    broken: int = 0
    hangs: int = 0
    quarantines: int = 0
    _seconds: deque[float] = field(default_factory=lambda: deque(maxlen=_CARDS_TIMED))

    def card_done(self, seconds: float) -> None:
        """A card left the reader so long after its first power-on."""
        self.cards += 1
        self._seconds.append(seconds)
        metrics.CARD_SECONDS.labels(self.reader).observe(seconds)

    def answered(self, apdus: int) -> None:
        self.apdus += apdus
        metrics.apdus_of(self.reader).inc(apdus)

    def power_on_repeated(self) -> None:
        self.retries += 1
        self._failed("retry")

    def power_on_failed(self) -> None:
        self.power_on_failures += 1
        self._failed("power_on")

    def broke_off(self) -> None:
        self.broken += 1
        self._failed("broken")

    def hung(self) -> None:
        self.hangs += 1
        self._failed("hang")

    def quarantined(self) -> None:
        self.quarantines += 1
        self._failed("quarantine")

    def _failed(self, failure: str) -> None:
        metrics.READER_FAILURES.labels(self.reader, failure).inc()

    def row(self) -> dict[str, Any]:
        """All of it; `seconds_p50` and `seconds_p95` of the last 256 cards, 0 before the first."""
        row: dict[str, Any] = {
            f.name: getattr(self, f.name) for f in fields(self) if not f.name.startswith("_")
        }
        timed = sorted(self._seconds)
        for name, part in (("seconds_p50", 0.50), ("seconds_p95", 0.95)):
            row[name] = round(timed[int(part * (len(timed) - 1) + 0.5)], 3) if timed else 0.0
        return row

    def to_wire(self, station_id: str) -> ReaderStatistics:
        return ReaderStatistics(station_id=station_id, **self.row())
