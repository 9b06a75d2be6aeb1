"""What the ledger knows of people, their sessions, acts and the states of keys."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from domain.changes import EventType
from domain.custody import DESTROYED, Act, ActState, Person, Role, Session
from domain.places import Line
from domain.provider import KeyState, KnownKey
from ledger.connection import as_json
from ledger.queries import Queries

STATE_AFTER: Mapping[str, str] = {
    EventType.KEY_STAGED: KeyState.STAGED,
    EventType.KEY_ACTIVATED: KeyState.ACTIVE,
    EventType.KEY_RETIRED: KeyState.RETIRED,
    EventType.KEY_DESTROYED: DESTROYED,
}
"""KEY_RESTORED says its state itself."""
FOUNDERS = 2
"""Supervisors; from then on whatever concerns people is an act of two of them."""


def _person(row: Mapping[str, Any]) -> Person:
    to_change = bool(row["password_to_change"])
    return Person(**{**row, "roles": tuple(row["roles"].split()), "password_to_change": to_change})


def person(queries: Queries, name: str) -> Person | None:
    row = queries.one("select * from person where name = ?", name)
    return _person(row) if row else None


def people(queries: Queries) -> list[Person]:
    return [_person(r) for r in queries.rows("select * from person order by name")]


def has_founders(queries: Queries) -> bool:
    """Whether there are enough supervisors that the owner of the home adds nobody any more."""
    supervisors = [p for p in people(queries) if p.state == "active" and Role.SUPERVISOR in p.roles]
    return len(supervisors) >= FOUNDERS


def _session(row: Mapping[str, Any]) -> Session:
    return Session(**{c: v for c, v in row.items() if c != "token"})


def session_of_token(queries: Queries, token_hash: str) -> Session | None:
    row = queries.one("select * from login where token = ?", token_hash)
    return _session(row) if row else None


def open_sessions(queries: Queries, name: str = "") -> list[Session]:
    """Sessions that did not end, of everybody or of `name`."""
    return [
        _session(r)
        for r in queries.rows(
            "select * from login where until = '' and ? in ('', name) order by session", name
        )
    ]


def last_terminals(queries: Queries, role: Role) -> dict[str, str]:
    """Where each active person of this role logged in last, as their command said; "": never."""
    rows = queries.rows(
        "select p.name, p.roles, (select terminal from login l where l.name = p.name"
        " order by session desc limit 1) as terminal from person p where p.state = 'active'"
    )
    return {r["name"]: r["terminal"] or "" for r in rows if role in r["roles"].split()}


def sessions_so_far(queries: Queries) -> int:
    return _count(queries, "login")


def acts_so_far(queries: Queries) -> int:
    return _count(queries, "act")


def _count(queries: Queries, table: str) -> int:
    found = queries.one(f"select count(*) as n from {table}")
    return int(found["n"]) if found else 0


def _act(row: Mapping[str, Any]) -> Act:
    texts = {c: json.loads(row[c] or "{}") for c in ("content", "result", "sealed")}
    return Act(**{**row, **texts})


def act(queries: Queries, act_id: str) -> Act | None:
    row = queries.one("select * from act where act_id = ?", act_id)
    return _act(row) if row else None


def acts(queries: Queries, *states: ActState) -> list[Act]:
    """Acts in one of these states, or all of them, oldest first."""
    wanted = as_json([str(s) for s in states or tuple(ActState)])
    sql = "select * from act where state in (select value from json_each(?)) order by act_id"
    return [_act(r) for r in queries.rows(sql, wanted)]


def known_keys(queries: Queries) -> dict[str, KnownKey]:
    """Every key that people have had to do with, by label, as the events say."""
    wanted = as_json([*(str(e) for e in STATE_AFTER), str(EventType.KEY_RESTORED)])
    keys: dict[str, KnownKey] = {}
    for row in queries.rows(
        "select type, data from event where line = ? and type in"
        " (select value from json_each(?)) order by id",
        Line.CUSTODY, wanted,
    ):  # fmt: skip
        data = json.loads(row["data"])
        state = str(STATE_AFTER.get(row["type"]) or data["state"])
        keys[data["label"]] = KnownKey(state, data.get("check_value", ""))
    return keys


def key_states(queries: Queries) -> dict[str, str]:
    """The state of each of these keys, by label."""
    return {label: key.state for label, key in known_keys(queries).items()}
