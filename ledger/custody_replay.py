"""The meaning of the events of the custody line: nobody acts alone, nobody acts without an open
session, keys go from state to state as they may, and accounts are what the events say.

Pure, and part of `ledger.replay`. The line is one stream, so its order is the order of things.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from domain.changes import EventType, canonical_json
from domain.custody import (
    APART,
    COMPONENTS,
    DESTROYED,
    KEY_STEPS,
    ActKind,
    ActState,
    Role,
    role_of,
)
from domain.provider import KnownKey
from ledger.digests import digest_of
from ledger.faults import Fault
from ledger.people import FOUNDERS, STATE_AFTER

Data = Mapping[str, Any]
Fail = Callable[[str, str], Fault]
"""Makes the Fault of the event at hand out of its words, Chinese and English."""

EFFECTS: Mapping[str, frozenset[str]] = {
    kind: frozenset(events)
    for kinds, events in (
        (COMPONENTS, [EventType.KEY_STAGED, EventType.KEY_RESTORED]),
        ([ActKind.KEY_ACTIVATE], [EventType.KEY_ACTIVATED, EventType.KEY_RETIRED]),
        ([ActKind.KEY_ACCEPT_TEMPORARY], [EventType.KEY_STAGED, EventType.KEY_ACTIVATED]),
        ([ActKind.KEY_RETIRE], [EventType.KEY_RETIRED]),
        ([ActKind.KEY_DESTROY], [EventType.KEY_DESTROYED]),
        ([ActKind.KEY_EXPORT], [EventType.KEY_EXPORTED]),
        ([ActKind.KEY_RESTORE], [EventType.KEY_RESTORED]),
        ([ActKind.PEOPLE_ADD], [EventType.PERSON_ADDED]),
        ([ActKind.PEOPLE_ROLES], [EventType.ROLES_CHANGED]),
        ([ActKind.PEOPLE_CLOSE], [EventType.PERSON_CLOSED]),
        ([ActKind.PEOPLE_PASSWORD], [EventType.PASSWORD_CHANGED]),
    )
    for kind in kinds
}
"""What an act does, in the commit of its ACT_DONE; nothing else, and no other step of it does."""


@dataclass(frozen=True)
class _Person:
    roles: tuple[str, ...]
    credential: str
    state: str = "active"
    failures: int = 0
    refused_at: str = ""
    password_to_change: int = 1


@dataclass
class CustodyReplay:
    """People, sessions, acts and keys after the events so far."""

    people: dict[str, _Person] = field(default_factory=dict)
    logins: dict[str, dict[str, Any]] = field(default_factory=dict)
    acts: dict[str, dict[str, Any]] = field(default_factory=dict)
    keys: dict[str, KnownKey] = field(default_factory=dict)
    _step: tuple[str, str] = ("", "")
    """Event type and act of the last step of an act in this commit."""
    _due: set[tuple[str, str]] = field(default_factory=set)
    """Effects (event type, key or person) that this step must still bring."""
    _leaves: dict[str, str] = field(default_factory=dict)
    """People whose sessions end with this commit, all but one ("": all)."""

    def begin(self) -> None:
        """A commit begins."""
        self._step, self._due, self._leaves = ("", ""), set(), {}

    def end(self, fail: Fail) -> None:
        """A commit has ended: what an act said it would do, it did, whoever is closed has no
        session, and whoever has another password none but that in which they changed it."""
        if self._due:
            raise fail("事项未全部执行", "an act did less than it said")
        for login in self.logins.values():
            if not login["until"] and self.people[login["name"]].state != "active":
                raise fail("已停用人员仍在登录", "a closed person is still logged in")
            if not login["until"] and login["session"] != self._leaves.get(
                login["name"], login["session"]
            ):
                raise fail("改密码后仍在登录", "a session outlived the change of its password")

    def apply(self, event_type: str, data: Data, fail: Fail) -> None:
        """One event of the line. Raises what `fail` makes."""
        if event_type in _ACTS:
            self._act(event_type, data, fail)
        elif event_type in _KEYS:
            self._effect(event_type, data["label"], data, fail)
            self._key(event_type, data, fail)
        elif event_type in _SESSIONS:
            self._session(event_type, data, fail)
        elif event_type in _PEOPLE:
            self._person(event_type, data, fail)
        else:
            raise fail("非保管线事件", "no event of the custody line")

    # Sessions.

    def _session(self, event_type: str, data: Data, fail: Fail) -> None:
        person = self.people.get(data["name"])
        if event_type == EventType.LOGIN_REFUSED:
            if person is not None:
                self.people[data["name"]] = replace(
                    person, failures=person.failures + 1, refused_at=data["at"]
                )
            elif data["name"]:
                raise fail("无此人员", "no such person")
        elif event_type == EventType.LOGGED_IN:
            if person is None or person.state != "active" or data["session"] in self.logins:
                raise fail("登录无效", "nobody can have logged in so")
            self.people[data["name"]] = replace(person, failures=0, refused_at="")
            self.logins[data["session"]] = {**data, "until": ""}
        else:
            self._check_open(data["name"], data["session"], fail)
            self.logins[data["session"]]["until"] = data["at"]

    def _check_open(self, name: str, session: str, fail: Fail) -> None:
        login = self.logins.get(session)
        if login is None or login["until"] or login["name"] != name:
            raise fail("无有效登录", "no session of this person was open")

    def _check_may(self, data: Data, kind: str, fail: Fail) -> None:
        self._check_open(data["person"], data["session"], fail)
        if self.people[data["person"]].password_to_change:
            raise fail("密码未经本人更改", "the password was one that another had typed")
        if role_of(kind) not in self.people[data["person"]].roles:
            raise fail("无此权限", "not in the roles of this person")

    # Acts.

    def _act(self, event_type: str, data: Data, fail: Fail) -> None:
        act_id = data["act_id"]
        act = self.acts.get(act_id)
        if event_type == EventType.ACT_PROPOSED:
            if act is not None:
                raise fail("事项重复", "an act is proposed twice")
            act = self._propose(data)
            self._check_may(data, act["kind"], fail)
        elif act is None:
            raise fail("事项未提出", "the act was never proposed")
        elif event_type == EventType.ACT_CONFIRMED:
            self._check_may(data, act["kind"], fail)
            if data["person"] == act["proposed_by"] or data["session"] == act["proposed_in"]:
                raise fail("由同一人确认", "confirmed by whoever proposed it")
            proposer = self.people[act["proposed_by"]]
            if proposer.state != "active" or role_of(act["kind"]) not in proposer.roles:
                raise fail("提出人已无此权限", "whoever proposed it has the role no more")
            self._advance(act, ActState.PROPOSED, ActState.CONFIRMED, fail)
            act["confirmed_by"], act["confirmed_in"] = data["person"], data["session"]
            act["sealed"] = data["sealed"]
        elif event_type == EventType.ACT_WITHDRAWN:
            self._check_may(data, act["kind"], fail)
            self._advance(act, ActState.PROPOSED, ActState.WITHDRAWN, fail)
        elif event_type == EventType.ACT_REFUSED:
            self._advance(act, ActState.CONFIRMED, ActState.REFUSED, fail)
            act["result"] = {c: data[c] for c in ("code", "reason")}
        else:
            self._advance(act, ActState.CONFIRMED, ActState.DONE, fail)
            act["result"] = data["result"]
        if act["state"] not in (ActState.PROPOSED, ActState.CONFIRMED):
            act["sealed"] = ""
        if self._due:
            raise fail("事项未全部执行", "an act did less than it said")
        self._step = event_type, act_id
        self._due = _effects_of(event_type, act)

    def _propose(self, data: Data) -> dict[str, Any]:
        act = {
            **{c: data[c] for c in ("kind", "subject", "content", "sealed")},
            "proposed_by": data["person"], "proposed_in": data["session"],
            "confirmed_by": "", "confirmed_in": "", "state": ActState.PROPOSED, "result": {},
        }  # fmt: skip
        self.acts[data["act_id"]] = act
        return act

    def _advance(self, act: dict[str, Any], before: ActState, after: ActState, fail: Fail) -> None:
        if act["state"] != before:
            raise fail("事项状态不符", "the act is not in that state")
        act["state"] = after

    def _effect(self, event_type: str, subject: str, data: Data, fail: Fail) -> None:
        """What happens to a key or a person is what the act of this commit says."""
        step, act_id = self._step
        act = self.acts.get(act_id, {"kind": ""})
        allowed = EFFECTS.get(act["kind"], frozenset()) if step == EventType.ACT_DONE else ()
        if data["act_id"] != act_id or event_type not in allowed:
            raise fail("无对应事项", "no act of two people says so")
        if (event_type, subject) not in self._due:
            raise fail("事项未提及", "the act does not name it")
        self._due.discard((event_type, subject))

    def _key(self, event_type: str, data: Data, fail: Fail) -> None:
        label, value = data["label"], data.get("check_value", "")
        before, known = self.keys.get(label, KnownKey("", ""))
        after = STATE_AFTER.get(event_type) or data.get("state", before)
        if event_type == EventType.KEY_RESTORED:
            if self.acts[data["act_id"]]["kind"] == ActKind.KEY_RESTORE:
                self._restored(label, before, known, data, fail)
            elif before in ("", DESTROYED) or (after, value) != (before, known):
                raise fail("密钥与丢失前不符", "a lost key came back as another one")
        else:
            if event_type in _SAME_KEY and value != known:
                raise fail("密钥校验值不符", "the key under this label became another one")
            if event_type == EventType.KEY_EXPORTED:
                if before not in ("active", "retired"):
                    raise fail("密钥状态不符", "exported in another state")
            elif (before, after) not in KEY_STEPS:
                words = f"a key does not go from {before or 'nothing'} to {after}"
                raise fail("密钥状态不符", words)
        self.keys[label] = KnownKey(after, value or known)

    def _restored(self, label: str, before: str, known: str, data: Data, fail: Fail) -> None:
        """A key comes back as both people read it, and as it was: nothing that was destroyed, and
        no second active version."""
        said = {c: data[c] for c in ("state", "check_value")}
        if self.acts[data["act_id"]]["content"]["keys"][label] != said:
            raise fail("恢复内容与事项不符", "restored otherwise than the act says")
        if known not in ("", data["check_value"]):
            raise fail("密钥校验值不符", "another key came back under this label")
        if before not in ("", data["state"]):
            raise fail("密钥状态不符", f"a key that is {before} does not come back {data['state']}")
        key = label.rpartition(":v")[0]
        others = (
            known.state
            for k, known in self.keys.items()
            if k != label and k.rpartition(":v")[0] == key
        )
        if data["state"] == "active" and "active" in others:
            raise fail("两个版本同时启用", "two versions of a key are active")

    # People.

    def _person(self, event_type: str, data: Data, fail: Fail) -> None:
        name = data["name"]
        person = self.people.get(name)
        if data["act_id"]:
            self._effect(event_type, name, data, fail)
        elif event_type == EventType.PERSON_ADDED:
            if list(data["roles"]) != [Role.SUPERVISOR] or self._supervisors() >= FOUNDERS:
                raise fail("所有者无权增加", "the owner alone adds two supervisors, nobody else")
        elif event_type == EventType.PASSWORD_CHANGED:
            self._check_open(name, data["session"], fail)
        else:
            raise fail("无对应事项", "no act of two people says so")
        if (person is None) != (event_type == EventType.PERSON_ADDED):
            raise fail("人员状态不符", "this person is there already, or is not")
        if set(data.get("roles", ())) >= APART:
            raise fail("角色不得兼任", "nobody is supervisor and key custodian")
        if event_type == EventType.PERSON_ADDED:
            self.people[name] = _Person(tuple(data["roles"]), data["credential"])
            return
        assert person is not None
        if event_type == EventType.PASSWORD_CHANGED:
            self._leaves[name] = data["session"]
            changed: dict[str, Any] = {
                "credential": data["credential"], "failures": 0, "refused_at": "",
                "password_to_change": int(bool(data["act_id"])),
            }  # fmt: skip
        elif event_type == EventType.ROLES_CHANGED:
            changed = {"roles": tuple(data["roles"])}
        else:
            changed = {"state": "closed", "credential": ""}
        self.people[name] = replace(person, **changed)

    def _supervisors(self) -> int:
        active = (p for p in self.people.values() if p.state == "active")
        return sum(Role.SUPERVISOR in p.roles for p in active)

    # What the tables must hold; of what is sealed, the digest.

    def person_rows(self) -> dict[tuple[str, ...], dict[str, Any]]:
        return {(n,): {**vars(p), "roles": " ".join(p.roles)} for n, p in self.people.items()}

    def login_rows(self) -> dict[tuple[str, ...], dict[str, Any]]:
        columns = ("token", "name", "since", "until", "terminal")
        return {(s,): {c: row[c] for c in columns} for s, row in self.logins.items()}

    def act_rows(self) -> dict[tuple[str, ...], dict[str, Any]]:
        return {
            (act_id,): {**a, "state": str(a["state"]), **{c: _text(a[c]) for c in _JSON}}
            for act_id, a in self.acts.items()
        }


_JSON = ("content", "result")
_ACTS = frozenset(
    {
        EventType.ACT_PROPOSED, EventType.ACT_CONFIRMED, EventType.ACT_DONE,
        EventType.ACT_REFUSED, EventType.ACT_WITHDRAWN,
    }
)  # fmt: skip
_KEYS = frozenset({*STATE_AFTER, EventType.KEY_EXPORTED, EventType.KEY_RESTORED})
_SESSIONS = frozenset({EventType.LOGGED_IN, EventType.LOGIN_REFUSED, EventType.LOGGED_OUT})
_PEOPLE = frozenset(
    {
        EventType.PERSON_ADDED, EventType.ROLES_CHANGED, EventType.PASSWORD_CHANGED,
        EventType.PERSON_CLOSED,
    }
)  # fmt: skip
_SAME_KEY = frozenset(
    {EventType.KEY_ACTIVATED, EventType.KEY_RETIRED, EventType.KEY_EXPORTED}
)  # fmt: skip
"""Events of a key that is there already, and say its check value again."""
EVENTS = _ACTS | _KEYS | _SESSIONS | _PEOPLE
"""All events of the line."""


def _effects_of(event_type: str, act: Mapping[str, Any]) -> set[tuple[str, str]]:
    """What the step of an act must bring in its commit: event types with the key or person."""
    if event_type != EventType.ACT_DONE:
        return set()
    kind, content = act["kind"], act["content"]
    if kind.startswith("people."):
        return {(effect, act["subject"]) for effect in EFFECTS[kind]}
    if kind == ActKind.KEY_RESTORE:
        return {(EventType.KEY_RESTORED, label) for label in content["keys"]}
    due: set[tuple[str, str]] = set()
    for effect in EFFECTS.get(kind, frozenset()):
        named = content["labels"]
        if kind in COMPONENTS:  # what was lost comes back, anything else is new
            named = named if (effect == EventType.KEY_RESTORED) == bool(content["lost"]) else {}
        elif kind == ActKind.KEY_ACTIVATE and effect == EventType.KEY_RETIRED:
            named = content["retires"]
        due |= {(effect, label) for label in named.values()}
    return due


def _text(value: Mapping[str, Any]) -> str:
    return canonical_json(value).decode() if value else ""


def as_said(table: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as the events speak of it: the digest of what is sealed."""
    column = {"person": "credential", "act": "sealed"}.get(table)
    if column is None or not row[column]:
        return dict(row)
    sealed = row[column] if table == "person" else json.loads(row[column])
    return {**row, column: digest_of([sealed])}
