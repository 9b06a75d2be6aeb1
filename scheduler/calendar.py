"""The working-day calendar: weekends and statutory holidays are off, make-up days are worked."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from importlib import resources

DAY = timedelta(days=1)
SATURDAY = 5


@dataclass(frozen=True)
class Year:
    """What one year's notice changes about its weeks."""

    source: str
    off: frozenset[date]
    working: frozenset[date]


@dataclass(frozen=True)
class Due:
    """The day on which a clock ends. `provisional`: a year between has no notice yet, and there
    only weekends count as days off; `centre status` says so."""

    day: date
    provisional: bool


def parse_year(text: str) -> Year:
    """A year's table. ValueError for days of another year or make-up days that are no weekend."""
    table = tomllib.loads(text)
    off = {
        day
        for first, last in table["holidays"]
        for day in _days(date.fromisoformat(first), date.fromisoformat(last))
    }
    working = {date.fromisoformat(d) for d in table["working"]}
    if len({d.year for d in off | working}) != 1:
        raise ValueError("a table of holidays is of one year")
    if any(d.weekday() < SATURDAY or d in off for d in working):
        raise ValueError("a make-up day is a weekend day that is worked")
    return Year(table["source"], frozenset(off), frozenset(working))


def _days(first: date, last: date) -> Iterator[date]:
    while first <= last:
        yield first
        first += DAY


@cache
def load_years() -> Mapping[int, Year]:
    """The years whose notice is known, by number."""
    folder = resources.files("scheduler.holidays")
    return {
        int(file.name[:4]): parse_year(file.read_text(encoding="utf-8"))
        for file in folder.iterdir()
        if file.name.endswith(".toml")
    }


class Calendar:
    """Working days by the tables of `years`; a year that is not there has weekends only."""

    def __init__(self, years: Mapping[int, Year] | None = None) -> None:
        self._years = load_years() if years is None else years

    def is_known(self, day: date) -> bool:
        return day.year in self._years

    def is_working(self, day: date) -> bool:
        year = self._years.get(day.year)
        if year is not None and day in year.working:
            return True
        return day.weekday() < SATURDAY and (year is None or day not in year.off)

    def due(self, start: date, days: int) -> Due:
        """The `days`-th working day after `start`, which is day 0 whether worked or not."""
        day, provisional = start, False
        while days > 0:
            day += DAY
            provisional = provisional or not self.is_known(day)
            days -= self.is_working(day)
        return Due(day, provisional)

    def between(self, start: date, end: date) -> int:
        """Working days after `start` up to and with `end`; negative if `end` lies before."""
        if end < start:
            return -self.between(end, start)
        return sum(self.is_working(d) for d in _days(start + DAY, end))
