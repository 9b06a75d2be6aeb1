"""The clocks of batches: what each waits for, since when, and when it is due (article 28(7)).

From the day on which the centre has both the cards and the factory return it has 5 working days
for keys, inspection, packing, shipping and its own return. The two should come together; while
one of them is not there, the same 5 days are counted from the one that is: a factory return that
never comes, or cards that never come, show as overdue instead of being forgotten.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from enum import StrEnum

from domain.changes import EventType
from ledger.connection import as_json
from ledger.queries import OF_NO_CARD, Queries
from scheduler.calendar import Calendar

BATCH_DAYS = 5
CHINA = timezone(timedelta(hours=8))


class WaitsFor(StrEnum):
    FACTORY_RETURN = "factory_return"
    CARDS = "cards"
    CENTRE = "centre"


@dataclass(frozen=True)
class Clock:
    """`since` and `due` are days in China; `left`: working days until `due`, negative once it is
    over; `provisional` as in `scheduler.calendar.Due`."""

    batch_id: str
    waits_for: WaitsFor
    since: date
    due: date
    left: int
    provisional: bool


def open_clocks(
    queries: Queries, now: datetime, calendar: Calendar, batch_id: str | None = None
) -> list[Clock]:
    """The clocks of all batches (or of one) whose centre return was not taken yet."""
    found = queries.rows(_OPEN, batch_id or "")
    batches = as_json([row["batch_id"] for row in found])
    returns = _times(queries, _FIRST_OR_LAST.format("max"), EventType.RETURN_ACCEPTED, batches)
    signed = _times(queries, _SIGNED, EventType.CARTON_SIGNED_FOR, batches)
    announced = _times(queries, _FIRST_OR_LAST.format("min"), EventType.NOTE_ACCEPTED, batches)
    clocks = []
    for row in found:
        batch = row["batch_id"]
        # With a delivery that is not signed for, not all of its cards are here.
        cards = signed.get(batch) if not row["unsigned"] else None
        came = returns.get(batch)
        if cards and came:
            waits, since = WaitsFor.CENTRE, max(cards, came)
        elif cards:
            waits, since = WaitsFor.FACTORY_RETURN, cards
        else:
            waits, since = WaitsFor.CARDS, came or announced[batch]
        due = calendar.due(since, BATCH_DAYS)
        left = calendar.between(now.astimezone(CHINA).date(), due.day)
        clocks.append(Clock(batch, waits, since, due.day, left, due.provisional))
    return sorted(clocks, key=lambda c: (c.due, c.batch_id))


_FIRST_OR_LAST = (
    "select e.data->>'batch_id' as batch_id, {}(c.at) as at from event e"
    " join commit_link c on c.line = e.line and c.number = e.number"
    " where e.type = ? and e.data->>'batch_id' in (select value from json_each(?))"
    f" and {OF_NO_CARD} group by 1"
)
_SIGNED = (
    # Cross joins: SQLite begins with the cartons of these batches, not with all that were signed.
    "select k.batch_id, max(c.at) as at from carton k cross join event e cross join commit_link c"
    f" where e.data->>'carton_id' = k.carton_id || '' and {OF_NO_CARD} and c.line = e.line"
    " and c.number = e.number and e.type = ?"
    " and k.batch_id in (select value from json_each(?)) group by 1"
)
_OPEN = (
    "select f.batch_id, case when exists (select 1 from delivery d"
    "  where d.batch_id = f.batch_id and d.state <> 'signed') then 1 else 0 end as unsigned"
    " from (select batch_id from file_in where closed = 0 and kind <> 'correction'"
    "  union select batch_id from outbox where kind = 'centre_return' and acknowledged = 0) f"
    " where ? in ('', f.batch_id)"
)


def _times(
    queries: Queries, question: str, event_type: EventType, batches: str
) -> Mapping[str, date]:
    return {r["batch_id"]: _day(r["at"]) for r in queries.rows(question, event_type, batches)}


def _day(at: str) -> date:
    """The day in China of a commit's time (ISO 8601, UTC)."""
    return datetime.fromisoformat(at).replace(tzinfo=UTC).astimezone(CHINA).date()
