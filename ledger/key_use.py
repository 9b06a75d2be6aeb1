"""Which keys open work depends on: they can't be destroyed."""

from __future__ import annotations

from collections.abc import Sequence

from domain.changes import EventType
from domain.places import VAULT, Line, held, transit, work
from ledger.queries import Queries

UNDER_TEMPORARY_KEYS = (
    VAULT,
    transit(Line.INVENTORY, Line.KEY_REPLACEMENT),
    work(Line.KEY_REPLACEMENT),
    held(Line.KEY_REPLACEMENT),
)
"""Where a body is whose chip may still carry keys of its factory."""


def key_dependents(queries: Queries, labels: Sequence[str]) -> dict[str, int]:
    """How many bodies depend on each of these masters (`formal:<usage>:v<n>`,
    `temporary:<batch>:<usage>:v<n>`): bodies that are neither shipped, rejected nor destroyed, and
    whose chip carries that version, was released to be written with it, or still needs its
    factory's keys. 0 for a label on which nothing depends, and for keys of other kinds."""
    found = queries.rows(
        "select 'temporary:' || batch_id as family, '' as version, count(*) as bodies from body"
        " where place in (?, ?, ?, ?) group by batch_id"
        " union all select 'formal', 'v' || version, count(*) from ("
        # A release that names no version is one of the first.
        "select coalesce(max(e.data->>'version'), 1) as version from body b join event e"
        " on e.body_id = b.body_id and e.type = ? where b.released = 1"
        " and b.place not like 'factory/%' and b.place not like 'courier/%'"
        " and b.place not like '%/rejected' and b.place <> 'shredder'"
        " group by b.body_id) group by version",
        *UNDER_TEMPORARY_KEYS,
        EventType.KEY_WRITE_RELEASED,
    )
    bodies = {(row["family"], row["version"]): row["bodies"] for row in found}
    answer = {}
    for label in labels:
        family, _, version = (*label.rsplit(":", 2), "", "")[:3]
        answer[label] = bodies.get((family, version), bodies.get((family, ""), 0))
    return answer
