"""Acts of two people on cards: planned by the custody line, carried out by the line that has them.

Between the two lies another commit: the act is confirmed in the stream of the custody line, done in
the stream of the owning line under the act's own id (so once, whoever dies), and then called done.
A line that is away is asked again later by the custody line's `step`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from actors import lot_acts, scrap, stock
from actors.acts import Outcome, Plan
from domain.bodies import Writing
from domain.changes import Event, EventType
from domain.codes import Code
from domain.custody import Act, ActKind, Confirmation, Denied, Proposal, Reason
from domain.lines import ActingLine, CarriedOut, ConfirmedAct, LedgerDoor
from ledger.queries import Queries


@dataclass(frozen=True)
class FloorAct:
    """One kind. `content(queries, subject, reason)`: what the act would do as things stand, for
    both people to read; it names the `line` that carries it out. `decide(queries, act, writing)`
    does it and answers the result. Both raise Denied. `in_hand`: both people scan the card."""

    content: Callable[[Queries, str, str], dict[str, Any]]
    decide: Callable[[Queries, ConfirmedAct, Writing], dict[str, Any]]
    in_hand: bool = False


KINDS: Mapping[str, FloorAct] = {
    ActKind.CARD_SCRAP: FloorAct(scrap.content, scrap.decide, in_hand=True),
    ActKind.STOCK_ADJUST: FloorAct(stock.content, stock.decide),
    ActKind.LOT_RELEASE: FloorAct(lot_acts.content, lot_acts.decide),
    ActKind.LOT_INSPECT: FloorAct(lot_acts.content, lot_acts.decide),
}


class FloorActs:
    """What the custody line knows of them."""

    def __init__(self, queries: Queries, line: Callable[[str], ActingLine]) -> None:
        """`line(name)` may raise Away."""
        self._queries, self._line = queries, line

    async def plan(self, proposal: Proposal) -> Plan:
        if proposal.reason not in {str(r) for r in Reason}:
            raise Denied(Code.BAD_FORMAT, f"reason: {', '.join(Reason)}")
        kind = KINDS[proposal.kind]
        content = kind.content(self._queries, proposal.subject, proposal.reason)
        if kind.in_hand:
            scrap.check_in_hand(self._queries, proposal.subject, proposal.card)
        return Plan(content)

    async def check_current(self, act: Act) -> None:
        """Raises Denied if the cards have moved since `act` was proposed."""
        content = KINDS[act.kind].content(self._queries, act.subject, act.content["reason"])
        if content != act.content:
            raise Denied(Code.ACT_OUTDATED, act.subject)

    def check_second(self, act: Act, confirmation: Confirmation) -> None:
        """The second person has the same card in hand. Raises Denied."""
        if KINDS[act.kind].in_hand:
            scrap.check_in_hand(self._queries, act.subject, confirmation.card)

    async def do(self, act: Act) -> Outcome:
        """Raises Denied, or Away while the line is."""
        confirmed = ConfirmedAct(act.act_id, act.kind, act.subject, act.content)
        carried = await self._line(act.content["line"]).carry_out(confirmed)
        if carried.code != Code.OK:
            raise Denied(Code(carried.code), carried.detail)
        return Outcome(carried.result)


async def carry_out(
    line: str, ledger: LedgerDoor, queries: Queries, act: ConfirmedAct
) -> CarriedOut:
    """The owning line's side: one commit under the act's id."""
    command_id = f"act:{act.act_id}"
    known = queries.reply(line, command_id)
    if known is not None:
        return CarriedOut(known)
    writing = Writing(line, command_id)
    try:
        result = KINDS[act.kind].decide(queries, act, writing)
    except Denied as e:
        return CarriedOut({}, e.code, e.detail)
    writing.reply = result
    writing.event(Event(EventType.ACT_CARRIED_OUT, data={"act_id": act.act_id, "result": result}))
    await ledger.commit(writing.changes())
    return CarriedOut(result)
