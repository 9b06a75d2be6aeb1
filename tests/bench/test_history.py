"""A history that is loaded in bulk is one that the lines could have left, and what is asked all
the time does not read it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from bench import commits, flat, history, ledgers
from bench.template import Template, make_template
from domain.places import Line
from ledger import verify as verification
from ledger.counts import recounts, signed_counts
from ledger.history import batch_overview, body_history
from ledger.lots import lots_of
from ledger.queries import Queries
from ledger.replay import Commit, Replay
from ledger.summary import branch_table, summary
from ledger.verify import verify
from tests.ledgers import new_ledger

BATCHES, CARDS = 3, 100
BATCH, DELIVERY, ORDER = "B000002", "D000002", "B000002-000003"

ASKED: Mapping[str, Callable[[Queries], object]] = {
    **flat.POLLS,
    "state of a batch": lambda q: batch_overview(q, BATCH),
    "sums of a batch": lambda q: summary(q, BATCH),
    "branches of a batch": lambda q: branch_table(q, BATCH),
    "numbers of a batch": lambda q: q.groups(BATCH),
    "lots of a batch": lambda q: lots_of(q, BATCH),
    "whether a batch is closed": lambda q: q.is_closed(BATCH),
    "counts of a delivery": lambda q: signed_counts(q, DELIVERY),
    "recounts of a carton": lambda q: recounts(q, f"{BATCH}-102-001"),
    "history of a card": lambda q: body_history(q, ORDER),
    "states of orders": lambda q: q.order_states([ORDER]),
    "numbers that come again": lambda q: q.repeated_numbers(["1"], ["2"], ["3"]),
    "orders of numbers": lambda q: q.orders_of_numbers(["1"]),
    "a chip": lambda q: q.identify(["430100D156000005000002AAAAAAAAAA"]),
    "a command's reply": lambda q: q.reply(Line.SORTING, "x"),
}
SMALL = {"epoch", "act", "person", "login"}
"""Tables that cards do not make grow."""
OPEN_WORK = ("_open", "_open_return", "body_leased")
"""Indexes that hold open work only."""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    return make_template(tmp_path_factory.mktemp("template"), CARDS)


@pytest.mark.usefixtures("each_database")
def test_a_loaded_history_verifies(template: Template, tmp_path: Path) -> None:
    """Links, heads, legal moves, samples, digests and sums of every copy are right, and so are the
    indexes that were made afterwards."""
    url = new_ledger(tmp_path)
    sign, key = flat.signer()
    cards = history.load(url, template, BATCHES, datetime.now(UTC), sign)
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    report = verify(url, None, pem)
    assert report.finding == ""
    assert report.bodies == cards == BATCHES * template.cards
    assert (report.lots > 0, report.signatures > 0, report.unsigned_commits) == (True, True, 0)


def test_a_verification_holds_what_is_open(loaded: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded by the cards that are open at a time: batches that came one after the other
    are never held together, and of those that are finished nothing of a card is left."""
    held: list[int] = []
    last: list[Replay] = []

    class Watched(Replay):
        def apply(self, commit: Commit) -> None:
            super().apply(commit)
            held.append(len(self.bodies) + len(self.orders))
            last[:] = [self]

    monkeypatch.setattr(verification, "Replay", Watched)
    assert verify(loaded, None, None).ok
    batch = 2 * CARDS + 40  # a body and an order each, and those with one or the other only
    assert CARDS < max(held) <= batch
    assert (len(last[0].bodies), len(last[0].orders), last[0].lots.cards) == (0, 0, 0)


class Planned(Queries):
    """Keeps what SQLite plans for each question."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.plans: list[tuple[str, str]] = []

    def rows(self, sql: str, *parameters: Any) -> list[dict[str, Any]]:
        for step in super().rows(f"explain query plan {sql}", *parameters):
            self.plans.append((sql, step["detail"]))
        return super().rows(sql, *parameters)


@pytest.mark.parametrize("name", ASKED)
def test_what_is_asked_all_the_time_reads_no_history(name: str, loaded: str) -> None:
    """No table that grows with the cards is read from end to end, and of events no more than those
    of one body, batch or carton, or the newest."""
    queries = Planned(loaded)
    try:
        ASKED[name](queries)
    finally:
        queries.close()
    assert queries.plans
    for sql, step in queries.plans:
        table = _scanned(sql, step)
        assert table in SMALL | {""}, f"{step}: {sql}"
        assert not re.search(r"event_type \(type=\?\)$", step), f"{step}: {sql}"


def _scanned(sql: str, step: str) -> str:
    """The table that a step reads from end to end; empty if it reads none."""
    read = re.match(r"SCAN (\w+)(?: USING (?:COVERING )?INDEX (\w+))?", step)
    if read is None or read[1] == "json_each" or (read[2] or "").endswith(OPEN_WORK):
        return ""
    tables = {alias: table for table, alias in re.findall(r"(?:from|join) (\w+) (\w+)", sql)}
    of_values = re.search(rf"json_each\(\?\) {read[1]}\b|\) {read[1]}\b", sql)
    return "" if of_values else str(tables.get(read[1], read[1]))


@pytest.fixture(scope="module")
def loaded(template: Template, tmp_path_factory: pytest.TempPathFactory) -> str:
    url = f"sqlite:{tmp_path_factory.mktemp('loaded') / 'ledger.db'}"
    history.load(url, template, BATCHES, datetime.now(UTC), flat.signer()[0])
    return url


def test_the_page_has_each_figure(tmp_path: Path, short_directory: Path) -> None:
    """At its smallest: on SQLite a card is measured without and with history, transitions and the
    return of a line too, and the page says what the figures say."""
    size = ledgers.Size(history=40, template=40, rounds=1, cards=12, seconds=0.02, open_cards=12)
    figures = ledgers.measure([flat.Files(tmp_path)], size, tmp_path / "kept", short_directory)
    (measured,) = figures["ledgers"]
    assert min(*measured["ms"], *measured["per_second"], measured["bytes_per_card"]) > 0
    assert set(measured["asked"]) == set(flat.POLLS)
    assert len(figures["transitions"]) == len(commits.COUNTS) * len(commits.CHUNKS)
    assert figures["recovery"][0]["seconds"] > 0
    page = ledgers.page(figures)
    assert f"| SQLite | {measured['cards']:,} | {measured['ms'][0]:.2f} |" in page
