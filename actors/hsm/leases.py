"""Leases of stations: who may be writing on a card, and until when.

The commit that releases the first WRITE KEY leases the body to the station, by a number that only
grows, for a while. A session whose lease ran out, or was superseded, moves nothing any more. But a
lease can't fence plastic: what may have been written is IN_DOUBT then, stays bound to its order,
and only a look at the chip, or two people with the card in hand, end that. Work whose first write
was not released is leased to nobody, so there is nothing to free.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from domain.bodies import Body, Writing
from domain.card.segment import Answers
from domain.changes import Event, EventType
from domain.codes import Code
from domain.places import Line, held, work
from domain.turns import StationTurn
from ledger.leases import leased_in, run_out, transcripts_of
from ledger.queries import Queries

WORK = work(Line.KEY_REPLACEMENT)
HELD = held(Line.KEY_REPLACEMENT)
AT_ONCE = 1_000
RETURNED = {"leased_to": "", "leased_until": "", "leased_in": ""}
"""What a body has that nobody has a lease of."""


@dataclass(frozen=True)
class LeaseTerms:
    """`now` with time zone; a lease runs for `length`."""

    now: Callable[[], datetime]
    length: timedelta

    def now_text(self) -> str:
        """As `Body.leased_until` has it."""
        return _text(self.now())

    def grant(self, turn: StationTurn, body: Body) -> dict[str, Any]:
        """A new lease for the session of `turn`; it takes a body in doubt back into work."""
        return {
            "place": WORK,
            "condition": "",
            "lease": body.lease + 1,
            "leased_to": turn.station_id,
            "leased_until": _text(self.now() + self.length),
            "leased_in": turn.presentation,
        }

    def holds(self, turn: StationTurn, mine: Body, current: Body) -> bool:
        """Whether a session that knows its body as `mine` may go on with it, which is `current` by
        now: nobody else had it since, and a lease of its own still runs."""
        if (current.lease, current.account) != (mine.lease, mine.account):
            return False
        return mine.leased_in != turn.presentation or self.now_text() < mine.leased_until


def _text(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds")


def in_doubt(body: Body) -> bool:
    return body.place == HELD and body.condition == Code.IN_DOUBT


def ran_out(queries: Queries, terms: LeaseTerms) -> list[Body]:
    """Bodies at work whose lease is over."""
    return run_out(queries, WORK, terms.now_text(), AT_ONCE)


def doubt(writing: Writing, body: Body) -> None:
    data = {"station": body.leased_to, "until": body.leased_until}
    writing.change(body, EventType.BODY_IN_DOUBT, data, place=HELD, condition=Code.IN_DOUBT)


def keep_transcript(writing: Writing, turn: StationTurn, body: Body, lease: int) -> None:
    """What a station told too late is evidence, and moves nothing: how far it came, no data."""
    assert isinstance(turn.content, Answers)
    steps = turn.content.steps
    data = {
        "of_lease": lease,
        "station": turn.station_id,
        "presentation": turn.presentation,
        "turn": turn.number,
        "steps": len(steps),
        "status_words": [f"{step.status_word:04X}" for step in steps],
    }
    writing.event(Event(EventType.TRANSCRIPT_KEPT, body.body_id, body.order_id, data=data))


def late_for(
    queries: Queries, terms: LeaseTerms, turns: Sequence[StationTurn]
) -> Mapping[str, Body]:
    """Of sessions that are not known (any more): the bodies that were leased in them, if the lease
    is over, by presentation; those left out whose transcript was kept."""
    found = leased_in(queries, [turn.presentation for turn in turns])
    now = terms.now_text()
    over = {p: b for p, b in found.items() if in_doubt(b) or b.leased_until <= now}
    kept = transcripts_of(queries, [b.body_id for b in over.values()])
    return {
        turn.presentation: over[turn.presentation]
        for turn in turns
        if turn.presentation in over and (turn.presentation, turn.number) not in kept
    }
