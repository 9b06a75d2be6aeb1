"""The links of a ledger, and the heads that were signed over them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from domain.changes import canonical_json
from domain.places import Line
from ledger.commit import GENESIS, link_hash
from ledger.connection import as_json
from ledger.faults import Fault
from ledger.heads import is_signed
from ledger.queries import Queries

LINKS_AT_ONCE = 64
EVENTS_AT_ONCE = 2_000
HEADS_AT_ONCE = 1_000
_HASHED = {
    "event": ("type", "body_id", "order_id", "place", "condition", "data"),
    "movement": (
        "source_place", "source_condition", "target_place", "target_condition", "kind", "bank",
        "count",
    ),
}  # fmt: skip
_LINES = frozenset(str(line) for line in Line)
_HEAD = ("line", "number", "epoch", "at", "command_id", "payload_hash", "reply")

Row = dict[str, Any]


@dataclass
class Chain:
    """What was walked: numbers of commits and events, and the newest link of each line."""

    commits: int = 0
    events: int = 0
    movements: int = 0
    newest: dict[str, Row] = field(default_factory=dict)


def check_links(queries: Queries) -> Chain:
    """Compute every hash anew from what is stored, line by line in the order of the numbers,
    a page in memory. Raises Fault for the first link that does not fit."""
    chain = Chain()
    for row in queries.rows("select distinct line from commit_link order by line"):
        _check_line(queries, row["line"], chain)
    _check_nothing_else(queries, chain)
    twice = queries.one(
        "select line, command_id, max(number) as number from commit_link"
        " group by line, command_id having count(*) > 1 limit 1"
    )
    if twice:
        raise Fault(
            "命令编号重复", "a command took effect twice",
            table="commit_link", line=twice["line"], number=twice["number"],
        )  # fmt: skip
    _check_epochs(queries, chain)
    return chain


def _check_line(queries: Queries, line: str, chain: Chain) -> None:
    if line not in _LINES:
        raise Fault("未知生产线", "no such line", table="commit_link", line=line)
    previous: Row = {"number": 0, "hash": GENESIS, "epoch": 1}
    last_ids = {"event": 0, "movement": 0}
    while True:
        links = queries.rows(
            "select * from commit_link where line = ? and number > ? order by number limit ?",
            line, previous["number"], LINKS_AT_ONCE,
        )  # fmt: skip
        if not links:
            break
        for page in _pages(queries, line, links):
            _check_page(queries, page, previous, last_ids, chain)
            previous = page[-1]
    chain.newest[line] = {k: previous[k] for k in ("line", "number", "hash", "at", "epoch")}


def _pages(queries: Queries, line: str, links: Sequence[Row]) -> Iterator[list[Row]]:
    """The links in their order; those of a page have EVENTS_AT_ONCE together, or are one."""
    events = {
        r["number"]: r["n"]
        for r in queries.rows(
            "select number, count(*) as n from event where line = ? and number between ? and ?"
            " group by number",
            line, links[0]["number"], links[-1]["number"],
        )
    }  # fmt: skip
    page: list[Row] = []
    size = 0
    for link in links:
        size += events.get(link["number"], 0)
        if page and size > EVENTS_AT_ONCE:
            yield page
            page, size = [], events.get(link["number"], 0)
        page.append(link)
    yield page


def _check_page(
    queries: Queries, links: Sequence[Row], previous: Row, last_ids: dict[str, int], chain: Chain
) -> None:
    """Links that follow `previous`."""
    line, last = links[0]["line"], links[-1]["number"]
    events = _stored(queries, "event", line, previous["number"], last)
    movements = _stored(queries, "movement", line, previous["number"], last)
    for link in links:
        number = link["number"]
        mine = events.get(number, []), movements.get(number, [])
        _check_link(link, previous, *mine)
        _check_order(link, last_ids, event=mine[0], movement=mine[1])
        chain.commits += 1
        chain.events += len(mine[0])
        chain.movements += len(mine[1])
        previous = link


def _stored(queries: Queries, table: str, line: str, after: int, last: int) -> dict[int, list[Row]]:
    found: dict[int, list[Row]] = {}
    for row in queries.rows(
        f"select * from {table} where line = ? and number > ? and number <= ?"
        " order by number, position",
        line, after, last,
    ):  # fmt: skip
        found.setdefault(row["number"], []).append(row)
    return found


def _check_link(link: Row, previous: Row, events: Sequence[Row], movements: Sequence[Row]) -> None:
    def fault(chinese: str, english: str, table: str = "commit_link") -> Fault:
        return Fault(chinese, english, table=table, line=link["line"], number=link["number"])

    if link["number"] != previous["number"] + 1:
        raise Fault(
            "缺少提交", "a commit is missing",
            table="commit_link", line=link["line"], number=previous["number"] + 1,
        )  # fmt: skip
    if link["previous"] != previous["hash"]:
        raise fault("与前一提交不衔接", "does not follow from the commit before")
    if link["epoch"] < previous["epoch"]:
        raise fault("任期倒退", "the epoch decreases")
    hashed: dict[str, list[Row]] = {}
    for table, rows in (("event", events), ("movement", movements)):
        hashed[table] = [_as_hashed(table, row) for row in rows]
        for position, row in enumerate(rows):
            if row["position"] != position:
                raise fault("次序不符", "rows are missing or out of order", table)
    reply = _parsed(link["reply"], "commit_link", link)
    if movements and not events:
        raise fault("移动没有事件说明", "a movement that no event explains", "movement")
    head = {**{c: link[c] for c in _HEAD}, "reply": reply}
    if link_hash(previous["hash"], head, hashed["event"], hashed["movement"]) != link["hash"]:
        raise fault(
            "哈希不符：该提交的链接、事件或移动被改动",
            "the hash differs: this link, its events or movements were changed",
            "commit_link / event / movement",
        )


def _check_order(link: Row, last_ids: dict[str, int], **rows_of: Sequence[Row]) -> None:
    """Ids grow along a line, with gaps: a sequence does not come back from a rollback, and other
    lines draw from it too."""
    for table, rows in rows_of.items():
        for row in rows:
            if row["id"] <= last_ids[table]:
                raise Fault(
                    "编号倒退", "ids are out of order",
                    table=table, line=link["line"], number=link["number"],
                )  # fmt: skip
            last_ids[table] = row["id"]


def _as_hashed(table: str, row: Row) -> Row:
    hashed = {c: row[c] for c in _HASHED[table]}
    if "data" in hashed:
        hashed["data"] = _parsed(row["data"], table, row)
    return hashed


def _parsed(text: str, table: str, row: Row) -> Any:
    """Stored JSON, which must be spelt as this program spells it."""
    try:
        value = json.loads(text)
        if canonical_json(value).decode() == text:
            return value
    except (ValueError, RecursionError):
        pass  # said below, like any other text that this program did not write
    raise Fault(
        "内容不是本程序所写的JSON", "not JSON as this program writes it",
        table=table, line=row["line"], number=row["number"],
    )  # fmt: skip


def _check_nothing_else(queries: Queries, chain: Chain) -> None:
    """No event and no movement stands outside the commits, and none was taken off the end."""
    for table, walked in (("event", chain.events), ("movement", chain.movements)):
        orphan = queries.one(
            f"select t.line, t.number from {table} t where not exists (select 1 from commit_link c"
            " where c.line = t.line and c.number = t.number) limit 1"
        )
        if orphan:
            raise Fault(
                "没有所属提交", "belongs to no commit", table=f"commit_link / {table}", **orphan
            )
        found = queries.one(f"select count(*) as n from {table}")
        if found != {"n": walked}:
            raise Fault("行数不符", "rows are missing", table=table)


def _check_epochs(queries: Queries, chain: Chain) -> None:
    epochs = {r["line"]: r["epoch"] for r in queries.rows("select line, epoch from epoch")}
    for line in sorted({*epochs, *chain.newest}):
        link = chain.newest.get(line)
        if line not in _LINES or (link and epochs.get(line, 0) < link["epoch"]):
            raise Fault(
                "任期与提交不符", "the epoch is older than a commit under it",
                table="epoch", line=line, number=link["number"] if link else None,
            )  # fmt: skip


@dataclass
class Signed:
    """`checked`: signatures found right; `covered`: by line, the newest signed number."""

    checked: int = 0
    covered: dict[str, int] = field(default_factory=dict)


def check_heads(
    queries: Queries,
    kept_outside: Iterable[Row],
    key: ec.EllipticCurvePublicKey | None,
) -> Signed:
    """Every head, of the table and of the head file (`kept_outside`, as it was before this
    snapshot of the ledger was taken), has a right signature (if there is a `key`) and names a
    link of this ledger. Raises Fault."""
    signed = Signed()
    for head, link in _with_links(queries, _recorded(queries)):
        _check_head(head, link, key, "head", signed)
    for head, link in _with_links(queries, kept_outside):
        _check_head(head, link, key, "head file", signed)
    return signed


def check_kept_outside(queries: Queries, kept_outside: Iterable[Row]) -> None:
    """Every head of the table stands in the head file (`kept_outside`, as it is after this
    snapshot was taken), where it was put first. Raises Fault."""
    outside: dict[str, set[int]] = {}
    for head in kept_outside:
        outside.setdefault(head["line"], set()).add(head["number"])
    for head in _recorded(queries):
        if head["number"] not in outside.get(head["line"], ()):
            raise Fault(
                "签名头不在外存的头文件中", "a head is not in the head file kept outside",
                table="head", line=head["line"], number=head["number"],
            )  # fmt: skip


def _recorded(queries: Queries) -> Iterator[Row]:
    line, number = "", 0
    while True:
        heads = queries.rows(
            "select line, number, hash, at, signature from head where (line, number) > (?, ?)"
            " order by line, number limit ?",
            line, number, HEADS_AT_ONCE,
        )  # fmt: skip
        if not heads:
            return
        yield from heads
        line, number = heads[-1]["line"], heads[-1]["number"]


def _with_links(
    queries: Queries, heads: Iterable[Row]
) -> Iterator[tuple[Row, Mapping[str, Any] | None]]:
    """Each head with the link of its number, or None if there is none."""
    chunk: list[Row] = []

    def matched() -> Iterator[tuple[Row, Mapping[str, Any] | None]]:
        links = {
            (r["line"], r["number"]): r
            for r in queries.rows(
                "select c.line, c.number, c.hash, c.at from json_each(?) j join commit_link c"
                " on c.line = j.value->>'line'"
                " and c.number = cast(j.value->>'number' as integer)",
                as_json([{"line": h["line"], "number": h["number"]} for h in chunk]),
            )
        }
        for h in chunk:
            yield h, links.get((h["line"], h["number"]))

    for head in heads:
        chunk.append(head)
        if len(chunk) == HEADS_AT_ONCE:
            yield from matched()
            chunk = []
    yield from matched()


def _check_head(
    head: Row,
    link: Mapping[str, Any] | None,
    key: ec.EllipticCurvePublicKey | None,
    table: str,
    signed: Signed,
) -> None:
    def fault(chinese: str, english: str) -> Fault:
        return Fault(chinese, english, table=table, line=head["line"], number=head["number"])

    if key is not None and not is_signed(head, key):
        raise fault("签名不符", "the signature is not right")
    if link is None:
        raise fault(
            "账本缺少签名头所指的提交，末尾被截断",
            "the ledger does not have the commit of this signed head: its end was cut off",
        )
    if (link["hash"], link["at"]) != (head["hash"], head["at"]):
        raise fault(
            "签名头与提交不符，账本被重算",
            "the commit of this signed head has another hash: the ledger was computed anew",
        )
    if key is not None:
        signed.checked += 1
        signed.covered[head["line"]] = max(signed.covered.get(head["line"], 0), head["number"])
