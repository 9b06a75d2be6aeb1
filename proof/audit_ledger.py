"""The ledger against everything outside of it, to the card, for all batches that are in it.

Its tables are read by SQL of this module's own, over a connection of its own: no code of those
who wrote them is used. `audit_ledger` fails with the first thing that does not fit.
"""

from __future__ import annotations

import csv
import tomllib
from collections import Counter, defaultdict
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pyodbc

from proof.evidence import BrokenPromise, Row, once, plastic, rows_of, same

ONCE = (
    "body_received", "keys_replaced", "inspected", "sample_passed", "body_packed", "body_shipped",
)  # fmt: skip
"""What happens to a body at most once, whatever is killed."""
ON_THE_WAY = ("body_received", "keys_replaced", "inspected", "body_packed", "body_shipped")
"""What happened to each that was shipped."""
STACKS = {"shipped": "good", "rejected": "rejected", "held": "held"}


class Ledger:
    """The ledger of a home, read. `query` answers rows by column name."""

    def __init__(self, home: Path) -> None:
        named = tomllib.loads((home / "centre.toml").read_text("utf-8"))["ledger"]
        self._connection = pyodbc.connect(
            _connection_string(home, named.get("url") or f"sqlite:{named['path']}"),
            autocommit=True,
        )

    def query(self, sql: str) -> list[Row]:
        cursor = self._connection.execute(sql)
        names = [c[0] for c in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def close(self) -> None:
        self._connection.close()


def _connection_string(home: Path, url: str) -> str:
    scheme, _, rest = url.partition(":")
    if scheme == "sqlite":
        return f"DRIVER={_driver('libsqlite3odbc.so')};DATABASE={home / rest}"
    parts = urlsplit(url)
    host = parts.hostname or parse_qs(parts.query)["host"][0]
    return (
        f"DRIVER={_driver('psqlodbcw.so')};SERVERNAME={host};PORT={parts.port or 5432};"
        f"UID={unquote(parts.username or '')};DATABASE={parts.path[1:]};BoolsAsChar=0"
    )


def _driver(name: str) -> str:
    return str(next(Path("/usr/lib").glob(f"*/odbc/{name}")))


def audit_ledger(home: Path) -> list[Row]:
    """Every body of the ledger, after all that is said here was found to hold."""
    with closing(Ledger(home)) as ledger:
        bodies = ledger.query("select * from body order by body_id")
        _events(ledger, bodies)
        _accounts(ledger, bodies)
        _plastic(home, ledger, bodies)
        _packages(home, ledger, bodies)
        _returns(home, ledger, bodies)
    return bodies


def _standing(place: str) -> str:
    """How a place counts in the equation."""
    head, _, rest = place.partition("/")
    if head == "factory":
        return rest.partition("/")[0]
    outside = {"courier": "shipped", "shredder": "destroyed"}
    return outside.get(head) or {"rejected": "rejected", "held": "held"}.get(rest, "in_work")


def _events(ledger: Ledger, bodies: list[Row]) -> None:
    """A body lies where its last event put it; nothing that happens once happened twice, and what
    was shipped went the whole way."""
    happened: dict[str, Counter[str]] = defaultdict(Counter)
    place: dict[str, Any] = {}
    for e in ledger.query(
        "select body_id, type, place, condition from event where body_id <> '' order by id"
    ):
        happened[e["body_id"]][e["type"]] += 1
        if e["place"]:
            place[e["body_id"]] = (e["place"], e["condition"])
    same({b["body_id"]: (b["place"], b["condition"]) for b in bodies}, place,
         "a body lies where its last event put it")  # fmt: skip
    for body_id, counts in sorted(happened.items()):
        for event in ONCE:
            if counts[event] > 1:
                raise BrokenPromise(f"{event} happened {counts[event]} times", body_id)
    for b in bodies:
        lacks = [e for e in ON_THE_WAY if not happened[b["body_id"]][e]]
        if _standing(b["place"]) == "shipped" and lacks:
            raise BrokenPromise(f"shipped without {', '.join(lacks)}", b["body_id"])


def _accounts(ledger: Ledger, bodies: list[Row]) -> None:
    """The movements of each account add up to the bodies in it, and both equations hold."""
    balance: Counter[str] = Counter()
    for m in ledger.query(
        "select source_place, source_condition, target_place, target_condition, kind, bank,"
        " sum(count) as n from movement group by source_place, source_condition, target_place,"
        " target_condition, kind, bank"
    ):
        for end, sign in (("source", -1), ("target", 1)):
            named = (m[f"{end}_place"], m["kind"], m["bank"], m[f"{end}_condition"])
            balance[" ".join(named).strip()] += sign * int(m["n"])
    inside = {a: n for a, n in balance.items() if n and not a.startswith("factory/")}
    rows = Counter(
        " ".join((b["place"], b["kind"], b["bank"], b["condition"])).strip()
        for b in bodies
        if not b["place"].startswith("factory/")
    )
    same(inside, rows, "the movements of an account add up to its bodies")
    total: Counter[str] = Counter()
    for account, n in balance.items():
        total[_standing(account.partition(" ")[0])] += n
    received = sum(rows.values())
    # What is owed from outside is negative in its account.
    if -total["advised"] - total["surplus"] != received + total["missing"]:
        raise BrokenPromise(f"advised + surplus = received + missing: {dict(total)}, {received}")


def _plastic(home: Path, ledger: Ledger, bodies: list[Row]) -> None:
    """Each card of plastic is one body, on the stack where the ledger has it, with its identity;
    of cartons that no reader saw there are as many."""
    cards = plastic(home / "trays")
    beside = [c for d in sorted(home.glob("*/trays")) for c in plastic(d).values()]
    signed = {c["carton_id"] for c in ledger.query(
        "select carton_id from carton c join delivery d on d.delivery_id = c.delivery_id"
        " where d.state = 'signed'")}  # fmt: skip
    live = [b for b in bodies if not b["place"].startswith("factory/")]
    same(Counter(b["carton_id"] for b in live),
         Counter(c["carton_id"] for c in [*cards.values(), *beside] if c["carton_id"] in signed),
         "a carton has as many bodies as cards")  # fmt: skip
    seen = [b for b in live if b["identification_code"] or b["ticket"]]
    by_identity = {_identity(c): t for t, c in cards.items() if not c["silent"]}
    ticket_of = {
        str(b["body_id"]): str(by_identity.get(b["identification_code"], b["ticket"])) for b in seen
    }
    once(sorted(ticket_of.values()), "a card of plastic is a body")
    same(dict.fromkeys(ticket_of.values(), True), dict.fromkeys(cards, True),
         "every card of plastic is a body")  # fmt: skip
    for b in seen:
        ticket = ticket_of[b["body_id"]]
        if b["ticket"] not in ("", ticket):
            raise BrokenPromise(f"is {ticket} by its chip, and {b['ticket']}", b["body_id"])
    same(
        {b["body_id"]: cards[ticket_of[b["body_id"]]].get("stack", "hopper") for b in seen},
        {b["body_id"]: STACKS.get(_standing(b["place"]), "hopper") for b in seen},
        "a card lies on the stack that the ledger says",
    )


def _identity(card: Row) -> str:
    return str(card["social"]["records"]["05"]["01"])


def _packages(home: Path, ledger: Ledger, bodies: list[Row]) -> None:
    """A package is closed, holds the bodies that the ledger says, by the plastic that was laid
    into it, and is on the printed lists with just these orders."""
    inside: dict[str, list[Row]] = defaultdict(list)
    for b in bodies:
        if b["package_id"]:
            inside[b["package_id"]].append(b)
    packages = {p["package_id"]: p for p in ledger.query("select * from package")}
    for name, cards in inside.items():
        for b in cards:
            if name not in packages or b["place"] != f"courier/{packages[name]['destination']}":
                raise BrokenPromise(f"is in {name} and lies at {b['place']}", b["body_id"])
    noted = {n["package"]: n["tickets"] for n in rows_of(home / "journals" / "packer.jsonl")}
    same({p: sorted(t) for p, t in noted.items() if t},
         {p: sorted(b["ticket"] for b in cards) for p, cards in inside.items()},
         "the plastic in a package is what the ledger says")  # fmt: skip
    listed: dict[str, list[str]] = defaultdict(list)
    counted = {}
    for file in (home / "lists").glob("*/*.csv"):
        with file.open(encoding="utf-8-sig", newline="") as text:
            _, *rows = csv.reader(text)
        if file.name.endswith("-sorting.csv"):
            for row in rows:
                listed[row[0]].append(row[4])
        elif file.name.endswith("-packing.csv"):
            counted.update({row[0]: (int(row[1]), row[3].rpartition(" ")[2]) for row in rows})
    same({p: sorted(orders) for p, orders in listed.items()},
         {p: sorted(b["order_id"] for b in cards) for p, cards in inside.items()},
         "a package's sorting list has its orders")  # fmt: skip
    same(counted, {p: (len(cards), "closed") for p, cards in inside.items()},
         "a package's packing list has its count")  # fmt: skip


def _returns(home: Path, ledger: Ledger, bodies: list[Row]) -> None:
    """Each return file (a later one revises the lines it names), what card management took of it
    and the ledger are the same lines, a card once in each; the newest line of every order says how
    its body ends, and no order has two final ones."""
    files: dict[str, list[Row]] = defaultdict(list)
    newest: dict[str, Row] = {}
    final = []
    for r in ledger.query("select * from return_line order by batch_id, position"):
        files[r["file_id"]].append(r)
        newest[_name(r)] = r
        final += [_name(r)] * bool(r["final"])
    once(final, "a card has a final line")
    for file_id, rows in files.items():
        ours = _by_name(rows, "branch", "package_id")
        written = rows_of(home / "return" / f"{file_id}.jsonl")
        same(_by_name(written, "branch", "package"), ours, f"{file_id} is what the ledger says")
        taken = rows_of(home / "sent" / "received" / f"{file_id}.jsonl")
        same(_by_name(taken, "branch_code", "package_id"), ours,
             f"card management took {file_id} as the ledger says")  # fmt: skip
    returned = {r["batch_id"] for r in newest.values()}
    live = {b["order_id"]: b for b in bodies if b["order_id"] and _counts(b)}
    orders = [o for o in ledger.query("select * from orders") if o["batch_id"] in returned]
    stops = ledger.query("select order_id from order_stop where reason = 'CANCELLED'")
    cancelled = {s["order_id"] for s in stops}
    expected = {
        o["order_id"]: _ending(live.get(o["order_id"]), o["order_id"] in cancelled) for o in orders
    }
    ends = {n: (r["result"], r["reason"], r["package_id"]) for n, r in newest.items()}
    same({o: ends.get(o) for o in expected}, expected, "an order's line says how its card ends")
    without = {b["body_id"]: b["package_id"] for b in bodies
               if not b["order_id"] and b["package_id"]}  # fmt: skip
    same({b: ends[b][2] if b in ends else None for b in without}, without,
         "a shipped body without order has its line")  # fmt: skip


def _name(line: Row) -> str:
    return str(line.get("order_id") or line["body_id"])


def _by_name(rows: list[Row], branch: str, package: str) -> dict[str, tuple[Any, ...]]:
    once([_name(r) for r in rows], "a card is in a return")
    return {
        _name(r): (r["result"], r["reason"], r.get(branch, ""), r.get(package, "")) for r in rows
    }


def _counts(body: Row) -> bool:
    """Of the bodies that an order had, the one that its line tells of."""
    return not body["place"].startswith("factory/")


def _ending(body: Row | None, cancelled: bool) -> tuple[str, str, str]:
    """Result, reason and package of an order's line, by where its body lies."""
    if cancelled and (body is None or _standing(body["place"]) == "held"):
        return "cancelled", "CANCELLED", ""
    if body is None:
        return "missing", "NOT_DELIVERED", ""
    return _standing(body["place"]), body["condition"], body["package_id"]
