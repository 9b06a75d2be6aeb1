"""A ledger with years of finished batches, bulk-loaded in the real format.

Each batch is a copy of a template (`bench.template`) with ids of its own: digests, samples and
links are computed anew, so that `centre verify` finds nothing to object to. Only the loading is
not the centre's way: no fence, no guards, many commits of lines in one transaction, indexes made
afterwards.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pyodbc

from bench.template import Row, Template
from domain.changes import EventType, canonical_json
from domain.places import CARD_LINES, Line
from ledger import schema
from ledger.commit import GENESIS, Ledger, link_hash
from ledger.connection import as_json, connect
from ledger.digests import digest_of
from ledger.heads import head_digest, signed_head
from ledger.lots import draw

BATCH_EVERY = timedelta(hours=1)
Sign = Callable[[Sequence[bytes]], Sequence[bytes]]


def load(ledger: Any, template: Template, batches: int, now: datetime, sign: Sign) -> int:
    """Load so many `batches` into the ledger, the last of them just before `now`; answers how many
    cards. Each line's newest link of each batch is signed by `sign` (32 bytes each)."""
    connection = connect(ledger, write=True)
    try:
        _fast(connection)
        indexes = [ddl for ddl in schema.TABLES if ddl.split()[1] in ("index", "unique")]
        for ddl in indexes:
            connection.execute(f"drop index {schema.name_of(ddl)}").close()
        history = _History(connection, template, now - batches * BATCH_EVERY, sign)
        # The database works on one batch while the next is made.
        with ThreadPoolExecutor(1) as thread:
            before = thread.submit(int)
            for number in range(1, batches + 1):
                made = history.make(number)
                before.result()
                before = thread.submit(history.write, made)
            before.result()
        for ddl in indexes:
            connection.execute(ddl).close()
        _slow(connection)
    finally:
        connection.close()
    return batches * template.cards


def _fast(connection: pyodbc.Connection) -> None:
    for setting in ("journal_mode=off", "synchronous=off", "secure_delete=off",
                    "cache_size=-1000000", "locking_mode=exclusive"):  # fmt: skip
        connection.execute(f"pragma {setting}").close()


def _slow(connection: pyodbc.Connection) -> None:
    for setting in ("locking_mode=normal", "journal_mode=wal"):
        connection.execute(f"pragma {setting}").close()


class _History:
    """Where the chain stands, and how a batch is added to it."""

    def __init__(
        self, connection: pyodbc.Connection, template: Template, start: datetime, sign: Sign
    ) -> None:
        self._connection = connection
        self._template = template
        self._start = start
        self._sign = sign
        self._newest: dict[str, tuple[int, str]] = {}
        self._epochs: dict[str, int] = {}
        for line in CARD_LINES:
            last = connection.execute(
                "select number, hash from commit_link where line = ? order by number desc limit 1",
                line,
            ).fetchone()
            self._newest[line] = (last[0], last[1]) if last else (0, GENESIS)
            epoch = connection.execute("select epoch from epoch where line = ?", line).fetchval()
            self._epochs[line] = epoch

    def make(self, number: int) -> dict[str, list[Row]]:
        """All rows of a batch, by table."""
        commits, tables = self._template.copy(number)
        _fit(commits, tables)
        rows: dict[str, list[Row]] = defaultdict(list)
        rows.update(tables)
        first = datetime.fromisoformat(commits[0]["at"])
        begin = self._start + number * BATCH_EVERY
        for commit in commits:
            at = begin + (datetime.fromisoformat(commit["at"]) - first)
            self._link(commit, at.isoformat(timespec="milliseconds"), rows)
        newest = {link["line"]: link for link in rows["commit_link"]}.values()
        digests = [head_digest(n["line"], n["number"], n["hash"], n["at"]) for n in newest]
        signatures = self._sign(digests)
        rows["head"] = [signed_head(n, s) for n, s in zip(newest, signatures, strict=True)]
        return rows

    def _link(self, commit: Row, at: str, rows: dict[str, list[Row]]) -> None:
        line = commit["line"]
        number, previous = self._newest[line]
        place = {"line": line, "number": number + 1}
        head = {
            **place,
            "epoch": self._epochs[line],
            "at": at,
            **{c: commit[c] for c in ("command_id", "payload_hash", "reply")},
        }
        hash = link_hash(previous, head, commit["events"], commit["movements"])
        for position, event in enumerate(commit["events"]):
            data = canonical_json(event["data"]).decode()
            rows["event"].append({**event, **place, "position": position, "data": data})
        for position, movement in enumerate(commit["movements"]):
            rows["movement"].append({**movement, **place, "position": position})
        reply = canonical_json(commit["reply"]).decode()
        rows["commit_link"].append({**head, "reply": reply, "previous": previous, "hash": hash})
        self._newest[line] = number + 1, hash

    def write(self, rows: dict[str, list[Row]]) -> int:
        self._connection.execute("begin").close()
        for table, of_table in rows.items():
            if of_table:
                names = list(of_table[0])
                self._connection.execute(
                    f"insert into {table} ({', '.join(names)})"
                    f" select {', '.join(f'''value->>'{n}' ''' for n in names)}"
                    " from json_each(?)",
                    as_json(of_table),
                ).close()
        self._connection.execute("commit").close()
        return 0


