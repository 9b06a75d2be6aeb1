"""What depends on a key: such a key can't be destroyed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

from domain.changes import EventType
from domain.custody import ActKind, ActState
from domain.places import LEGAL, VAULT, Line, Standing, held, standing, transit, work
from ledger.connection import as_json
from ledger.people import key_states
from ledger.queries import Queries

UNDER_TEMPORARY_KEYS = (
    VAULT,
    transit(Line.INVENTORY, Line.KEY_REPLACEMENT),
    work(Line.KEY_REPLACEMENT),
    held(Line.KEY_REPLACEMENT),
)
"""Where a body is whose chip may still carry keys of its factory."""
HERE = sorted(
    place
    for place in {target for _, target in LEGAL} - {"courier"}
    if standing(place) in (Standing.IN_WORK, Standing.HELD)
)
"""Where bodies are that are neither shipped, rejected nor destroyed."""


def key_dependents(queries: Queries, labels: Sequence[str]) -> dict[str, int]:
    """How many depend on each of these keys. Of masters (`formal:<usage>:v<n>`,
    `temporary:<batch>:<usage>:v<n>`) the bodies that are neither shipped, rejected nor destroyed,
    and whose chip carries that version, was released to be written with it, or still needs its
    factory's keys. Of a bank's keys all such bodies of the bank. Of a KEK the backups and exports
    that lie under it. 0 for a label on which nothing depends, for one that is staged, and for keys
    of other kinds."""
    masters = _bodies_of_masters(queries)
    banks = {
        f"bank:{row['bank']}": row["bodies"]
        for row in queries.rows(
            "select bank, count(*) as bodies from body"
            " where place in (select value from json_each(?)) group by bank",
            as_json(HERE),
        )
    }
    files = Counter(
        f"v{json.loads(row['content'])['kek_version']}"
        for row in queries.rows(
            "select content from act where kind in (?, ?) and state = ?",
            ActKind.KEY_BACKUP, ActKind.KEY_EXPORT, ActState.DONE,
        )
    )  # fmt: skip
    states = key_states(queries)
    answer = dict.fromkeys(labels, 0)
    for label in labels:
        family, _, version = (*label.rsplit(":", 2), "", "")[:3]
        if states.get(label) == "staged":
            continue
        if label.startswith("kek:"):
            answer[label] = files[label.partition(":")[2]]
        elif family in banks:
            answer[label] = banks[family]
        else:
            answer[label] = masters.get((family, version), masters.get((family, ""), 0))
    return answer


def _bodies_of_masters(queries: Queries) -> dict[tuple[str, str], int]:
    """By family and version; the version is empty for all keys of a factory's batch."""
    found = queries.rows(
        "select 'temporary:' || batch_id as family, '' as version, count(*) as bodies from body"
        " where place in (?, ?, ?, ?) group by batch_id"
        " union all select 'formal', 'v' || cast(version as text), count(*) from ("
        # A release that names no version is one of the first.
        "select coalesce(max(cast(e.data->>'version' as integer)), 1) as version"
        # A cross join: SQLite begins with the bodies that are here, not with all releases.
        " from body b cross join event e where e.body_id = b.body_id and e.body_id <> ''"
        " and e.type = ? and b.released = 1 and b.place in (select value from json_each(?))"
        " group by b.body_id) released group by version",
        *UNDER_TEMPORARY_KEYS,
        EventType.KEY_WRITE_RELEASED,
        as_json(HERE),
    )
    return {(row["family"], row["version"]): row["bodies"] for row in found}
