"""Verification: does the ledger hold together, link by link and card by card?

It shares no code with the lines that decide, but for what anybody can look up (the sampling tables
of the standard and the draw of a sample); only the spelling of what is hashed is the one of
`ledger.commit`. It reads one snapshot, so it can run beside a working centre.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyodbc

from domain.changes import Away, EventType
from domain.groups import GroupKey
from domain.places import standing
from ledger import chain, schema, tables
from ledger.connection import LedgerUnusable, as_json
from ledger.custody_replay import CustodyReplay, as_said
from ledger.faults import Fault
from ledger.heads import HeadFileDamaged, heads_in, load_public_key
from ledger.package_replay import check_packages
from ledger.queries import Queries
from ledger.replay import Commit, Replay
from ledger.return_replay import check_returns
from ledger.summary import OUTSIDE, seconds_between, summary

COMMITS_AT_ONCE = 64

# What a stored value can raise when it is not of the shape that this program writes.
_UNREADABLE = (
    KeyError, IndexError, TypeError, AttributeError, ValueError, OverflowError, RecursionError,
)  # fmt: skip


@dataclass(frozen=True)
class Report:
    """The answer of `verify`."""

    ok: bool
    finding: str = ""
    """The first thing that does not fit, in words: table, line, number of the commit, body or
    order. Empty if everything fits."""
    commits: int = 0
    events: int = 0
    bodies: int = 0
    lots: int = 0
    """Inspection lots whose plan was looked up, whose sample drawn and verdict counted again."""
    signatures: int = 0
    """Signatures of heads that were checked and right, in table and head file together. Without
    the public key none is, and every commit counts as unsigned."""
    unsigned_commits: int = 0
    """Commits after the newest signed head of their line."""
    unsigned_seconds: float = 0.0
    """From the first to the last of them."""


@dataclass
class _Progress:
    """How far it came, for the report, and what it was at, in case a row cannot be read."""

    at: str = "schema"
    commits: int = 0
    events: int = 0
    bodies: int = 0
    stops: int = 0
    lots: int = 0
    signatures: int = 0
    unsigned_commits: int = 0
    unsigned_seconds: float = 0.0

    def report(self, finding: str = "") -> Report:
        return Report(
            not finding,
            finding,
            self.commits,
            self.events,
            self.bodies,
            self.lots,
            self.signatures,
            self.unsigned_commits,
            self.unsigned_seconds,
        )


def verify(
    ledger: str | Path,
    head_file: Path | None,
    public_key_pem: bytes | None,
) -> Report:
    """Read the `ledger` (its URL, or the path of a file) and report the first thing that does not
    fit.

    Links: every hash is computed anew, numbers have no gap, epochs never decrease. Heads: those
    of the table and of `head_file` (None: not looked at) are signed by `public_key_pem` (None:
    not checked) and name links that are there; the file has every head of the table.
    Meaning: every event can have happened, movements are the sum of the events, tables are what
    the events say. Balances: no account has the wrong sign, both equations of the centre hold per
    bank and kind. Personal data are there, or were destroyed after their expiry, as events say.

    Never raises for what is in the database or the files, whatever it is; changes nothing.
    """
    progress = _Progress()
    try:
        queries = Queries(ledger)
    except (LedgerUnusable, Away, pyodbc.Error) as e:
        return progress.report(f"账本无法打开 · the ledger can't be opened: {_reason(e)}")
    try:
        # Before the snapshot, which then has every commit that a head of this reading names.
        kept_outside = _kept_outside(head_file, _size(head_file))
        queries.begin()
        _check_schema(queries)
        progress.at = "commit_link / event / movement / epoch"
        walked = chain.check_links(queries)
        progress.commits, progress.events = walked.commits, walked.events
        progress.at = "head"
        key = load_public_key(public_key_pem) if public_key_pem is not None else None
        signed = chain.check_heads(queries, kept_outside, key)
        if head_file is not None:
            chain.check_kept_outside(queries, _kept_outside(head_file))
        progress.signatures = signed.checked
        _measure_tail(queries, signed.covered, progress)
        _check_meaning(queries, progress)
    except Fault as fault:
        return progress.report(str(fault))
    except (Away, pyodbc.Error, MemoryError) as e:
        return progress.report(str(_unreadable(progress.at, _reason(e))))
    except _UNREADABLE as e:
        return progress.report(str(_unreadable(progress.at, type(e).__name__)))
    finally:
        queries.close()
    return progress.report()


def _reason(error: Exception) -> str:
    # The driver's text can quote values; its state cannot.
    return str(error.args[0]) if isinstance(error, pyodbc.Error) and error.args else str(error)


def _unreadable(at: str, reason: str) -> Fault:
    return Fault("内容无法读取", f"holds what this program never wrote ({reason})", table=at)


def _check_meaning(queries: Queries, progress: _Progress) -> None:
    progress.at = "event / movement / body / order_stop"
    replay = _replayed(queries, progress)
    checks: tuple[tuple[str, Callable[[], None]], ...] = (
        ("body", lambda: tables.check_no_other_body(queries, progress.bodies)),
        (
            "orders / personal / number_index",
            lambda: tables.check_orders(queries, replay.keeping.destroyed),
        ),
        (
            "settled_group",
            lambda: tables.check_replayed(
                queries, "settled_group", GroupKey._fields, replay.settled_rows()
            ),
        ),
        ("order_stop", lambda: tables.check_count(queries, "order_stop", progress.stops)),
        ("person / login / act", lambda: _check_custody(queries, replay.custody)),
        ("file_in / refused_record", lambda: tables.check_files(queries)),
        ("delivery / carton", lambda: tables.check_deliveries(queries)),
        ("package", lambda: check_packages(queries)),
        ("return_line", lambda: check_returns(queries)),
        ("outbox", lambda: tables.check_outbox(queries)),
        ("movement", lambda: _check_balances(queries, replay)),
    )
    for at, check in checks:
        progress.at = at
        check()


def _replayed(queries: Queries, progress: _Progress) -> Replay:
    """Every commit, in pages; what leaves the replay with a page is compared with its table."""
    replay = Replay()
    for page in _pages(queries):
        replay.expect(
            _events_of_each(queries, page, "body_id", EventType.BODY_RECEIVED),
            _events_of_each(queries, page, "order_id", EventType.ORDER_ADVISED),
        )
        for commit in page:
            try:
                replay.apply(commit)
            except _UNREADABLE as e:
                raise Fault(
                    "事件内容不合格式", f"an event is not of its shape ({type(e).__name__})",
                    table="event", line=commit.line, number=commit.number,
                ) from e  # fmt: skip
        tables.check_bodies(queries, replay.final_bodies)
        tables.check_stops(queries, replay.final_stops)
        progress.bodies += len(replay.final_bodies)
        progress.stops += len(replay.final_stops)
        progress.lots = len(replay.lots)
        replay.final_bodies.clear()
        replay.final_stops.clear()
    return replay


def _events_of_each(
    queries: Queries, page: Sequence[Commit], column: str, first: EventType
) -> dict[str, int]:
    """How many events the ledger has of each body or order (`column`) that comes in by an event of
    type `first` in these commits."""
    ids = {e[column] for commit in page for e in commit.events if e["type"] == first}
    found = queries.rows(
        f"select {column} as id, count(*) as n from event where {column} <> ''"
        f" and {column} in (select value from json_each(?)) group by {column}",
        as_json(sorted(ids)),
    )
    return {r["id"]: r["n"] for r in found}


def _check_custody(queries: Queries, custody: CustodyReplay) -> None:
    for table, key, rows in (
        ("person", "name", custody.person_rows()),
        ("login", "session", custody.login_rows()),
        ("act", "act_id", custody.act_rows()),
    ):
        tables.check_replayed(queries, table, (key,), rows, partial(as_said, table))


def _check_schema(queries: Queries) -> None:
    """Tables and indexes are ours to the letter, with no trigger beside them, and the database
    finds its own files sound."""
    database = queries.database
    present, expected = database.shapes(queries), database.expected_shapes(schema.TABLES)
    for name in sorted(set(present) - set(expected)):
        raise Fault("多出表、索引或触发器", "is not part of the ledger", table=name)
    for name in expected:
        if name not in present:
            raise Fault("缺少表或索引", "a table or an index is missing", table=name)
        if present[name] != expected[name]:
            raise Fault("表结构被改动", "has another shape than this program's", table=name)
    damage = database.damage(queries)
    if damage:
        raise Fault("数据库文件损坏", f"{database.name} finds damage", table=damage)
    if queries.rows("select version from ledger_version") != [{"version": schema.VERSION}]:
        raise Fault("版本不符", "another version than this program's", table="ledger_version")


def _size(head_file: Path | None) -> int:
    try:
        return head_file.stat().st_size if head_file is not None else 0
    except FileNotFoundError:
        return 0
    except OSError as e:
        raise Fault("头文件无法读取", str(e), table="head file") from None


def _kept_outside(head_file: Path | None, size: int | None = None) -> Iterator[dict[str, Any]]:
    """The heads of the file, or of its first `size` bytes. Raises Fault."""
    if head_file is None:
        return
    try:
        yield from heads_in(head_file, size)
    except FileNotFoundError:
        return
    except (HeadFileDamaged, OSError) as e:
        raise Fault("头文件无法读取", str(e), table="head file") from None


def _measure_tail(queries: Queries, covered: dict[str, int], progress: _Progress) -> None:
    first, last = [], []
    for r in queries.rows(
        "select c.line, count(*) as n, min(c.at) as first, max(c.at) as last from commit_link c"
        " left join json_each(?) j on j.value->>'line' = c.line"
        " where c.number > coalesce(cast(j.value->>'number' as integer), 0) group by c.line",
        as_json([{"line": line, "number": number} for line, number in covered.items()]),
    ):
        progress.unsigned_commits += r["n"]
        first.append(r["first"])
        last.append(r["last"])
    if first:
        progress.unsigned_seconds = round(seconds_between(min(first), max(last)), 3)


def _pages(queries: Queries) -> Iterator[list[Commit]]:
    """All commits that have events, in the order in which they began to write; what a commit
    builds upon was committed, so written, before. COMMITS_AT_ONCE, or fewer that are large."""
    after = 0
    while firsts := queries.rows(
        "select id, line, number from event where position = 0 and id > ? order by id limit ?",
        after, COMMITS_AT_ONCE,
    ):  # fmt: skip
        after = firsts[-1]["id"]
        while firsts:
            # Ids tell about how many events there are between two of them.
            end = firsts[0]["id"] + chain.EVENTS_AT_ONCE
            page = [f for f in firsts if f["id"] < end]
            firsts = firsts[len(page) :]
            yield _commits(queries, page)


def _commits(queries: Queries, firsts: Sequence[Mapping[str, Any]]) -> list[Commit]:
    wanted = as_json([{"line": f["line"], "number": f["number"]} for f in firsts])
    events, movements = _of(queries, "event", wanted), _of(queries, "movement", wanted)
    commits = []
    for first in firsts:
        key = first["line"], first["number"]
        for event in events[key]:
            event["data"] = json.loads(event["data"])
        commits.append(Commit(*key, events[key], movements.get(key, [])))
    return commits


def _of(queries: Queries, table: str, commits: str) -> dict[tuple[str, int], list[dict[str, Any]]]:
    """The rows of these commits in `table`, by line and number, in their order."""
    found: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in queries.rows(
        f"select t.* from json_each(?) j join {table} t on t.line = j.value->>'line'"
        " and t.number = cast(j.value->>'number' as integer) order by t.line, t.number, t.position",
        commits,
    ):
        found.setdefault((row["line"], row["number"]), []).append(row)
    return found


def _check_balances(queries: Queries, replay: Replay) -> None:
    """Each inside account has as many bodies as its balance says, and the ledger's own queries
    find both equations true."""
    left = Counter(replay.balances)
    left.subtract(replay.final_in)
    for account, difference in sorted(left.items()):
        if difference and standing(account.place) not in OUTSIDE:
            raise Fault(
                "账户余额与卡体数不符", f"account {account.place} has another number of bodies",
                table="movement / body",
            )  # fmt: skip
    if any(group.due != group.stand_ins for group in replay.groups.values()):
        raise Fault("替代数未结算", "what strangers stand for was not settled", table="event")
    totals = summary(queries)
    if not totals["reconciled"]:
        raise Fault("对账不平", "the equations of the centre do not hold", table="movement")
