"""What lines and the key provider show: calls, chunks of turns, operations on keys."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from time import perf_counter
from typing import Any, get_args

import prometheus_client as prometheus

from domain.provider import (
    Answer,
    KeyRefused,
    RecordUnsealable,
    Request,
)

CALL_SECONDS = prometheus.Histogram(
    "card_centre_line_call_seconds",
    "One call of a line's method, from its arrival to the answer",
    ["line", "method"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60),
)
CHUNK_TURNS = prometheus.Histogram(
    "card_centre_chunk_turns",
    "Turns of chips in one chunk",
    ["line"],
    buckets=(1, 2, 4, 8, 16, 32, 64, 128),
)
CHUNK_PART_SECONDS = prometheus.Counter(
    "card_centre_chunk_part_seconds_total",
    "Seconds spent on chunks of turns, by part: look_up, prepare, provider, decide, commit",
    ["line", "part"],
)
PROVIDER_CALL_SECONDS = prometheus.Histogram(
    "card_centre_provider_call_seconds",
    "One call of the key provider, a whole chunk",
    ["operation"],
    buckets=(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5),
)
PROVIDER_OPERATIONS = prometheus.Counter(
    "card_centre_provider_operations_total",
    "Operations of the key provider by what came of them: done, differs, refused, failed",
    ["operation", "result"],
)

MEMBER_IN = prometheus.Gauge(
    "card_centre_key_member_in",
    "1 while this process asks a key provider of the pool, 0 while it has taken it out",
    ["member"],
)

# Finding a series by its labels takes longer than counting.
call_seconds = cache(CALL_SECONDS.labels)
chunk_turns = cache(CHUNK_TURNS.labels)
member_in = cache(MEMBER_IN.labels)
_part_seconds = cache(CHUNK_PART_SECONDS.labels)

REQUESTS: dict[type[Request], str] = {
    kind: "_".join(re.findall("[A-Z][a-z]*", kind.__name__)).lower() for kind in get_args(Request)
}
"""What one `perform` is made of, by name."""
ON_CHUNKS = ("seal", "unseal", "index", "sign")


def laps(line: str) -> Callable[[str], None]:
    """A function that books the time since its last call (at first: since now) on a part of
    `line`'s work on a chunk."""
    began = perf_counter()

    def lap(part: str) -> None:
        nonlocal began
        now = perf_counter()
        _part_seconds(line, part).inc(now - began)
        began = now

    return lap


def provider_call(operation: str, method: Callable[..., Any], args: Sequence[Any]) -> Any:
    """Call `method` of a provider and count what it did: of an operation on a chunk, which is its
    last argument, each; else one act on keys."""
    with PROVIDER_CALL_SECONDS.labels(operation).time():
        try:
            answers = method(*args)
        except Exception as e:
            result = "refused" if isinstance(e, KeyRefused | RecordUnsealable) else "failed"
            for kind, n in _asked(operation, args).items():
                PROVIDER_OPERATIONS.labels(kind, result).inc(n)
            raise
    if operation == "perform":
        done = Counter(
            (REQUESTS[type(request)], _result(answer))
            for request, answer in zip(args[-1], answers, strict=True)
        )
        for (kind, result), n in done.items():
            PROVIDER_OPERATIONS.labels(kind, result).inc(n)
    else:
        n = len(answers) if operation in ON_CHUNKS else 1
        PROVIDER_OPERATIONS.labels(operation, "done").inc(n)
    return answers


def expect_chip_line(line: str) -> None:
    """Every series of a line of chips from the start, at 0: a rate sees the first event only so."""
    call_seconds(line, "turns")
    chunk_turns(line)
    for part in ("look_up", "prepare", "provider", "decide", "commit"):
        _part_seconds(line, part)


def expect_provider() -> None:
    """The same of a provider."""
    for operation in ON_CHUNKS:
        PROVIDER_CALL_SECONDS.labels(operation)
        for result in ("done", "refused", "failed"):
            PROVIDER_OPERATIONS.labels(operation, result)
    PROVIDER_CALL_SECONDS.labels("perform")
    for operation in REQUESTS.values():
        for result in ("done", "differs", "refused", "failed"):
            PROVIDER_OPERATIONS.labels(operation, result)


def _asked(operation: str, args: Sequence[Any]) -> Counter[str]:
    """The operations of a call of which nothing was done; a key block counts as one."""
    if operation == "perform":
        return Counter(REQUESTS[type(request)] for request in args[-1])
    one = operation not in ON_CHUNKS or isinstance(args[-1], bytes)
    return Counter({operation: 1 if one else len(args[-1])})


def _result(answer: Answer) -> str:
    if answer.refused:
        return "refused"
    return "differs" if answer.difference else "done"
