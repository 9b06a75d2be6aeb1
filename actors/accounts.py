"""Accounts of people and their login sessions: a part of the custody line."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import structlog

from actors.passwords import Passwords, pause_after
from domain.bodies import Writing
from domain.changes import Event, EventType, Update
from domain.codes import Code
from domain.custody import (
    Act,
    ActKind,
    Denied,
    Founding,
    Login,
    NewPassword,
    Person,
    Proposal,
    Role,
    Session,
    checked_name,
    checked_password,
    checked_roles,
)
from domain.lines import LedgerDoor
from domain.places import Line
from ledger import people
from ledger.digests import digest_of
from ledger.people import FOUNDERS
from ledger.queries import Queries

log = structlog.get_logger()

LONGEST_TERMINAL = 80
MOST_STRANGERS = 10_000
"""Names that nobody has, as many as are remembered; each costs who tries it one argon2 hash."""


@dataclass(frozen=True)
class Settings:
    """`now` with time zone; a session ends after `idle` without use; `proof()` is what only the
    owner of the home can read; `new_token()` is 32 random bytes as text."""

    now: Callable[[], datetime]
    idle: timedelta
    proof: Callable[[], str]
    new_token: Callable[[], str]
    passwords: Passwords


class Accounts:
    """Not for two callers at once: the line takes turns."""

    def __init__(
        self, ledger: LedgerDoor, queries: Queries, prefix: str, settings: Settings
    ) -> None:
        self._ledger, self._queries, self._prefix = ledger, queries, prefix
        self._settings, self._passwords = settings, settings.passwords
        self._seen: dict[str, datetime] = {}
        """When a session was last used. After a restart: at its login, so that it never lasts
        longer than it should."""
        self._strangers: dict[str, Person] = {}
        """By the digest of the name, which may be a password typed in the wrong place."""
        self._refusals = 0

    # Sessions.

    async def who(self, token: str, *, any_password: bool = False) -> tuple[Session, Person]:
        """The open session of this token and its person; it is used now. Raises Denied, also
        while their password is one that somebody else typed, unless `any_password` will do."""
        session = people.session_of_token(self._queries, token_hash(token)) if token else None
        if session is None:
            raise Denied(Code.NOT_LOGGED_IN)
        person = people.person(self._queries, session.name)
        if session.until or person is None or person.state != "active":
            raise Denied(Code.SESSION_ENDED)
        if self._is_idle(session):
            await self.end([session], "idle")
            raise Denied(Code.SESSION_ENDED)
        self._seen[session.session] = self._settings.now()
        if person.password_to_change and not any_password:
            raise Denied(Code.PASSWORD_TO_CHANGE)
        return session, person

    def _is_idle(self, session: Session) -> bool:
        used = self._seen.get(session.session) or datetime.fromisoformat(session.since)
        return self._settings.now() - used >= self._settings.idle

    async def end_idle(self) -> None:
        if idle := [s for s in people.open_sessions(self._queries) if self._is_idle(s)]:
            await self.end(idle, "idle")

    async def end(self, sessions: list[Session], why: str) -> None:
        writing = Writing(Line.CUSTODY, f"end:{sessions[0].session}")
        self._end(writing, sessions, why)
        await self._ledger.commit(writing.changes())

    def _end(self, writing: Writing, sessions: Iterable[Session], why: str) -> None:
        at = self._at()
        for s in sessions:
            said = {"session": s.session, "name": s.name, "at": at, "why": why}
            writing.event(Event(EventType.LOGGED_OUT, data=said))
            row = {"session": s.session, "until": at, "expect_until": ""}
            writing.update(Update("login", ("session",), ("until",), ("until",), [row]))
            self._seen.pop(s.session, None)

    async def log_in(self, login: Login) -> tuple[str, Session]:
        """A new session and its token. After wrong passwords the name has to wait, longer each
        time (LOGIN_PAUSED): then not even the right one is looked at."""
        person = people.person(self._queries, login.name) or self._stranger(login.name)
        self._check_pause(person)
        credential = person.credential if person.state == "active" else ""
        if not await asyncio.to_thread(self._passwords.match, credential, login.password):
            await self._refuse(person, login.name)
            raise Denied(Code.LOGIN_REFUSED)
        token, at = self._settings.new_token(), self._at()
        number = people.sessions_so_far(self._queries) + 1
        terminal = "".join(c for c in login.terminal if c.isprintable())[:LONGEST_TERMINAL]
        session = Session(f"S{number:06d}", person.name, at, "", terminal)
        row = {**vars(session), "token": token_hash(token)}
        writing = Writing(Line.CUSTODY, f"login:{session.session}")
        said = {c: v for c, v in row.items() if c != "until"}
        writing.event(Event(EventType.LOGGED_IN, data=said))
        writing.insert("login", row)
        self._write(writing, person, failures=0, refused_at="")
        await self._ledger.commit(writing.changes())
        self._seen[session.session] = self._settings.now()
        log.info("session.opened", session=session.session)
        return token, session

    def _check_pause(self, person: Person) -> None:
        if not person.refused_at:
            return
        since = self._settings.now() - datetime.fromisoformat(person.refused_at)
        left = pause_after(person.failures) - since.total_seconds()
        if left > 0:
            raise Denied(Code.LOGIN_PAUSED, f"{left:.0f} s")

    def _stranger(self, name: str) -> Person:
        return self._strangers.get(digest_of([name])) or Person("", (), "unknown")

    async def _refuse(self, person: Person, typed: str) -> None:
        """A name that nobody has waits like any other, so that the pause does not tell which there
        are; it is not written down, and forgotten with this instance: it may be a password."""
        at, failures = self._at(), person.failures + 1
        self._refusals += 1
        writing = Writing(Line.CUSTODY, f"refused:{self._prefix}:{self._refusals}")
        writing.event(Event(EventType.LOGIN_REFUSED, data={"name": person.name, "at": at}))
        if person.name:
            self._write(writing, person, failures=failures, refused_at=at)
        else:
            if len(self._strangers) >= MOST_STRANGERS:
                del self._strangers[next(iter(self._strangers))]
            refused = replace(person, failures=failures, refused_at=at)
            self._strangers[digest_of([typed])] = refused
        await self._ledger.commit(writing.changes())
        log.warning("login.refused", failures=failures)

    # Accounts.

    async def found(self, founding: Founding) -> None:
        """The owner of the home adds a supervisor alone, while there are fewer than two. Whoever is
        added again with the same password is there already."""
        if not hmac.compare_digest(founding.proof.encode(), self._settings.proof().encode()):
            raise Denied(Code.NOT_THE_OWNER)
        there = people.person(self._queries, founding.name)
        if there is not None and self._passwords.match(there.credential, founding.password):
            return
        if people.has_founders(self._queries):
            raise Denied(Code.FOUNDED)
        name = self._new_name(founding.name)
        credential = self._passwords.hash(checked_password(founding.password))
        writing = Writing(Line.CUSTODY, f"found:{name}")
        writing.event(self._add(writing, name, [str(Role.SUPERVISOR)], credential, ""))
        await self._ledger.commit(writing.changes())
        log.info("person.founded")

    def _new_name(self, name: str) -> str:
        if people.person(self._queries, checked_name(name)) is not None:
            raise Denied(Code.PERSON_KNOWN)
        return name

    async def change_password(self, token: str, change: NewPassword) -> None:
        """By its owner, who knows the old one. Other sessions of theirs end. Asked again after it
        took effect it is done."""
        session, person = await self.who(token, any_password=True)
        self._check_pause(person)
        if not await asyncio.to_thread(self._passwords.match, person.credential, change.old):
            if self._passwords.match(person.credential, change.new):
                return
            await self._refuse(person, person.name)
            raise Denied(Code.LOGIN_REFUSED)
        if change.new == change.old:
            raise Denied(Code.PASSWORD_TO_CHANGE)
        credential = self._passwords.hash(checked_password(change.new))
        self._refusals += 1
        writing = Writing(Line.CUSTODY, f"password:{self._prefix}:{self._refusals}")
        others = [s for s in self._open(person.name) if s.session != session.session]
        said = {"session": session.session, "act_id": ""}
        writing.event(self._set_password(writing, person, credential, said))
        self._end(writing, others, "password")
        await self._ledger.commit(writing.changes())

    def _open(self, name: str) -> list[Session]:
        return people.open_sessions(self._queries, name)

    # Acts on people.

    async def plan(self, proposal: Proposal) -> tuple[dict[str, Any], dict[str, Any]]:
        """The content of a proposed act, and what is sealed until it is done. Raises Denied."""
        kind = proposal.kind
        if kind == ActKind.PEOPLE_ADD:
            self._new_name(proposal.subject)
        else:
            self._known(proposal.subject)
        content: dict[str, Any] = {}
        sealed: dict[str, Any] = {}
        if kind in (ActKind.PEOPLE_ADD, ActKind.PEOPLE_ROLES):
            content["roles"] = checked_roles(proposal.roles)
        if kind in (ActKind.PEOPLE_ADD, ActKind.PEOPLE_PASSWORD):
            password = checked_password(proposal.password)
            sealed["credential"] = await asyncio.to_thread(self._passwords.hash, password)
        if kind in (ActKind.PEOPLE_CLOSE, ActKind.PEOPLE_ROLES):
            self._check_supervisors_left(proposal.subject, content.get("roles", []))
        return content, sealed

    def same_password(self, act: Act, password: str) -> bool:
        """Whether a proposal that comes again has the password of its act, while that waits."""
        credential = act.sealed.get("credential")
        return credential is None or self._passwords.match(credential, password)

    def _known(self, name: str) -> Person:
        person = people.person(self._queries, name)
        if person is None or person.state != "active":
            raise Denied(Code.PERSON_UNKNOWN)
        return person

    def _check_supervisors_left(self, name: str, roles: list[str]) -> None:
        """Two are needed for whatever comes next."""
        left = {
            p.name
            for p in people.people(self._queries)
            if p.state == "active" and p.name != name and Role.SUPERVISOR in p.roles
        }
        if len(left) + (Role.SUPERVISOR in roles) < FOUNDERS:
            raise Denied(Code.TOO_FEW_SUPERVISORS)

    def do(self, act: Act, writing: Writing) -> list[Event]:
        """The rows of a confirmed act, put into `writing`; answers its events. Raises Denied if
        things have changed since it was proposed."""
        name, roles, act_id = act.subject, list(act.content.get("roles", [])), act.act_id
        if act.kind == ActKind.PEOPLE_ADD:
            credential = act.sealed["credential"]
            return [self._add(writing, self._new_name(name), roles, credential, act_id)]
        person = self._known(name)
        if act.kind == ActKind.PEOPLE_PASSWORD:
            said = {"session": "", "act_id": act_id}
            return [self._set_password(writing, person, act.sealed["credential"], said)]
        self._check_supervisors_left(name, roles)
        if act.kind == ActKind.PEOPLE_ROLES:
            self._write(writing, person, roles=" ".join(roles))
            changed = {"name": name, "roles": roles, "act_id": act_id}
            return [Event(EventType.ROLES_CHANGED, data=changed)]
        self._write(writing, person, state="closed", credential="")
        return [Event(EventType.PERSON_CLOSED, data={"name": name, "act_id": act_id})]

    def end_sessions_of(self, act: Act, writing: Writing) -> None:
        """Whoever was closed, or got another password, is not logged in any more."""
        if act.kind in (ActKind.PEOPLE_CLOSE, ActKind.PEOPLE_PASSWORD):
            self._end(writing, self._open(act.subject), act.kind.partition(".")[2])

    def _add(
        self, writing: Writing, name: str, roles: list[str], credential: str, act_id: str
    ) -> Event:
        row = {
            "name": name, "roles": " ".join(roles), "credential": credential, "state": "active",
            "failures": 0, "refused_at": "", "password_to_change": 1,
        }  # fmt: skip
        writing.insert("person", row)
        said = {"name": name, "roles": roles, "credential": digest_of([credential])}
        return Event(EventType.PERSON_ADDED, data={**said, "act_id": act_id})

    def _set_password(
        self, writing: Writing, person: Person, credential: str, said: Mapping[str, str]
    ) -> Event:
        to_change = int(bool(said["act_id"]))  # typed beside a supervisor
        self._write(
            writing, person, credential=credential, failures=0, refused_at="",
            password_to_change=to_change,
        )  # fmt: skip
        data = {"name": person.name, "credential": digest_of([credential]), **said}
        return Event(EventType.PASSWORD_CHANGED, data=data)

    def _write(self, writing: Writing, person: Person, **changed: Any) -> None:
        row = {"name": person.name, **changed, "expect_state": person.state}
        writing.update(Update("person", ("name",), tuple(changed), ("state",), [row]))

    def _at(self) -> str:
        return self._settings.now().isoformat(timespec="milliseconds")


def token_hash(token: str) -> str:
    """By which the ledger knows a session's token: 32 random bytes need no more."""
    return hashlib.sha256(token.encode()).hexdigest()
