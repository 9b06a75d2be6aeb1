"""What the ledger shows to Prometheus: sums that are asked from it, counters of what it took."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import prometheus_client as prometheus
import pytest

from domain.changes import Refused
from domain.lines import NoteCarton, OrderAct
from domain.places import Line
from ledger.metrics import LedgerGauges
from ledger.queries import Queries
from tests.ledger.building import (
    EXPIRES,
    SOCIAL,
    Building,
    factory_return,
    note,
    one_of_each,
    record,
)


def shown(gauges: LedgerGauges, name: str) -> dict[tuple[str, ...], float]:
    """The samples of one family, by the values of their labels in the order of their names."""
    return {
        tuple(value for _, value in sorted(sample.labels.items())): sample.value
        for family in gauges.collect()
        for sample in family.samples
        if sample.name == name
    }


def bodies(queries: Queries) -> Counter[tuple[str, ...]]:
    """Rows of `body` as the gauge names them: kind, place, reason, standing."""
    counted: Counter[tuple[str, ...]] = Counter()
    for b in queries.bodies("true"):
        place = "courier" if b.place.startswith("courier/") else b.place
        counted[b.kind, place, b.condition, str(b.standing)] += 1
    return counted


def test_bodies_are_where_the_ledger_has_them_at_every_scrape(tmp_path: Path) -> None:
    """Two scrapers, one that looks after every commit and one that comes when all is done, both
    show the rows of `body`: nothing is read twice, nothing is skipped, what left is 0."""
    b = Building.make(tmp_path)
    often = LedgerGauges(b.url, date.today)
    records = [record(n) for n in range(1, 5)]
    seen: set[tuple[str, ...]] = set()

    def look() -> None:
        now = shown(often, "card_centre_bodies")
        assert {k: n for k, n in now.items() if n} == bodies(b.queries)
        seen.update(now)

    b.take_return(factory_return(records))
    b.take_note(note([NoteCarton("C1", "102", SOCIAL, 4, "")]))
    look()
    b.sign_for("D1", C1=4)
    look()
    for r in records:
        b.replace_keys("C1", r.record_number, r.order_id)
        look()
        b.inspect(bad=frozenset({records[1].order_id}))
        look()
    b.sort()
    look()
    assert seen > set(bodies(b.queries))
    b.close()
    all_kinds = one_of_each(tmp_path / "all")
    once = shown(LedgerGauges(all_kinds.url, date.today), "card_centre_bodies")
    assert {k: n for k, n in once.items() if n} == bodies(all_kinds.queries)
    all_kinds.close()


def test_ages_are_those_of_the_oldest(tmp_path: Path) -> None:
    """The outbox is as old as its oldest entry that was not taken, the unsigned tail as its first
    commit; both are 0 again when it was taken, and signed."""
    at = datetime.now(UTC) - timedelta(hours=2)
    b = Building.make(tmp_path, lambda: at.isoformat(timespec="milliseconds"))
    gauges = LedgerGauges(b.url, date.today)
    age, unsigned = "card_centre_outbox_age_seconds", "card_centre_unsigned_age_seconds"
    assert shown(gauges, age) == shown(gauges, unsigned) == {(): 0}
    b.take_return(factory_return([record(1)]))
    b.take_note(note([NoteCarton("C1", "102", SOCIAL, 1, "")]))
    b.sign_for("D1", C1=1)
    b.sign_heads()
    at += timedelta(hours=1)
    b.replace_keys("C1", 1, "B1-000001")
    b.inspect()
    b.sort()
    assert shown(gauges, "card_centre_outbox_entries") == {(): 3}
    assert shown(gauges, age)[()] == pytest.approx(3_600, abs=30)
    assert shown(gauges, unsigned)[()] == pytest.approx(3_600, abs=30)
    at += timedelta(minutes=30)
    b.acknowledge("RETURN-B1-1")
    assert shown(gauges, age)[()] == pytest.approx(3_600, abs=30)
    b.acknowledge("LISTS-B1", "LISTS-B1-0001")
    b.sign_heads()
    assert shown(gauges, age) == shown(gauges, unsigned) == {(): 0}
    b.close()


def test_what_is_open_for_long_is_seen(tmp_path: Path) -> None:
    """An interim line has the age of the return that says it, until it is superseded; a batch whose
    last day has passed is counted under what its personal data wait for, and not on that day."""
    at = datetime.now(UTC) - timedelta(days=8)
    today = date.fromisoformat(EXPIRES)
    b = Building.make(tmp_path, lambda: at.isoformat(timespec="milliseconds"))
    gauges = LedgerGauges(b.url, lambda: today)
    age, over = (
        "card_centre_return_interim_age_seconds",
        "card_centre_personal_data_overdue_batches",
    )
    b.take_return(factory_return([record(1), record(2)]))
    b.take_note(note([NoteCarton("C1", "102", SOCIAL, 2, "")]))
    b.sign_for("D1", C1=1)
    b.replace_keys("C1", 1, "B1-000001")
    b.inspect()

    def waits() -> list[str]:
        return [waits_for for (waits_for,), n in shown(gauges, over).items() if n]

    assert waits() == []
    today += timedelta(days=1)
    assert waits() == ["return"]
    b.sort()
    assert waits() == ["receipt"]
    b.acknowledge("LISTS-B1", "LISTS-B1-0001", "RETURN-B1-1")
    assert waits() == ["final"]
    assert shown(gauges, age) == {
        ("NOT_DELIVERED", "missing"): pytest.approx(8 * 86_400, abs=30),
    }
    at += timedelta(days=1)
    b.orders(OrderAct.CANCEL, "K1", "B1-000002")
    b.sort()
    b.acknowledge("RETURN-B1-2")
    assert shown(gauges, age) == {}
    assert waits() == ["destruction"]
    b.close()


def test_a_ledger_that_is_not_there_shows_nothing_and_hinders_nothing(tmp_path: Path) -> None:
    """Other metrics of the process are shown all the same; the ledger's come when it does."""
    registry = prometheus.CollectorRegistry()
    registry.register(LedgerGauges(tmp_path / "ledger.db", date.today))
    assert prometheus.generate_latest(registry) == b""
    Building.make(tmp_path).close()
    assert b"card_centre_outbox_entries 0.0" in prometheus.generate_latest(registry)