def _fit(commits: Sequence[Row], tables: dict[str, list[Row]]) -> None:
    """What follows from ids follows from those of this copy: digests, and who is in a sample."""
    personal = {r["order_id"]: r for r in tables["personal"]}
    refused = {(r["file_id"], r["record_number"]): r for r in tables["refused_record"]}
    numbers: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for r in tables["number_index"]:
        numbers[r["order_id"]].append((r["kind"], r["value"]))
    samples = _Samples(tables)
    for commit in commits:
        for event in commit["events"]:
            data = event["data"]
            match event["type"]:
                case EventType.ORDER_ADVISED:
                    order_id = event["order_id"]
                    data["personal"] = digest_of([personal[order_id]])
                    data["numbers"] = digest_of(sorted(numbers[order_id]))
                case EventType.RECORD_REFUSED:
                    row = refused[data["file_id"], data["record"]]
                    data["row"] = digest_of([{**row, "corrected_by": ""}])
                case EventType.RETURN_WRITTEN:
                    data["rows"] = digest_of(tables["return_line"])
                case EventType.BODY_SORTED:
                    samples.sorted(event["body_id"])
                case EventType.LOT_PRESENTED:
                    data["bodies"] = digest_of(samples.present(data))
        samples.drawn(commit)


class _Samples:
    """The seed of a lot draws other cards when they have other ids: those take the places of the
    ones that were drawn in the template."""

    def __init__(self, tables: dict[str, list[Row]]) -> None:
        deliveries = {c["carton_id"]: c["delivery_id"] for c in tables["carton"]}
        self._bodies = {b["body_id"]: b for b in tables["body"]}
        self._lot_of = {
            b["body_id"]: (deliveries[b["carton_id"]], b["bank"], b["kind"])
            for b in tables["body"]
        }
        self._sorted: dict[tuple[str, str, str], list[str]] = defaultdict(list)
        self._lots: dict[str, tuple[list[str], bytes]] = {}
        self._instead: dict[str, str] = {}

    def sorted(self, body_id: str) -> None:
        self._sorted[self._lot_of[body_id]].append(body_id)

    def present(self, lot: Row) -> list[str]:
        members = sorted(self._sorted[lot["delivery_id"], lot["bank"], lot["kind"]])
        self._lots[lot["lot_id"]] = members, bytes.fromhex(lot["seed"])
        return members

    def drawn(self, commit: Row) -> None:
        """Put the right bodies into the events of a commit that draws samples, or reads them."""
        drawn: dict[str, list[str]] = defaultdict(list)
        for event in commit["events"]:
            if event["type"] == EventType.BODY_DRAWN:
                drawn[event["data"]["lot_id"]].append(event["body_id"])
        for lot_id, before in drawn.items():
            members, seed = self._lots[lot_id]
            self._instead.update(zip(before, draw(members, len(before), seed), strict=True))
        if drawn or commit["line"] == Line.SAMPLING:
            for event in commit["events"]:
                if event["body_id"]:
                    event["body_id"] = self._instead[event["body_id"]]
                    event["order_id"] = self._bodies[event["body_id"]]["order_id"]
