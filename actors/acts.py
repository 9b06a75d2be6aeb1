"""Acts of two people as the ledger keeps them: what is planned, what came of it, and their rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from domain.bodies import Writing
from domain.changes import Event, Update, canonical_json
from domain.codes import Code
from domain.custody import Act, ActKind, ActState, Answered, Denied, Proposal
from domain.lines import Receipt
from ledger.digests import digest_of


@dataclass(frozen=True)
class Plan:
    """`content`: what the act is about, for everybody to read. `sealed`: what waits for its end.
    A proposal itself changes nothing."""

    content: Mapping[str, Any]
    sealed: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What an act did: its result, and the events beside ACT_DONE."""

    result: Mapping[str, Any]
    events: tuple[Event, ...] = ()


def thing(kind: str, subject: str) -> tuple[str, str]:
    """What an act is about: a person, a set of keys, a card, a stock."""
    temporary = "temporary:" if kind == ActKind.KEY_ACCEPT_TEMPORARY else ""
    return kind.partition(".")[0], temporary + subject


def readable(act: Act) -> Act:
    return replace(act, sealed={})


def answer(act: Act, *, repeated: bool = False) -> Answered:
    """How an act stands, to whoever asked for it."""
    receipt = Receipt(True, repeated=repeated)
    if act.state == ActState.REFUSED:
        receipt = replace(
            Denied(Code(act.result["code"]), act.result["reason"]).receipt, repeated=repeated
        )
    return Answered(receipt, acts=(readable(act),))


def payload(proposal: Proposal) -> str:
    """What was proposed, by which a command is known again. Not its password: the digest of one
    could be guessed against."""
    said = {**vars(proposal), "password": "", "block": proposal.block.hex()}
    parts = {usage: part.hex() for usage, part in proposal.parts.items()}
    return digest_of([{**said, "parts": parts}])


def digest(sealed: Mapping[str, Any]) -> str:
    """What an event says of what is sealed: enough to know it again, nothing to guess against."""
    return digest_of([sealed]) if sealed else ""


def _text(value: Mapping[str, Any]) -> str:
    return canonical_json(value).decode() if value else ""


def row(act: Act) -> dict[str, Any]:
    """As the ledger's table `act` holds it."""
    return {**vars(act), **{c: _text(getattr(act, c)) for c in ("content", "result", "sealed")}}


def change(writing: Writing, before: Act, after: Act) -> None:
    """The act goes on; the commit fails if its state had changed."""
    columns = ("confirmed_by", "confirmed_in", "state", "result", "sealed")
    changed = {c: row(after)[c] for c in ("act_id", *columns)}
    guarded = [{**changed, "expect_state": before.state}]
    writing.update(Update("act", ("act_id",), columns, ("state",), guarded))
