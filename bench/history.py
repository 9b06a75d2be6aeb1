"""A ledger with years of finished batches, bulk-loaded in the real format.

Each batch is a copy of a template (`bench.template`) with ids of its own: digests, samples and
links are computed anew, so that `centre verify` finds nothing to object to. Only the loading is
not the centre's way: no fence, no guards, many commits of lines in one transaction, indexes made
afterwards.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from bench.template import MARK, Commit, Row, Template
from domain.changes import EventType, canonical_json
from domain.places import CARD_LINES, Line
from ledger import schema
from ledger.commit import GENESIS, Ledger
from ledger.connection import Connection, as_json, connect
from ledger.digests import digest_of
from ledger.heads import head_digest, signed_head
from ledger.lots import draw

BATCH_EVERY = timedelta(hours=1)
NUMBER = "@@@@"
Sign = Callable[[Sequence[bytes]], Sequence[bytes]]


def load(ledger: str | Path, template: Template, batches: int, now: datetime, sign: Sign) -> int:
    """Load so many `batches` into the new ledger of this URL, the last of them just before `now`;
    answers how many cards. Each line's newest link of each batch is signed by `sign` (32 bytes
    each)."""
    made = Ledger(ledger, now.isoformat)
    epochs = {str(line): made.open_epoch(line) for line in CARD_LINES}
    made.close()
    connection = connect(ledger, write=True)
    before, after = _LOADING[connection.database.name]
    indexes = [ddl for ddl in schema.TABLES if ddl.split()[1] in ("index", "unique")]
    try:
        for statement in (*before, *(f"drop index {_name(ddl)}" for ddl in indexes)):
            connection.execute(statement).close()
        history = _History(connection, template, now - batches * BATCH_EVERY, sign, epochs)
        # The database works on one batch while the next is made.
        with ThreadPoolExecutor(1) as thread:
            written: Future[None] | None = None
            for number in range(1, batches + 1):
                rows = history.make(number)
                if written is not None:
                    written.result()
                written = thread.submit(history.write, rows)
            if written is not None:
                written.result()
        for statement in (*(connection.database.defined(ddl) for ddl in indexes), *after):
            connection.execute(statement).close()
    finally:
        connection.close()
    return batches * template.cards


def _name(ddl: str) -> str:
    return ddl.partition(" on ")[0].split()[-1]


_LOADING: Mapping[str, tuple[Sequence[str], Sequence[str]]] = {
    "SQLite": (
        ("pragma journal_mode=off", "pragma synchronous=off", "pragma secure_delete=off",
         "pragma cache_size=-1000000", "pragma locking_mode=exclusive"),
        ("pragma locking_mode=normal", "pragma journal_mode=wal"),
    ),
    "PostgreSQL": (
        ("set synchronous_commit = off", "set maintenance_work_mem = '1GB'"),
        ("vacuum analyze",),
    ),
}  # fmt: skip
"""What is said before and after loading: nothing is durable before the end of it."""


@dataclass
class _Texts:
    """A commit as text: what its link is a hash of, and its rows as JSON, without brackets. With
    NUMBER where the number of the commit belongs."""

    hashed: str
    events: str
    movements: str

    @classmethod
    def of(cls, line: str, events: Sequence[Row], movements: Sequence[Row]) -> _Texts:
        place = {"line": line, "number": NUMBER}
        return cls(
            f"{_canonical(events)},{_canonical(movements)}",
            ",".join(
                as_json({**e, **place, "position": i, "data": _canonical(e["data"])})
                for i, e in enumerate(events)
            ),
            ",".join(as_json({**m, **place, "position": i}) for i, m in enumerate(movements)),
        )


def _canonical(value: Any) -> str:
    return canonical_json(value).decode()


class _History:
    """Where the chain stands, and how a batch is added to it."""

    def __init__(
        self,
        connection: Connection,
        template: Template,
        start: datetime,
        sign: Sign,
        epochs: Mapping[str, int],
    ) -> None:
        self._connection = connection
        self._start = start
        self._sign = sign
        self._commits = [(c, _Texts.of(c.line, c.events, c.movements)) for c in template.commits]
        self._fitted = {
            i: as_json(c.events) for i, c in enumerate(template.commits) if _follows_from_ids(c)
        }
        self._tables = {name: as_json(rows) for name, rows in template.tables.items()}
        self._newest = dict.fromkeys(epochs, (0, GENESIS))
        self._epochs = epochs

    def make(self, number: int) -> dict[str, str]:
        """The rows of a batch by table, as JSON."""
        digits = f"{number:06d}"
        begin = self._start + number * BATCH_EVERY
        tables = {name: text.replace(MARK, digits) for name, text in self._tables.items()}
        fitting = _Fitting({t: json.loads(tables[t]) for t in _Fitting.TABLES})
        events, movements, links = [], [], []
        for i, (commit, texts) in enumerate(self._commits):
            if i in self._fitted:
                fitted = json.loads(self._fitted[i].replace(MARK, digits))
                fitting.fit(commit.line, fitted)
                texts = _Texts.of(commit.line, fitted, commit.movements)
            at = (begin + timedelta(seconds=commit.after)).isoformat(timespec="milliseconds")
            link = self._link(commit, at, digits, texts.hashed.replace(MARK, digits))
            links.append(link)
            place = str(link["number"])
            events.append(texts.events.replace(MARK, digits).replace(NUMBER, place))
            movements.append(texts.movements.replace(NUMBER, place))
        tables["event"] = f"[{','.join(events)}]"
        tables["movement"] = f"[{','.join(m for m in movements if m)}]"
        tables["commit_link"] = as_json(links)
        tables["head"] = as_json(self._heads(links))
        return tables

    def _link(self, commit: Commit, at: str, digits: str, hashed: str) -> Row:
        """As `ledger.commit.link_hash`, over text that is canonical already."""
        number, previous = self._newest[commit.line]
        reply = _canonical(commit.reply).replace(MARK, digits)
        head = {
            "line": commit.line,
            "number": number + 1,
            "epoch": self._epochs[commit.line],
            "at": at,
            "command_id": commit.command_id.replace(MARK, digits),
            "payload_hash": commit.payload_hash.replace(MARK, digits),
        }
        spelt = _canonical({**head, "reply": NUMBER}).replace(f'"{NUMBER}"', reply)
        hash = hashlib.sha256(f'["{previous}",{spelt},{hashed}]'.encode()).hexdigest()
        self._newest[commit.line] = number + 1, hash
        return {**head, "reply": reply, "previous": previous, "hash": hash}

    def _heads(self, links: Sequence[Row]) -> list[Row]:
        newest = list({link["line"]: link for link in links}.values())
        digests = [head_digest(n["line"], n["number"], n["hash"], n["at"]) for n in newest]
        return [signed_head(n, s) for n, s in zip(newest, self._sign(digests), strict=True)]

    def write(self, tables: Mapping[str, str]) -> None:
        with self._connection.writing():
            for table, text in tables.items():
                columns = dict(schema.TYPES[table])
                if table in ("event", "movement"):
                    del columns["id"]
                names = ", ".join(columns)
                self._connection.run(
                    f"insert into {table} ({names}) select {names}"
                    f" from {self._connection.database.chunk(columns)}",
                    text,
                )


_COMPUTED = frozenset({
    EventType.ORDER_ADVISED, EventType.RECORD_REFUSED, EventType.RETURN_WRITTEN,
    EventType.BODY_SORTED, EventType.LOT_PRESENTED, EventType.BODY_DRAWN,
})  # fmt: skip


def _follows_from_ids(commit: Commit) -> bool:
    return commit.line == Line.SAMPLING or any(e["type"] in _COMPUTED for e in commit.events)


class _Fitting:
    """What follows from ids follows from those of this copy: digests, and who is in a sample. The
    seed of a lot draws other cards when they have other ids: those take the places of the ones
    that were drawn in the template."""

    TABLES = ("body", "carton", "personal", "number_index", "refused_record", "return_line")

    def __init__(self, tables: Mapping[str, Sequence[Row]]) -> None:
        self._personal = {r["order_id"]: r for r in tables["personal"]}
        self._refused = {(r["file_id"], r["record_number"]): r for r in tables["refused_record"]}
        self._numbers: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for r in tables["number_index"]:
            self._numbers[r["order_id"]].append((r["kind"], r["value"]))
        self._returned = tables["return_line"]
        deliveries = {c["carton_id"]: c["delivery_id"] for c in tables["carton"]}
        self._bodies = {b["body_id"]: b for b in tables["body"]}
        self._lot_of = {
            i: (deliveries[b["carton_id"]], b["bank"], b["kind"]) for i, b in self._bodies.items()
        }
        self._sorted: dict[tuple[str, str, str], list[str]] = defaultdict(list)
        self._lots: dict[str, tuple[list[str], bytes]] = {}
        self._instead: dict[str, str] = {}

    def fit(self, line: str, events: Sequence[Row]) -> None:
        """Mend the events of one commit in place; commits in their order."""
        drawn: dict[str, list[str]] = defaultdict(list)
        for event in events:
            data = event["data"]
            match event["type"]:
                case EventType.ORDER_ADVISED:
                    order_id = event["order_id"]
                    data["personal"] = digest_of([self._personal[order_id]])
                    data["numbers"] = digest_of(sorted(self._numbers[order_id]))
                case EventType.RECORD_REFUSED:
                    row = self._refused[data["file_id"], data["record"]]
                    data["row"] = digest_of([{**row, "corrected_by": ""}])
                case EventType.RETURN_WRITTEN:
                    data["rows"] = digest_of(self._returned)
                case EventType.BODY_SORTED:
                    self._sorted[self._lot_of[event["body_id"]]].append(event["body_id"])
                case EventType.LOT_PRESENTED:
                    data["bodies"] = digest_of(self._present(data))
                case EventType.BODY_DRAWN:
                    drawn[data["lot_id"]].append(event["body_id"])
        for lot_id, before in drawn.items():
            members, seed = self._lots[lot_id]
            self._instead.update(zip(before, draw(members, len(before), seed), strict=True))
        if drawn or line == Line.SAMPLING:
            for event in events:
                if event["body_id"]:
                    event["body_id"] = self._instead[event["body_id"]]
                    event["order_id"] = self._bodies[event["body_id"]]["order_id"]

    def _present(self, lot: Row) -> list[str]:
        members = sorted(self._sorted[lot["delivery_id"], lot["bank"], lot["kind"]])
        self._lots[lot["lot_id"]] = members, bytes.fromhex(lot["seed"])
        return members
