"""The door of people with accounts: login sessions and acts of two people."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import grpc
import structlog
from structlog.contextvars import bind_contextvars

from domain import custody
from domain.codes import Code
from domain.custody import Answered, CustodyLine, Denied
from domain.factory_return import FACE, index_text
from domain.numbers import kinds_of_number
from gateways.answers import answering, receipt_to_wire
from stubs import custody_pb2 as pb
from stubs.custody_pb2_grpc import CustodyServicer

log = structlog.get_logger()

TOKEN = "session-token"
"""The metadata in which a session's token comes."""
LONGEST_TEXT = 200
MOST_PARTS = 32

Index = Callable[[Sequence[str]], Awaitable[list[str]]]
Context = grpc.aio.ServicerContext[Any, Any]


class CustodyDoor(CustodyServicer):
    """Checks what comes in for its form; who may do what, the line knows. Of what is asked only
    the ids of acts and codes are logged."""

    def __init__(self, line: CustodyLine, index: Index) -> None:
        """`index`: the look-up values of numbers, as `domain.lines.KeyProvider.index`."""
        self._line, self._index = line, index

    @answering
    async def Found(self, request: pb.Founding, context: Context) -> pb.CustodyReply:
        founding = custody.Founding(request.name, request.password, request.proof)
        return await _answer(request, "person.founded", self._line.found(founding))

    @answering
    async def LogIn(self, request: pb.LoginRequest, context: Context) -> pb.CustodyReply:
        login = custody.Login(request.name, request.terminal, request.password)
        return await _answer(request, "session.asked", self._line.log_in(login))

    @answering
    async def LogOut(self, request: pb.Nothing, context: Context) -> pb.CustodyReply:
        return await _answer(request, "session.left", self._line.log_out(_token(context)))

    @answering
    async def WhoAmI(self, request: pb.Nothing, context: Context) -> pb.CustodyReply:
        return await _answer(request, "", self._line.who(_token(context)))

    @answering
    async def ChangePassword(self, request: pb.PasswordChange, context: Context) -> pb.CustodyReply:
        change = custody.NewPassword(request.old, request.new)
        asked = self._line.change_password(_token(context), change)
        return await _answer(request, "password.changed", asked)

    @answering
    async def ListPeople(self, request: pb.Nothing, context: Context) -> pb.CustodyReply:
        return await _answer(request, "", self._line.list_people(_token(context)))

    @answering
    async def ListActs(self, request: pb.ActsRequest, context: Context) -> pb.CustodyReply:
        asked = self._line.list_acts(_token(context), request.act_id, request.everything)
        return await _answer(request, "", asked)

    @answering
    async def ListKeys(self, request: pb.Nothing, context: Context) -> pb.CustodyReply:
        return await _answer(request, "", self._line.list_keys(_token(context)))

    @answering
    async def NextKeys(self, request: pb.Proposal, context: Context) -> pb.CustodyReply:
        asked = self._line.next_keys(_token(context), _proposal(request))
        return await _answer(request, "", asked)

    @answering
    async def Propose(self, request: pb.Proposal, context: Context) -> pb.CustodyReply:
        asked = self._propose(_token(context), request)
        return await _answer(request, "act.proposed", asked)

    async def _propose(self, token: str, request: pb.Proposal) -> Answered:
        proposal = replace(_proposal(request), card=await self._card(request.scanned))
        return await self._line.propose(token, proposal)

    @answering
    async def Confirm(self, request: pb.Confirmation, context: Context) -> pb.CustodyReply:
        asked = self._confirm(_token(context), request)
        return await _answer(request, "act.confirmed", asked)

    async def _confirm(self, token: str, request: pb.Confirmation) -> Answered:
        card = await self._card(request.scanned)
        confirmation = custody.Confirmation(
            request.act_id, _parts(request.parts), dict(request.check_values), card
        )
        return await self._line.confirm(token, confirmation)

    async def _card(self, scanned: str) -> str:
        """The line sees no number, only its look-up value."""
        kinds, _ = kinds_of_number(scanned)
        if FACE not in kinds:
            return scanned
        (value,) = await self._index([index_text(FACE, scanned)])
        return value

    @answering
    async def Withdraw(self, request: pb.ActId, context: Context) -> pb.CustodyReply:
        asked = self._line.withdraw(_token(context), request.act_id)
        return await _answer(request, "act.withdrawn", asked)


def _token(context: Context) -> str:
    for name, value in context.invocation_metadata() or ():
        if name == TOKEN:
            return value if isinstance(value, str) else value.decode("ascii", "replace")
    return ""


def _proposal(request: pb.Proposal) -> custody.Proposal:
    return custody.Proposal(
        request.command_id,
        request.kind,
        request.subject,
        version=request.version,
        kek_version=request.kek_version,
        suite=request.suite,
        reason=request.reason,
        roles=tuple(request.roles),
        parts=_parts(request.parts),
        block=request.block,
        password=request.password,
    )


def _parts(parts: Any) -> dict[str, bytes]:
    return {part.usage: part.sealed for part in parts}


def _problem(request: Any) -> Denied | None:
    """What is too long or too much to be meant."""
    for field, value in request.ListFields():
        if isinstance(value, str) and len(value) > LONGEST_TEXT:
            return Denied(Code.BAD_FORMAT, field.name)
        if isinstance(value, bytes) and len(value) > custody.LARGEST_BLOCK:
            return Denied(Code.FILE_TOO_LARGE, field.name)
        if not isinstance(value, str | bytes | int) and len(value) > MOST_PARTS:
            return Denied(Code.FILE_TOO_LARGE, field.name)
    if request.ByteSize() > custody.LARGEST_BLOCK + LONGEST_TEXT * MOST_PARTS:
        return Denied(Code.FILE_TOO_LARGE)
    return None


async def _answer(request: Any, event: str, asked: Awaitable[Answered]) -> pb.CustodyReply:
    problem = _problem(request)
    if problem is not None:
        asked.close()  # type: ignore[attr-defined]  # a coroutine that was never started
        return pb.CustodyReply(receipt=receipt_to_wire(problem.receipt))
    answered = await asked
    if len(answered.acts) == 1:
        bind_contextvars(act_id=answered.acts[0].act_id)
    if event:
        level = log.info if answered.receipt.accepted else log.warning
        level(event, code=answered.receipt.code, repeated=answered.receipt.repeated)
    return _to_wire(answered)


def _to_wire(answered: Answered) -> pb.CustodyReply:
    return pb.CustodyReply(
        receipt=receipt_to_wire(replace(answered.receipt, code=str(answered.receipt.code))),
        session_token=answered.token,
        sessions=[pb.LoginSession(**vars(s)) for s in answered.sessions],
        people=[
            pb.PersonState(**{c: v for c, v in vars(p).items() if c != "credential"})
            for p in answered.people
        ],
        acts=[_act_to_wire(a) for a in answered.acts],
        keys=[pb.KeyLine(**vars(k)) for k in answered.keys],
    )


def _act_to_wire(act: custody.Act) -> pb.Act:
    texts: Mapping[str, str] = {
        c: json.dumps(getattr(act, c), ensure_ascii=False) for c in ("content", "result")
    }
    return pb.Act(**{**{c: v for c, v in vars(act).items() if c != "sealed"}, **texts})
