"""Working days as the State Council's notices say, and clocks that count in them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.lines import NoteCarton
from scheduler.calendar import Calendar, load_years, parse_year
from scheduler.clocks import WaitsFor, open_clocks
from tests.ledger.building import SOCIAL, Building, factory_return, note, record

CALENDAR = Calendar()
DAYS = st.dates(date(2024, 1, 1), date(2026, 12, 31))


@pytest.mark.parametrize(("year", "count"), [(2024, 251), (2025, 248), (2026, 248)])
def test_a_year_has_its_working_days(year: int, count: int) -> None:
    """The number of working days of each year, as other tables count them too."""
    first = date(year, 1, 1)
    days = (first + timedelta(days=n) for n in range((date(year + 1, 1, 1) - first).days))
    assert sum(CALENDAR.is_working(d) for d in days) == count


@pytest.mark.parametrize(
    ("start", "due"),
    [
        ("2026-09-17", "2026-09-23"),  # a Sunday is worked before the festival
        ("2026-09-30", "2026-10-13"),  # a week of holidays, and a Saturday is worked after it
        ("2026-02-13", "2026-02-27"),  # the Spring Festival
        ("2026-11-21", "2026-11-27"),  # on a Saturday: day 0 all the same
        ("2026-11-24", "2026-12-01"),
    ],
)
def test_five_working_days(start: str, due: str) -> None:
    """Day 0 is the day of the event; make-up days count, holidays do not."""
    found = CALENDAR.due(date.fromisoformat(start), 5)
    assert (found.day.isoformat(), found.provisional) == (due, False)


def test_a_year_without_notice_is_said_to_be_provisional() -> None:
    """Past the last known year only weekends are off, and the answer says so."""
    last = max(load_years())
    assert CALENDAR.due(date(last, 12, 30), 5).provisional
    assert not CALENDAR.is_known(date(last + 1, 1, 1))
    assert CALENDAR.is_working(date(2027, 1, 1))  # a Friday


@given(DAYS, st.integers(1, 60))
def test_due_and_between_agree(start: date, days: int) -> None:
    """As many working days lie up to the due day as were asked for, and it is one itself."""
    due = CALENDAR.due(start, days).day
    assert CALENDAR.is_working(due)
    assert CALENDAR.between(start, due) == days
    assert CALENDAR.between(due, start) == -days


@pytest.mark.parametrize(
    "text",
    [
        'source = "x"\nholidays = [["2026-01-01", "2026-01-01"]]\nworking = ["2026-01-05"]',
        'source = "x"\nholidays = [["2025-12-31", "2026-01-01"]]\nworking = []',
        'source = "x"\nholidays = [["2026-01-03", "2026-01-03"]]\nworking = ["2026-01-03"]',
    ],
)
def test_a_wrong_table_is_refused(text: str) -> None:
    """A make-up day in the week or on a holiday, or days of two years: a slip of the pen."""
    with pytest.raises(ValueError):
        parse_year(text)


@pytest.fixture
def b(tmp_path: Path) -> Iterator[Building]:
    """A centre whose commits are of Thursday 1 October 2026, a holiday."""
    building = Building.make(tmp_path, lambda: "2026-09-30T16:30:00.000+00:00")
    yield building
    building.close()


def test_each_open_batch_shows_what_it_waits_for(b: Building) -> None:
    """Cards without return, a return without cards, both there; the due day is five working days
    on, and overdue days count down. A batch whose return was taken has no clock."""
    b.take_note(note([NoteCarton("A1", "102", SOCIAL, 1, "")], batch="A", delivery_id="A"))
    b.sign_for("A", A1=1)
    b.take_return(factory_return([record(2, batch="B")], batch="B", file_id="B"))
    b.take_return(factory_return([record(3, batch="C")], batch="C", file_id="C"))
    b.take_note(note([NoteCarton("C1", "102", SOCIAL, 1, "")], batch="C", delivery_id="DC"))
    b.take_return(factory_return([record(4, batch="D")], batch="D", file_id="D"))
    b.take_note(note([NoteCarton("D1", "102", SOCIAL, 0, "")], batch="D", delivery_id="DD"))
    b.sign_for("DD", D1=0)

    def clocks(day: int) -> dict[str, tuple[WaitsFor, str, int]]:
        now = datetime(2026, 10, day, 4, tzinfo=UTC)
        found = open_clocks(b.queries, now, CALENDAR)
        assert {c.since for c in found} == {date(2026, 10, 1)}
        assert not any(c.provisional for c in found)
        return {c.batch_id: (c.waits_for, c.due.isoformat(), c.left) for c in found}

    assert clocks(8) == {
        "A": (WaitsFor.FACTORY_RETURN, "2026-10-13", 4),
        "B": (WaitsFor.CARDS, "2026-10-13", 4),
        "C": (WaitsFor.CARDS, "2026-10-13", 4),
        "D": (WaitsFor.CENTRE, "2026-10-13", 4),
    }
    assert clocks(15)["A"][2] == -2
    b.sort()
    b.acknowledge("RETURN-D-1")
    assert set(clocks(8)) == {"A", "B", "C"}
    assert [c.batch_id for c in open_clocks(b.queries, datetime.now(UTC), CALENDAR, "B")] == ["B"]
