"""One finished batch as the lines leave it: the template of a history.

A delivery with its planted faults goes through the real lines in this process, up to the
acknowledged centre return; what stands in the ledger then is the template.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from bench import whole_batch
from bench.chips import BenchError
from bench.masters import home_with_keys
from bench.one_process import Lines
from counterparts.factory import make_delivery
from ledger.queries import Queries

SEED = 987_654
MARK = "######"
"""Stands in the template wherever the number of the copy will stand, in every id."""

TABLES = (
    "file_in", "refused_record", "delivery", "carton", "settled_group", "orders", "order_stop",
    "body", "package", "personal", "number_index", "return_line", "outbox",
)  # fmt: skip

Row = dict[str, Any]


@dataclass(frozen=True)
class Commit:
    """A commit with all that it brought. `after`: seconds since the first one of the batch; rows
    without the columns that place them in the chain."""

    line: str
    after: float
    command_id: str
    payload_hash: str
    reply: Any
    events: list[Row]
    movements: list[Row]


@dataclass(frozen=True)
class Template:
    """Commits in the order in which they took effect, and the rows of the other tables. Every id
    has MARK where a copy has its number."""

    cards: int
    commits: list[Commit]
    tables: dict[str, list[Row]]


def make_template(place: Path, cards: int) -> Template:
    """Run a batch of `cards` in the empty directory `place`."""
    config = home_with_keys(place / "home")
    pem = config.transport_public_key.read_bytes()
    delivery = make_delivery(SEED, cards, place / "delivery", pem)
    lines = Lines(config)
    try:
        asyncio.run(whole_batch.run(lines, delivery))
        return _read(lines.queries)
    finally:
        lines.close()


def _read(queries: Queries) -> Template:
    found: dict[tuple[str, int], Row] = {}
    first: dict[tuple[str, int], int] = {}
    links = {(r["line"], r["number"]): r for r in queries.rows("select * from commit_link")}
    for table in ("event", "movement"):
        for row in queries.rows(f"select * from {table} order by id"):
            key = row.pop("line"), row.pop("number")
            commit = found.setdefault(key, {**links[key], "events": [], "movements": []})
            first.setdefault(key, row.pop("id"))
            row.pop("id", None), row.pop("position")
            if table == "event":
                row["data"] = json.loads(row["data"])
            commit[f"{table}s"].append(row)
    if len(found) != len(links):
        raise BenchError("a commit of the template has neither events nor movements")
    in_order = [_marked(found[key]) for key in sorted(found, key=lambda k: first[k])]
    began = datetime.fromisoformat(in_order[0]["at"])
    commits = [
        Commit(
            c["line"],
            (datetime.fromisoformat(c["at"]) - began).total_seconds(),
            c["command_id"] if MARK in c["command_id"] else f"{MARK}:{c['command_id']}",
            MARK + c["payload_hash"][len(MARK) :],
            json.loads(c["reply"]),
            c["events"],
            c["movements"],
        )
        for c in in_order
    ]
    tables = {t: [_marked(r) for r in queries.rows(f"select * from {t}")] for t in TABLES}
    for row in tables["number_index"]:
        row["value"] = MARK + row["value"][len(MARK) :]
    cards = sum(1 for r in tables["body"] if not r["place"].startswith("factory/"))
    return Template(cards, commits, tables)


_IDS = re.compile(rf"\b([BD]){SEED}(?=\b|-)")
_CHIP = re.compile(r"\b(\d{6}D156000005)[0-9A-F]{6}([0-9A-F]{10})\b")


def _marked(value: Any) -> Any:
    """`value` with MARK in every id, of chips too."""
    if isinstance(value, str):
        return _CHIP.sub(rf"\1{MARK}\2", _IDS.sub(rf"\1{MARK}", value))
    if isinstance(value, Mapping):
        return {_marked(k): _marked(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_marked(v) for v in value]
    return value
