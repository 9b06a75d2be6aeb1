"""What the promises know of the ledger: read by SQL of their own after every commit, link by link,
and compared with what must hold. Nothing of the lines or of `ledger.verify` is used.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ledger.connection import connect

Row = dict[str, Any]
Account = tuple[str, str, str, str]
"""Place, kind, bank, condition."""
ADVISED, MISSING, SURPLUS = "factory/advised", "factory/missing/", "factory/surplus/"


class Broken(Exception):
    """A promise does not hold. `cards`: what it is about, by any name."""

    def __init__(self, promise: int, text: str, *cards: str) -> None:
        super().__init__(promise, text)
        self.promise, self.text = promise, text
        self.cards = tuple(c for c in cards if c)

    def __str__(self) -> str:
        return f"promise {self.promise}: {self.text}"


@dataclass(frozen=True)
class Link:
    """One commit as the ledger has it."""

    line: str
    number: int
    epoch: int
    command_id: str
    events: Sequence[Row]
    movements: Sequence[Row]


def _account(row: Row) -> Account:
    return row["place"], row["kind"], row["bank"], row["condition"]


def _canonical(value: Any) -> bytes:
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return text.encode()


@dataclass
class Mirror:
    """Promises 1, 2, 5 and the links of 7, as far as the ledger alone can tell. `read` takes what
    came since the last time and raises Broken."""

    path: Path
    bodies: dict[str, Row] = field(default_factory=dict)
    balances: Counter[Account] = field(default_factory=Counter)
    _counts: Counter[Account] = field(default_factory=Counter)
    """Bodies in each account."""
    events_of: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Types of the events of each body."""
    accepted_lots: set[str] = field(default_factory=set)
    epochs: dict[str, int] = field(default_factory=dict)
    """The newest epoch of each line that was given out."""
    _last: dict[str, tuple[int, str]] = field(default_factory=dict)
    _live: dict[str, str] = field(default_factory=dict)
    """The live body of each order that has one."""
    _chips: dict[tuple[str, str], str] = field(default_factory=dict)
    """The body of each chip, by kind and identification code."""

    def __post_init__(self) -> None:
        self._connection = connect(self.path, write=False)

    def close(self) -> None:
        self._connection.close()

    def rows(self, sql: str, *parameters: Any) -> list[Row]:
        return self._connection.rows(sql, *parameters)

    def by_chip(self, identification_code: str) -> Row | None:
        """The body of a chip, as the ledger has it."""
        for kind in ("social_security_card", "temporary_card"):
            body_id = self._chips.get((kind, identification_code))
            if body_id is not None:
                return self.bodies[body_id]
        return None

    def read(self, line: str) -> list[Link]:
        """The new commits of a line, each of them checked."""
        number, previous = self._last.get(line, (0, "0" * 64))
        found = self.rows(
            "select * from commit_link where line = ? and number >= ? order by number",
            line, number,
        )  # fmt: skip
        if number and (not found or (found[0]["number"], found[0]["hash"]) != (number, previous)):
            raise Broken(4, f"{line}: commit {number} is gone, or another")
        return [self._take(row) for row in found if row["number"] > number]

    def _take(self, row: Row) -> Link:
        line, number = row["line"], row["number"]
        last, previous = self._last.get(line, (0, "0" * 64))
        events, movements = (
            self.rows(
                f"select * from {table} where line = ? and number = ? order by position",
                line, number,
            )
            for table in ("event", "movement")
        )  # fmt: skip
        for event in events:
            event["data"] = json.loads(event["data"])
        self._check_link(row, last, previous, events, movements)
        if row["epoch"] != self.epochs[line]:
            text = f"{line}: commit {number} under epoch {row['epoch']}, given out was"
            raise Broken(5, f"{text} {self.epochs[line]}", *(e["body_id"] for e in events))
        self._last[line] = number, row["hash"]
        touched = self._move(movements)
        changed = sorted({e["body_id"] for e in events if e["body_id"]})
        for event in events:
            self.events_of[event["body_id"]].add(event["type"])
            if event["type"] == "lot_accepted":
                self.accepted_lots.add(event["data"]["lot_id"])
        if changed:
            touched |= self._change(changed)
        self._check_accounts(touched, changed)
        return Link(line, number, row["epoch"], row["command_id"], events, movements)

    def _check_link(
        self, row: Row, last: int, previous: str, events: list[Row], movements: list[Row]
    ) -> None:
        """The chain goes on from where it was, and its hash is that of what is stored."""
        if row["number"] != last + 1 or row["previous"] != previous:
            raise Broken(7, f"{row['line']}: commit {row['number']} does not follow {last}")
        head = {c: row[c] for c in ("line", "number", "epoch", "at", "command_id", "payload_hash")}
        head["reply"] = json.loads(row["reply"])
        said = [
            {c: e[c] for c in ("type", "body_id", "order_id", "place", "condition", "data")}
            for e in events
        ]
        moved = [
            {
                c: m[c]
                for c in (
                    "source_place", "source_condition", "target_place", "target_condition",
                    "kind", "bank", "count",
                )
            }
            for m in movements
        ]  # fmt: skip
        digest = hashlib.sha256(_canonical([previous, head, said, moved])).hexdigest()
        if digest != row["hash"]:
            raise Broken(7, f"{row['line']}: commit {row['number']} has another hash")

    def _move(self, movements: Sequence[Row]) -> set[Account]:
        touched = set()
        for m in movements:
            source = m["source_place"], m["kind"], m["bank"], m["source_condition"]
            target = m["target_place"], m["kind"], m["bank"], m["target_condition"]
            self.balances[source] -= m["count"]
            self.balances[target] += m["count"]
            touched |= {source, target}
        return touched

    def _change(self, body_ids: Sequence[str]) -> set[Account]:
        """The bodies as they are now, against what they were."""
        found = {
            r["body_id"]: r
            for r in self.rows(
                "select * from body where body_id in (select value from json_each(?))",
                json.dumps(body_ids),
            )
        }
        touched = set()
        for body_id in body_ids:
            before, after = self.bodies.get(body_id), found.get(body_id)
            if after is None:
                raise Broken(1, f"{body_id} is in no account", body_id)
            if before is not None:
                self._check_change(before, after)
                self._counts[_account(before)] -= 1
                touched.add(_account(before))
            self._counts[_account(after)] += 1
            touched.add(_account(after))
            self._bind(before, after)
            self.bodies[body_id] = after
        return touched

    def _check_change(self, before: Row, after: Row) -> None:
        names = after["body_id"], after["identification_code"], after["order_id"]
        if before["order_id"] and after["order_id"] != before["order_id"]:
            raise Broken(2, f"{after['body_id']} carried one order's data, now another's", *names)
        if before["released"] and (
            not after["released"]
            or after["identification_code"] != before["identification_code"]
            or after["lease"] < before["lease"]
        ):
            raise Broken(5, f"{after['body_id']} may be written, and was freed", *names)

    def _bind(self, before: Row | None, after: Row) -> None:
        body_id, order_id = after["body_id"], after["order_id"]
        if self._live.get(order_id) == body_id and not after["live"]:
            del self._live[order_id]
        if order_id and after["live"]:
            other = self._live.setdefault(order_id, body_id)
            if other != body_id:
                raise Broken(2, f"order {order_id} has two live bodies", body_id, other, order_id)
        if after["identification_code"]:
            chip = after["kind"], after["identification_code"]
            other = self._chips.setdefault(chip, body_id)
            if other != body_id:
                raise Broken(2, f"one chip is two bodies: {other}, {body_id}", body_id, other)

    def _check_accounts(self, touched: set[Account], changed: Sequence[str]) -> None:
        """Every body is in exactly one account, and each account has as many as its balance."""
        for account in sorted(touched):
            place, balance = account[0], self.balances[account]
            if place.startswith("factory/"):
                continue
            if balance != self._counts[account]:
                text = f"account {'/'.join(account)} has {balance}, and {self._counts[account]}"
                raise Broken(1, f"{text} bodies lie there", *changed)
        for kind, bank in sorted({account[1:3] for account in touched}):
            self._check_equation(kind, bank, changed)

    def _check_equation(self, kind: str, bank: str, changed: Sequence[str]) -> None:
        """advised + surplus = received + missing, with received counted by bodies."""

        def total(counted: Mapping[Account, int], prefix: str) -> int:
            return sum(
                n for a, n in counted.items() if a[1:3] == (kind, bank) and a[0].startswith(prefix)
            )

        advised, missing = -total(self.balances, ADVISED), total(self.balances, MISSING)
        surplus = -total(self.balances, SURPLUS)
        received = total(self._counts, "") - total(self._counts, "factory/")
        if min(advised, missing, surplus) < 0 or advised + surplus != received + missing:
            text = f"advised {advised} + surplus {surplus} is not received {received}"
            raise Broken(1, f"{text} + missing {missing} ({kind}, bank {bank})", *changed)

    def audit(self) -> None:
        """All of the ledger at once: the mirror is what it adds up to."""
        stored = {r["body_id"]: r for r in self.rows("select * from body")}
        if stored != self.bodies:
            differ = [b for b in {*stored, *self.bodies} if stored.get(b) != self.bodies.get(b)]
            raise Broken(1, f"{len(differ)} bodies are not what events told", *sorted(differ))
        advised: Counter[tuple[str, str]] = Counter()
        for r in self.rows(
            "select 'social_security_card' as kind, bank, count(*) as n from orders group by bank"
            " union all select kind, bank, sum(noted) from carton where kind = 'temporary_card'"
            " group by kind, bank"
        ):
            advised[r["kind"], r["bank"]] += r["n"]
        for (kind, bank), n in sorted(advised.items()):
            said = -sum(v for a, v in self.balances.items() if a[:3] == (ADVISED, kind, bank))
            if said != n:
                raise Broken(1, f"{n} are advised and {said} accounted for ({kind}, bank {bank})")