def test_a_card_is_counted_once_however_often_its_commit_is_asked(tmp_path: Path) -> None:
    """A repeated commit counts as repeated and moves no counter of cards or rows; so does one
    that was refused."""
    b = Building.make(tmp_path)
    b.take_return(factory_return([record(1)]))
    b.take_note(note([NoteCarton("C1", "102", SOCIAL, 1, "")]))
    b.sign_for("D1", C1=1)
    b.replace_keys("C1", 1, "B1-000001")

    def counted() -> dict[str, float]:
        read = prometheus.REGISTRY.get_sample_value
        card = {"stage": "inspection", "result": "good"}
        line = {"line": "inspection"}
        values = {
            "cards": read("card_centre_cards_total", card),
            "rows": read("card_centre_committed_rows_total", line),
            "measured": read("card_centre_commit_seconds_count", line),
        }
        for result in ("committed", "repeated", "refused"):
            values[result] = read("card_centre_commits_total", {**line, "result": result})
        return {name: value or 0 for name, value in values.items()}

    before = counted()
    writing = b.writing(Line.INSPECTION)
    for body in b.queries.bodies("b.place = 'transit/key_replacement>inspection'"):
        writing.change(body, "inspected", place="transit/inspection>sorting")  # type: ignore[arg-type]
    epoch = b.doors[Line.INSPECTION]._epoch
    b.ledger.commit(writing.changes(), epoch)
    b.ledger.commit(writing.changes(), epoch)
    with pytest.raises(Refused):
        b.ledger.commit(writing.changes(), epoch - 1)
    after = counted()
    assert {name: after[name] - before[name] for name in after} == {
        "cards": 1,
        "rows": 3,  # an event, a movement, the body's row
        "measured": 3,
        "committed": 1,
        "repeated": 1,
        "refused": 1,
    }
    b.close()
