"""What the doors show: turns that wait, and every turn that was answered."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import prometheus_client as prometheus

from domain.codes import Code
from domain.turns import Content, Restart, Verdict, Wait

QUEUE_TURNS = prometheus.Gauge(
    "card_centre_queue_turns",
    "Turns that wait at the door of a stage, those of the call in flight not counted",
    ["stage"],
)
TURN_SECONDS = prometheus.Histogram(
    "card_centre_turn_seconds",
    "One turn of a chip, from its arrival at the door to its answer",
    ["stage"],
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60),
)
TURN_ANSWERS = prometheus.Counter(
    "card_centre_turn_answers_total",
    "Answers to turns: segment, verdict, wait or restart, and the code that says why",
    ["stage", "answer", "code"],
)


class StageMeter:
    """Measures the turns of one stage. `waiting` is asked at each scrape."""

    def __init__(self, stage: str, waiting: Callable[[], int]) -> None:
        QUEUE_TURNS.labels(stage).set_function(waiting)
        self._seconds = TURN_SECONDS.labels(stage)
        # Finding a series by its labels takes longer than counting; this is done for every turn.
        self._answers = cache(partial(TURN_ANSWERS.labels, stage))
        for code in (Code.BUSY, Code.UNAVAILABLE):
            self._answers("wait", code)

    def answered(self, content: Content, seconds: float) -> None:
        self._seconds.observe(seconds)
        match content:
            case Verdict(code=code):
                answer = "verdict"
            case Wait(code=code):
                answer = "wait"
            case Restart(code=code):
                answer = "restart"
            case _:
                answer, code = "segment", Code.OK
        self._answers(answer, code).inc()
