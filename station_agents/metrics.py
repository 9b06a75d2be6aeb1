"""What a station shows: its readers, the time that chips and the centre take, what broke off."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from functools import cache, partial
from time import perf_counter

import prometheus_client as prometheus

from station_agents.pausing import Stopping


class ReaderState(StrEnum):
    EMPTY = "empty"  # no card lies there
    WORKING = "working"  # with a chip, or with the feeder
    ASKING = "asking"  # a turn is on its way to the centre and back
    WAITING = "waiting"  # the centre said: ask again later
    FAILED = "failed"  # broke off, and begins anew
    QUARANTINED = "quarantined"  # hangs, or failed too often


PRESENTATION_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 120)

READERS = prometheus.Gauge(
    "card_centre_readers",
    "Readers of the station by state: empty, working, asking, waiting, failed, quarantined",
    ["state"],
)
BROKEN_OFF = prometheus.Counter(
    "card_centre_presentations_broken_off_total",
    "Presentations without a verdict, by the kind of error; the chip is opened anew",
    ["error"],
)
PRESENTATION_SECONDS = prometheus.Histogram(
    "card_centre_presentation_seconds",
    "One card at one stage, from power-on to its verdict: good, rejected or held",
    ["stage", "result"],
    buckets=PRESENTATION_BUCKETS,
)
TURN_PART_SECONDS = prometheus.Histogram(
    "card_centre_station_turn_seconds",
    "One turn as the station sees it, by part: centre (asked until answered), chip (its segment)",
    ["stage", "part"],
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60),
)
APDUS = prometheus.Counter("card_centre_apdus_total", "Commands that chips answered", ["reader"])
CARD_SECONDS = prometheus.Histogram(
    "card_centre_reader_card_seconds",
    "One card in its reader, all stages, from its first power-on to its stack",
    ["reader"],
    buckets=PRESENTATION_BUCKETS,
)
READER_FAILURES = prometheus.Counter(
    "card_centre_reader_failures_total",
    "What went wrong at a reader: retry (a power-on tried again), power_on (a chip that answered"
    " none), broken (a session that broke off), hang, quarantine",
    ["reader", "failure"],
)
LAST_VERDICT = prometheus.Gauge(
    "card_centre_last_verdict_timestamp_seconds",
    "When the station last had a verdict for a card; before the first, when it started",
)
DOOR_CONNECTED = prometheus.Gauge(
    "card_centre_door_connected", "1 while the station has its stream to the centre"
)
FEEDERS_AWAY = prometheus.Gauge(
    "card_centre_feeders_away", "Readers whose feeder does not answer now"
)

# Finding a series by its labels takes longer than counting.
_part_seconds = cache(TURN_PART_SECONDS.labels)
apdus_of = cache(APDUS.labels)
_states: dict[str, ReaderState] = {}
LAST_VERDICT.set_to_current_time()


def reader_is(reader: str, state: ReaderState) -> None:
    _states[reader] = state


def _count(state: ReaderState) -> int:
    return sum(s is state for s in list(_states.values()))


def expect(stages: Iterable[str], readers: Iterable[str]) -> None:
    """Every series of the station from the start, at 0: a rate sees the first event only so."""
    for state in ReaderState:
        READERS.labels(state).set_function(partial(_count, state))
    for error in ("Again", "CardRemoved", "ReaderError", "ReaderHung", "ReaderLost", "ServiceLost"):
        BROKEN_OFF.labels(error)
    for reader in readers:
        apdus_of(reader)
        CARD_SECONDS.labels(reader)
        for failure in ("retry", "power_on", "broken", "hang", "quarantine"):
            READER_FAILURES.labels(reader, failure)
    for stage in stages:
        for part in ("centre", "chip"):
            _part_seconds(stage, part)
        for stack in ("good", "rejected", "held"):
            PRESENTATION_SECONDS.labels(stage, stack)


@contextmanager
def card(reader: str) -> Iterator[None]:
    """Around the work on one card. What breaks it off is counted and goes on."""
    reader_is(reader, ReaderState.WORKING)
    try:
        yield
    except Stopping:
        raise
    except Exception as e:
        BROKEN_OFF.labels(type(e).__name__).inc()
        reader_is(reader, ReaderState.FAILED)
        raise


@contextmanager
def turn(reader: str, stage: str, part: str) -> Iterator[None]:
    """Around one part of a turn: `centre` or `chip`."""
    reader_is(reader, ReaderState.ASKING if part == "centre" else ReaderState.WORKING)
    began = perf_counter()
    yield
    _part_seconds(stage, part).observe(perf_counter() - began)


def presented(stage: str, stack: str, seconds: float) -> None:
    """A verdict came. A card that goes on to another stage is good at this one."""
    PRESENTATION_SECONDS.labels(stage, stack or "good").observe(seconds)
    LAST_VERDICT.set_to_current_time()
