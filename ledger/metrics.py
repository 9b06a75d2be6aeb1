"""What the ledger shows: each commit as it happens, and at each scrape what stands in it.

Sums are asked from the ledger; only rates come from counters.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime
from functools import wraps
from pathlib import Path
from time import perf_counter
from typing import TypeVar

import prometheus_client as prometheus
import pyodbc
import structlog
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from domain.changes import SENDING, Away, Changes, Committed, Refused
from domain.places import Line, Standing, standing
from ledger.connection import LedgerUnusable, as_json
from ledger.keeping import Open, overdue
from ledger.queries import OF_NO_CARD, Queries
from ledger.returns import interim_totals
from ledger.summary import OUTSIDE, STAGES

log = structlog.get_logger()

COMMIT_SECONDS = prometheus.Histogram(
    "card_centre_commit_seconds",
    "One commit, from the call to the answer, whatever came of it",
    ["line"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
)
COMMITS = prometheus.Counter(
    "card_centre_commits_total",
    "Commits by what came of them: committed, repeated, refused, failed",
    ["line", "result"],
)
COMMITTED_ROWS = prometheus.Counter(
    "card_centre_committed_rows_total",
    "Rows written by commits: events, movements, inserted and changed rows",
    ["line"],
)
CARDS = prometheus.Counter(
    "card_centre_cards_total",
    "Cards that left a stage, committed: good, or set apart as rejected or held",
    ["stage", "result"],
)

STAGE_OF = {(str(line), event): stage for stage, ways in STAGES.items() for line, event in ways}
DESTRUCTION = "destruction"
"""What a batch with overdue data waits for that nothing keeps open; else see `keeping.Open`."""
APART = (Standing.REJECTED, Standing.HELD)

LedgerT = TypeVar("LedgerT")
Commit = Callable[[LedgerT, Changes, int], Committed]


def measured(commit: Commit[LedgerT]) -> Commit[LedgerT]:
    """`Ledger.commit`, measured."""

    @wraps(commit)
    def wrapped(ledger: LedgerT, changes: Changes, epoch: int) -> Committed:
        began, result = perf_counter(), "failed"
        try:
            committed = commit(ledger, changes, epoch)
            result = "repeated" if committed.repeated else "committed"
        except Refused:
            result = "refused"
            raise
        finally:
            COMMIT_SECONDS.labels(changes.line).observe(perf_counter() - began)
            COMMITS.labels(changes.line, result).inc()
        if not committed.repeated:
            _count(changes)
        return committed

    return wrapped


def expect_commits() -> None:
    """Every series of commits from the start, at 0: a rate sees the first event only so."""
    for line in Line:
        COMMIT_SECONDS.labels(line)
        COMMITTED_ROWS.labels(line)
        for result in ("committed", "repeated", "refused", "failed"):
            COMMITS.labels(line, result)
    for stage in STAGES:
        for outcome in ("good", *APART):
            CARDS.labels(stage, outcome)


def _count(changes: Changes) -> None:
    rows = len(changes.events) + len(changes.movements)
    rows += sum(len(i.rows) for i in changes.inserts) + sum(len(u.rows) for u in changes.updates)
    COMMITTED_ROWS.labels(changes.line).inc(rows)
    for (event, place), n in Counter((e.type, e.place) for e in changes.events).items():
        stage = STAGE_OF.get((changes.line, event))
        if stage is not None:
            way = standing(place) if place else None
            CARDS.labels(stage, way if way in APART else "good").inc(n)


class LedgerGauges(Collector):
    """What stands in the ledger at each scrape, asked over a reading connection of its own.

    A body's account is found by its movements. They are append-only, so each scrape reads only
    those that came since the last one: of each line's stream in its order, which no late commit
    can slip behind.
    """

    def __init__(self, ledger: str | Path, today: Callable[[], date]) -> None:
        self._ledger, self._today = ledger, today
        self._queries: Queries | None = None
        self._one_at_a_time = threading.Lock()
        self._read: dict[str, int] = {str(line): 0 for line in Line}
        self._accounts: Counter[tuple[str, str, str, str]] = Counter()
        self._outbox_since: dict[str, str] = {}

    def describe(self) -> Iterable[Metric]:
        """Names only: nothing is asked before the first scrape."""
        return _families()

    def collect(self) -> Iterable[Metric]:
        """An unreachable ledger has no gauges; the rest of the process is shown all the same."""
        with self._one_at_a_time:
            try:
                if self._queries is None:
                    self._queries = Queries(self._ledger)
                return self._ask(self._queries)
            except (Away, pyodbc.Error, LedgerUnusable, OSError) as e:
                log.warning("metrics.ledger_away", error=type(e).__name__)
                return []

    def _ask(self, queries: Queries) -> Iterable[Metric]:
        bodies, interim, interim_age, over, outbox, outbox_age, unsigned_age = _families()
        self._read_movements(queries)
        for account, n in sorted(self._accounts.items()):
            bodies.add_metric(account, n)
        for r in interim_totals(queries):
            interim.add_metric((r["result"], r["reason"]), r["lines"])
            interim_age.add_metric((r["result"], r["reason"]), _age(r["since"]))
        waits = Counter(kept.open or DESTRUCTION for kept in overdue(queries, self._today()))
        for what in (*Open, DESTRUCTION):
            over.add_metric((what,), waits[what])
        waiting = self._read_outbox(queries)
        outbox.add_metric((), len(waiting))
        outbox_age.add_metric((), _age(min(waiting, default=None)))
        unsigned_age.add_metric((), _age(oldest_unsigned(queries)))
        return bodies, interim, interim_age, over, outbox, outbox_age, unsigned_age

    def _read_movements(self, queries: Queries) -> None:
        for r in queries.rows(
            "select m.line, max(m.number) as number, m.source_place, m.source_condition,"
            " m.target_place, m.target_condition, m.kind, sum(m.count) as n"
            " from json_each(?) j join movement m"
            "  on m.line = j.value->>'line'"
            "  and m.number > cast(j.value->>'number' as integer)"
            " group by m.line, m.source_place, m.source_condition, m.target_place,"
            "  m.target_condition, m.kind",
            as_json([{"line": line, "number": n} for line, n in self._read.items()]),
        ):
            self._read[r["line"]] = max(self._read[r["line"]], r["number"])
            for side, sign in (("source", -1), ("target", 1)):
                place, reason = r[f"{side}_place"], r[f"{side}_condition"]
                result = standing(place)
                if result not in OUTSIDE:
                    # There are hundreds of branches: the courier counts as one place.
                    named = "courier" if result is Standing.SHIPPED else place
                    self._accounts[named, r["kind"], str(result), reason] += sign * r["n"]

    def _read_outbox(self, queries: Queries) -> list[str]:
        """When each entry was written that its receiver has not taken."""
        waiting = {
            r["id"]: r["batch_id"]
            for r in queries.rows("select id, batch_id from outbox where acknowledged = 0")
        }
        known = {i: self._outbox_since[i] for i in waiting if i in self._outbox_since}
        new = [{"id": i, "batch": b} for i, b in waiting.items() if i not in known]
        if new:
            for r in queries.rows(
                "select j.value->>'id' as id, c.at from json_each(?) j join event e"
                f" on e.data->>'batch_id' = j.value->>'batch' and {OF_NO_CARD}"
                " and e.type in (select value from json_each(?))"
                " and e.data->'outbox'->>(j.value->>'id') is not null"
                " join commit_link c on c.line = e.line and c.number = e.number",
                as_json(new),
                as_json(SENDING),
            ):
                known[r["id"]] = r["at"]
        self._outbox_since = known
        return list(known.values())


def _families() -> tuple[GaugeMetricFamily, ...]:
    return (
        GaugeMetricFamily(
            "card_centre_bodies",
            "Card bodies by where they are, asked from the ledger; reason: why rejected or held",
            labels=("place", "kind", "result", "reason"),
        ),
        GaugeMetricFamily(
            "card_centre_return_interim_lines",
            "Lines of centre returns that are not final and were not superseded yet",
            labels=("result", "reason"),
        ),
        GaugeMetricFamily(
            "card_centre_return_interim_age_seconds",
            "Age of the oldest interim line of centre returns, since it was written",
            labels=("result", "reason"),
        ),
        GaugeMetricFamily(
            "card_centre_personal_data_overdue_batches",
            "Batches with personal data whose time is over, by what destruction waits for",
            labels=("waits_for",),
        ),
        GaugeMetricFamily(
            "card_centre_outbox_entries", "What left the floor and was not taken by its receiver"
        ),
        GaugeMetricFamily(
            "card_centre_outbox_age_seconds",
            "Age of the oldest entry of the outbox that was not taken, 0 without one",
        ),
        GaugeMetricFamily(
            "card_centre_unsigned_age_seconds",
            "Age of the oldest commit that no signed head covers, 0 without one",
        ),
    )


def oldest_unsigned(queries: Queries) -> str | None:
    """When the oldest commit took effect that no signed head covers; None: all are covered."""
    found = queries.rows(
        # Begins with the few lines, as in `ledger.heads`.
        "select c.at from epoch e cross join commit_link c where c.line = e.line and c.number ="
        " 1 + coalesce((select max(h.number) from head h where h.line = e.line), 0)"
    )
    return min((r["at"] for r in found), default=None)


def _age(at: str | None) -> float:
    if at is None:
        return 0.0
    return max(0.0, (datetime.now(UTC) - datetime.fromisoformat(at)).total_seconds())
