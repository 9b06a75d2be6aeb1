"""One finished batch as the lines leave it: the template of a history.

A delivery with its planted faults goes through the real lines in this process, up to the
acknowledged centre return; what stands in the ledger then is the template.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from actors.lots import LotPlan
from actors.sorting import Sorting
from bench.chips import BenchError, Chip, ChipTime
from bench.masters import home_with_keys
from bench.one_process import Door, Lines
from counterparts.factory import make_delivery
from domain.lines import ClosePackage
from domain.places import DRAWN, Line
from ledger.queries import Queries
from station_agents.virtual.tray_file import read_tray

SEED = 987_654
MARK = "######"
"""Stands in the template wherever the number of the copy will stand, in every id."""
SEED_BYTES = 16

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
        asyncio.run(lines.take_in(delivery))
        spent = ChipTime()
        chips = [
            Chip(plastic, "station-1", spent, sound=False)
            for tray in delivery.trays
            for plastic in read_tray(tray)[0].cards.values()
        ]
        asyncio.run(_finish(lines, chips))
        return _read(lines.queries)
    finally:
        lines.close()


async def _finish(lines: Lines, chips: list[Chip]) -> None:
    """All chips through the lines, the samples again, the packages scanned, the outbox empty."""
    lots = LotPlan(lambda _lot: secrets.token_bytes(SEED_BYTES))
    sorting = Sorting(Door(lines.ledger, Line.SORTING, []), lines.queries, "template", lots)
    by_ticket = {(c.plastic.carton_id, c.plastic.card_id): c for c in chips}
    q = lines.queries
    await lines.feed(chips)
    while True:
        while await sorting.step():
            pass
        drawn = [by_ticket[b.carton_id, b.ticket] for b in q.bodies("b.place = ?", DRAWN)]
        for chip in drawn:
            chip.open(Line.SAMPLING)
        await lines.feed(drawn)
        scanned = await _scan(sorting, q)
        if not drawn and not scanned:
            break
    sent = [r["id"] for r in q.rows("select id from outbox where acknowledged = 0 order by id")]
    await sorting.acknowledge(sent)
    if q.rows("select batch_id from file_in f where kind = 'factory_return' and not exists"
              " (select 1 from outbox o where o.kind = 'centre_return')"):  # fmt: skip
        raise BenchError("the batch of the template did not come to its return")


async def _scan(sorting: Sorting, queries: Queries) -> int:
    """A person scans every open package; how many."""
    packages = queries.packages("p.state = 'open'")
    for package in packages:
        cards = queries.bodies("b.package_id = ?", package["package_id"])
        scanned = tuple(b.order_id for b in cards if b.order_id)
        command = ClosePackage(package["package_id"], scanned, len(cards) - len(scanned))
        if not (await sorting.close_package(command)).accepted:
            raise BenchError("a package of the template is not what its list says")
    return len(packages)


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
