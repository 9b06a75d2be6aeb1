"""The custody line: people, their login sessions, and acts that take two of them.

An act is written down when it is proposed, again when another person confirms it, and only then
done; what was confirmed and not done when the line died is finished by `step`. Everything is an
event of this line's stream, so `centre verify` replays that nobody acted alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from functools import wraps
from typing import Any, Concatenate, ParamSpec

import structlog

from actors import acts
from actors.accounts import Accounts, Settings
from actors.acts import Outcome, Plan
from actors.ceremonies import Ceremonies
from actors.floor_acts import FloorActs
from domain.bodies import Writing
from domain.changes import Away, Event, EventType, Refused
from domain.codes import Code
from domain.custody import (
    COMPONENTS,
    FLOOR,
    Act,
    ActKind,
    ActState,
    Answered,
    Confirmation,
    Denied,
    Founding,
    KeyLine,
    Login,
    NewPassword,
    Person,
    Proposal,
    Session,
    role_of,
)
from domain.lines import KeyCustodian, LedgerDoor, Receipt
from domain.places import Line
from domain.provider import KeyRefused
from ledger import people
from ledger.queries import Queries

log = structlog.get_logger()
P = ParamSpec("P")

OPEN = (ActState.PROPOSED, ActState.CONFIRMED)


def command(
    method: Callable[Concatenate[Custody, P], Coroutine[Any, Any, Answered]],
) -> Callable[Concatenate[Custody, P], Coroutine[Any, Any, Answered]]:
    """One at a time; what is denied is answered by its receipt."""

    @wraps(method)
    async def one(self: Custody, /, *args: P.args, **kwargs: P.kwargs) -> Answered:
        async with self._one_at_a_time:
            try:
                return await method(self, *args, **kwargs)
            except Denied as e:
                return Answered(e.receipt)
            except KeyRefused as e:
                return Answered(Denied(Code(e.code), e.reason).receipt)

    return one


class Custody:
    """The line itself: `domain.custody.CustodyLine`."""

    def __init__(
        self,
        ledger: LedgerDoor,
        queries: Queries,
        keys: KeyCustodian,
        ceremonies: Ceremonies,
        floor: FloorActs,
        prefix: str,
        settings: Settings,
    ) -> None:
        """`prefix` is this instance's own: of commands that come from no person."""
        self._ledger, self._queries, self._keys = ledger, queries, keys
        self._accounts = Accounts(ledger, queries, prefix, settings)
        self._ceremonies, self._floor = ceremonies, floor
        self._one_at_a_time = asyncio.Lock()

    @command
    async def found(self, founding: Founding) -> Answered:
        await self._accounts.found(founding)
        return Answered(Receipt(True))

    @command
    async def log_in(self, login: Login) -> Answered:
        token, session = await self._accounts.log_in(login)
        return Answered(Receipt(True), token=token, sessions=(session,))

    @command
    async def log_out(self, token: str) -> Answered:
        session, _ = await self._accounts.who(token, any_password=True)
        await self._accounts.end([session], "logout")
        return Answered(Receipt(True))

    @command
    async def who(self, token: str) -> Answered:
        session, person = await self._accounts.who(token, any_password=True)
        return Answered(Receipt(True), sessions=(session,), people=(_shown(person),))

    @command
    async def change_password(self, token: str, change: NewPassword) -> Answered:
        await self._accounts.change_password(token, change)
        return Answered(Receipt(True))

    @command
    async def list_people(self, token: str) -> Answered:
        await self._accounts.who(token)
        everybody = tuple(_shown(p) for p in people.people(self._queries))
        return Answered(
            Receipt(True), people=everybody, sessions=tuple(people.open_sessions(self._queries))
        )

    @command
    async def list_acts(self, token: str, act_id: str, everything: bool) -> Answered:
        await self._accounts.who(token)
        if act_id:
            return Answered(Receipt(True), acts=(acts.readable(self._act(act_id)),))
        found = people.acts(self._queries, *(() if everything else OPEN))
        return Answered(Receipt(True), acts=tuple(acts.readable(a) for a in found))

    @command
    async def list_keys(self, token: str) -> Answered:
        await self._accounts.who(token)
        entries = await self._keys.inventory()
        bodies = self._ceremonies.dependents([e.label for e in entries])
        lines = tuple(KeyLine(**vars(e), dependents=bodies.get(e.label, 0)) for e in entries)
        return Answered(Receipt(True), keys=lines)

    @command
    async def next_keys(self, token: str, proposal: Proposal) -> Answered:
        await self._accounts.who(token)
        return Answered(Receipt(True), keys=await self._ceremonies.next_keys(proposal))

    @command
    async def propose(self, token: str, proposal: Proposal) -> Answered:
        """Write an act down. The same command again is answered by the same act."""
        session, person = await self._accounts.who(token)
        if proposal.kind not in {str(k) for k in ActKind}:
            raise Denied(Code.BAD_FORMAT, "kind")
        _check_role(person, proposal.kind)
        command_id = f"propose:{person.name}:{proposal.command_id}"
        known = self._queries.reply(Line.CUSTODY, command_id)
        if known is not None:
            act = self._act(known["act_id"])
            asked_again = known["payload"] == acts.payload(proposal)
            if not (asked_again and self._accounts.same_password(act, proposal.password)):
                raise Denied(Code.COMMAND_DIFFERS, "command_id")
            return Answered(Receipt(True, repeated=True), acts=(acts.readable(act),))
        self._check_alone(proposal)
        act_id = f"A{people.acts_so_far(self._queries) + 1:06d}"
        plan = await self._plan(proposal)
        act = Act(
            act_id, proposal.kind, proposal.subject, plan.content, person.name, session.session,
            sealed=plan.sealed,
        )  # fmt: skip
        writing = Writing(Line.CUSTODY, command_id)
        writing.reply = {"act_id": act_id, "payload": acts.payload(proposal)}
        said = {
            **{c: getattr(act, c) for c in ("act_id", "kind", "subject", "content")},
            "person": person.name,
            "session": session.session,
            "sealed": acts.digest(act.sealed),
        }
        writing.event(Event(EventType.ACT_PROPOSED, data=said))
        writing.insert("act", acts.row(act))
        await self._ledger.commit(writing.changes())
        log.info("act.proposed", act_id=act_id, kind=act.kind)
        return Answered(Receipt(True), acts=(acts.readable(act),))

    def _check_alone(self, proposal: Proposal) -> None:
        """One act about a thing at a time, whatever its kind: the second would be confirmed for
        what the first is about to change."""
        for act in people.acts(self._queries, *OPEN):
            if ActKind.KEY_RESTORE in (both := {act.kind, proposal.kind}) and all(
                kind.startswith("key.") for kind in both
            ):
                # What comes back is decided from the states of now, of whatever keys.
                raise Denied(Code.ACT_OPEN, act.act_id)
            if acts.thing(act.kind, act.subject) == acts.thing(proposal.kind, proposal.subject):
                raise Denied(Code.ACT_OPEN, act.act_id)

    async def _plan(self, proposal: Proposal) -> Plan:
        if proposal.kind.startswith("people."):
            return Plan(*await self._accounts.plan(proposal))
        return await self._of(proposal.kind).plan(proposal)

    def _of(self, kind: str) -> Ceremonies | FloorActs:
        """Who knows what an act on something else than people needs and does."""
        return self._ceremonies if kind.startswith("key.") else self._floor

    @command
    async def confirm(self, token: str, confirmation: Confirmation) -> Answered:
        """Confirm another's act, and have it done. Repeated by the same person it is answered as
        the act stands by now. While the provider is away, or the disk full, it stays
        confirmed, and is finished later by itself."""
        session, person = await self._accounts.who(token)
        act = self._act(confirmation.act_id)
        if act.confirmed_by == person.name and act.state != ActState.WITHDRAWN:
            return acts.answer(act, repeated=True)
        await self._check_confirmable(act, session, person)
        sealed, values = await self._second_half(act, confirmation)
        confirmed = replace(
            act, state=ActState.CONFIRMED, sealed=sealed,
            confirmed_by=person.name, confirmed_in=session.session,
        )  # fmt: skip
        writing = Writing(Line.CUSTODY, f"confirm:{act.act_id}")
        said = {
            "act_id": act.act_id, "person": person.name, "session": session.session,
            "sealed": acts.digest(sealed), "parts": values,
        }  # fmt: skip
        writing.event(Event(EventType.ACT_CONFIRMED, data=said))
        acts.change(writing, act, confirmed)
        await self._ledger.commit(writing.changes())
        log.info("act.confirmed", act_id=act.act_id, kind=act.kind)
        try:
            return acts.answer(await self._finish(confirmed))
        except (Away, OSError) as e:
            log.error("act.waits", act_id=act.act_id, kind=act.kind, error=_named(e))
            return acts.answer(confirmed)

    async def _check_confirmable(self, act: Act, session: Session, person: Person) -> None:
        _check_role(person, act.kind)
        if act.state != ActState.PROPOSED:
            raise Denied(Code.ACT_NOT_OPEN, act.state)
        if act.proposed_by == person.name or act.proposed_in == session.session:
            raise Denied(Code.SAME_PERSON)
        proposer = people.person(self._queries, act.proposed_by)
        if (
            proposer is None
            or proposer.state != "active"
            or role_of(act.kind) not in (proposer.roles)
        ):
            raise Denied(Code.ACT_NOT_OPEN, act.proposed_by)
        if not act.kind.startswith("people."):
            await self._of(act.kind).check_current(act)

    async def _second_half(
        self, act: Act, confirmation: Confirmation
    ) -> tuple[Mapping[str, Any], Mapping[str, str]]:
        """What is sealed after the second person has brought theirs, and its check values."""
        if act.kind == ActKind.KEY_ACCEPT_TEMPORARY:
            letter = {usage: v.upper() for usage, v in confirmation.check_values.items()}
            wrong = sorted(
                usage for usage, v in act.content["check_values"].items() if letter.get(usage) != v
            )
            if wrong or letter.keys() - act.content["check_values"].keys():
                raise Denied(Code.KEY_CHECK_VALUE_DIFFERS, ", ".join(wrong))
        if act.kind in FLOOR:
            self._floor.check_second(act, confirmation)
        if act.kind not in COMPONENTS:
            return act.sealed, {}
        values = await self._ceremonies.part_values(
            act.content["labels"], act.content["suite"], 2, confirmation.parts
        )
        if any(values[usage] == value for usage, value in act.content["parts"].items()):
            raise Denied(Code.KEY_WEAK)
        second = {usage: part.hex() for usage, part in confirmation.parts.items()}
        return {"parts": [*act.sealed["parts"], second]}, values

    async def _finish(self, act: Act) -> Act:
        """Do what was confirmed, once: every part of it may be asked again."""
        writing = Writing(Line.CUSTODY, f"done:{act.act_id}")
        try:
            if act.kind.startswith("people."):
                outcome = Outcome({}, tuple(self._accounts.do(act, writing)))
            else:
                outcome = await self._of(act.kind).do(act)
        except (Denied, KeyRefused) as e:
            code, detail = e.args
            return await self._end(act, ActState.REFUSED, {"code": str(code), "reason": detail})
        done = replace(act, state=ActState.DONE, result=outcome.result, sealed={})
        data = {"act_id": act.act_id, "result": outcome.result}
        writing.event(Event(EventType.ACT_DONE, data=data))
        for event in outcome.events:
            writing.event(event)
        self._accounts.end_sessions_of(act, writing)
        acts.change(writing, act, done)
        await self._ledger.commit(writing.changes())
        log.info("act.done", act_id=act.act_id, kind=act.kind)
        return done

    @command
    async def withdraw(self, token: str, act_id: str) -> Answered:
        """Take back an act that nobody has confirmed: whoever proposed it, or anybody of its
        role."""
        session, person = await self._accounts.who(token)
        act = self._act(act_id)
        _check_role(person, act.kind)
        if act.state != ActState.PROPOSED:
            raise Denied(Code.ACT_NOT_OPEN, act.state)
        said = {"person": person.name, "session": session.session}
        return acts.answer(await self._end(act, ActState.WITHDRAWN, said))

    async def _end(self, act: Act, state: ActState, said: Mapping[str, Any]) -> Act:
        """An act comes to nothing."""
        event = {
            ActState.REFUSED: EventType.ACT_REFUSED, ActState.WITHDRAWN: EventType.ACT_WITHDRAWN,
        }[state]  # fmt: skip
        result = said if state is ActState.REFUSED else {}
        ended = replace(act, state=state, result=result, sealed={})
        writing = Writing(Line.CUSTODY, f"{state}:{act.act_id}")
        writing.event(Event(event, data={"act_id": act.act_id, **said}))
        acts.change(writing, act, ended)
        await self._ledger.commit(writing.changes())
        log.info(f"act.{state}", act_id=act.act_id, kind=act.kind)
        return ended

    async def step(self) -> bool:
        """Finish what was confirmed before a crash, and end sessions that nobody uses. An act
        that fails, whatever it is over, is tried again next time and keeps no other one back."""
        async with self._one_at_a_time:
            await self._accounts.end_idle()
            for act in people.acts(self._queries, ActState.CONFIRMED):
                try:
                    await self._finish(act)
                except Exception as e:  # noqa: BLE001  # one act holds up no other
                    log.error("act.waits", act_id=act.act_id, kind=act.kind, error=_named(e))
        return False

    def _act(self, act_id: str) -> Act:
        act = people.act(self._queries, act_id)
        if act is None:
            raise Denied(Code.ACT_UNKNOWN)
        return act


def _named(error: Exception) -> str:
    """What went wrong; the words of one that nobody expected may quote what was asked."""
    known = isinstance(error, Away | Refused | OSError)
    return f"{type(error).__name__}: {error}" if known else type(error).__name__


def _check_role(person: Person, kind: str) -> None:
    if role_of(kind) not in person.roles:
        raise Denied(Code.ROLE_MISSING, str(role_of(kind)))


def _shown(person: Person) -> Person:
    return replace(person, credential="")
