"""The cartons that key replacement works on: which bodies are still without identity, and how a
card that can't go on is set apart so that the account of its batch stays right."""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass, replace

from actors.chip_line import Outcome, verdict
from actors.hsm.leases import RETURNED, LeaseTerms, in_doubt
from actors.hsm.replacement_script import Identity
from actors.hsm.replacement_state import Session
from domain.bodies import Body, Writing
from domain.changes import EventType
from domain.codes import UNADVISED, Code
from domain.groups import Group, GroupKey
from domain.places import (
    DRAWN,
    SURPLUS_READ,
    Account,
    Kind,
    Line,
    Standing,
    held,
    rejected,
    transit,
    work,
)
from domain.turns import StationTurn
from ledger.counts import carton_rows
from ledger.queries import Carton, Identified, Queries

LINE = Line.KEY_REPLACEMENT
ISSUED = transit(Line.INVENTORY, LINE)
WORK = work(LINE)
DONE = transit(LINE, Line.INSPECTION)
HELD = UNADVISED | {Code.FORMAL_KEYS_FOREIGN, Code.CANCELLED}


@dataclass
class _InWork:
    carton: Carton
    unbound: list[Body]
    """Bodies of which only the carton is known, the last one taken first."""
    waiting: list[Body]
    """Bodies that were issued and not taken yet."""
    bodies: int
    """How many bodies the carton ever had, with those beyond its count."""


class CartonWork:
    """Remembers what the ledger says about the cartons in work. `forget` after a commit that did
    not go through: what was taken from memory is read again."""

    def __init__(self, queries: Queries) -> None:
        self._queries = queries
        self._cartons: dict[str, _InWork] = {}
        self._groups: dict[GroupKey, Group] = {}

    def forget(self) -> None:
        self._cartons.clear()
        self._groups.clear()

    def load(self, carton_ids: Iterable[str], opened: Container[str] = ()) -> None:
        """Read the cartons that are not known yet, and those of `opened` (a card of theirs is
        presented) whose bodies are used up: a recount may have made others. One that was not
        issued stays unknown. The numbers of a batch are read anew for each chunk: inventory
        changes them."""
        self._groups.clear()
        for carton_id in carton_ids:
            state = self._cartons.get(carton_id)
            if state is not None and (state.unbound or carton_id not in opened):
                continue
            carton = self._queries.carton(carton_id)
            if carton is None:
                continue
            bodies = self._queries.bodies(
                "b.carton_id = ? and b.place in (?, ?)", carton_id, ISSUED, WORK
            )
            issued = self._queries.one(
                "select count(*) as n from body where carton_id = ?"
                " and place <> 'inventory/vault' and place not like 'factory/%'",
                carton_id,
            )
            if not issued or (not issued["n"] and carton.counted):
                continue
            unbound = [b for b in bodies if not b.identification_code and not b.order_id]
            waiting = [b for b in bodies if b.place == ISSUED]
            self._cartons[carton_id] = _InWork(
                carton, unbound[::-1], waiting, carton_rows(self._queries, carton_id)
            )

    def issued(self, carton_id: str) -> bool:
        return carton_id in self._cartons

    def carton(self, carton_id: str) -> Carton:
        return self._cartons[carton_id].carton

    def is_temporary(self, carton_id: str) -> bool:
        return self.carton(carton_id).kind == Kind.TEMPORARY_CARD

    def why_not(self, carton_id: str, identity: Identity, known: Identified) -> str:
        """Why the floor may not work on this chip at all; empty if it may."""
        temporary = self.is_temporary(carton_id)
        if known.refused_code and not known.order_id:
            return known.refused_code
        if known.order_id and temporary:
            return Code.WRONG_KIND
        if known.order_id:
            # On hold it is finished all the same, and waits at sorting.
            return Code.CANCELLED if known.stopped == Code.CANCELLED else ""
        if identity.is_temporary_card:
            return "" if temporary else Code.WRONG_KIND
        return Code.NOT_IN_RETURN

    def at_hand(self, body: Body) -> bool:
        """Whether the line may still decide on this body: it comes to work, is there, or is in
        doubt."""
        return body.place in (WORK, ISSUED) or in_doubt(body)

    def has_unbound(self, carton_id: str) -> bool:
        """Whether the carton has a body whose chip is not known yet."""
        return bool(self._cartons[carton_id].unbound)

    def take(self, carton_id: str, writing: Writing) -> Body | None:
        """A body of the carton whose chip is not known yet; None if every body of the count has
        one. Taking the first takes the carton: all of it was in transit until now."""
        state = self._cartons[carton_id]
        if state.waiting:
            taken = {
                b.body_id: writing.change(b, EventType.BODY_TAKEN, place=work(LINE))
                for b in state.waiting
            }
            state.unbound = [taken.get(b.body_id, b) for b in state.unbound]
            state.waiting = []
        return state.unbound.pop() if state.unbound else None

    def set_apart(
        self,
        writing: Writing,
        carton_id: str,
        code: str,
        body: Body | None,
        *,
        identification_code: str,
        order_id: str,
        ticket: str,
        station: str,
        detail: str = "",
    ) -> str:
        """Move a card out of work with a reason (`detail`: of what, such as the usage of a key);
        answers the stack where it goes. A card beyond
        the count becomes a body of its own, held."""
        state = self._cartons[carton_id]
        body = body or self.take(carton_id, writing)
        if body is None:
            self._over_count(writing, state, identification_code, order_id, ticket)
            return "held"
        is_held = code in HELD
        if code in UNADVISED:
            self._unadvised(writing, body, 1)
        writing.change(
            body,
            EventType.BODY_HELD if is_held else EventType.BODY_REJECTED,
            {"station": station, "detail": detail} if detail else {"station": station},
            place=held(LINE) if is_held else rejected(LINE),
            condition=code,
            live=is_held,
            identification_code=body.identification_code or identification_code,
            order_id=body.order_id or order_id,
            ticket=ticket,
            **RETURNED,
        )
        return "held" if is_held else "rejected"

    def take_back(self, writing: Writing, body: Body, order_id: str) -> None:
        """A body that was held since no accepted record stood for it has one now: it goes back to
        work, to be fed again."""
        self._unadvised(writing, body, -1)
        writing.change(
            body,
            EventType.BODY_RELEASED,
            place=work(LINE),
            condition="",
            order_id=order_id,
        )

    def _unadvised(self, writing: Writing, body: Body, more: int) -> None:
        """One more (1) or one less (-1) body that no accepted record stands for: its group is
        settled anew."""
        key = GroupKey(body.batch_id, body.bank, body.kind)
        if key not in self._groups:
            for (bank, kind), group in self._queries.groups(body.batch_id).items():
                self._groups[GroupKey(body.batch_id, bank, kind)] = group
        before = self._groups[key]
        self._groups[key] = replace(before, unadvised=before.unadvised + more)
        writing.settle(key, before, self._groups[key])

    def _over_count(
        self,
        writing: Writing,
        state: _InWork,
        identification_code: str,
        order_id: str,
        ticket: str,
    ) -> None:
        """A card that was not counted is surplus, whoever waits for it: the count decides until
        it is made anew."""
        carton = state.carton
        state.bodies += 1
        body = Body(
            f"{carton.carton_id}.{state.bodies:04d}",
            carton.kind,
            carton.bank,
            carton.batch_id,
            carton.carton_id,
            held(LINE),
            Code.OVER_COUNT,
            identification_code,
            order_id,
            destination=carton.destination,
            ticket=ticket,
        )
        writing.receive(body, Account(SURPLUS_READ, carton.kind, carton.bank))


def release(
    turn: StationTurn, session: Session, body: Body, writing: Writing, terms: LeaseTerms
) -> Body:
    """Bind chip, order and body, and lease it to the station, before the first WRITE KEY leaves.
    From here on the body stays bound, whatever happens: only a look at the chip tells what was
    written."""
    assert session.identity is not None
    assert session.known is not None
    return writing.change(
        body,
        EventType.KEY_WRITE_RELEASED,
        {
            "station": turn.station_id,
            "reader": turn.reader,
            "keys": list(session.remaining),
            "version": session.version,
        },
        identification_code=session.identity.identification_code,
        order_id=session.known.order_id,
        destination=session.known.branch or body.destination,
        released=True,
        **terms.grant(turn, body),
    )


def take_back(turn: StationTurn, body: Body, writing: Writing, terms: LeaseTerms) -> Body:
    """Lease a body whose keys are all written already, to be proven: in doubt until then, or broken
    off after its last key."""
    station = {"station": turn.station_id, "reader": turn.reader}
    grant = terms.grant(turn, body)
    return writing.change(body, EventType.CHIP_TAKEN_BACK, station, **grant)


def seen_before(body: Body) -> Outcome[Session]:
    """A chip that this line is done with: on to the stage that waits for it, or to the stack
    where it belongs."""
    if body.place == DONE:
        return Outcome(verdict("", Code.OK, Line.INSPECTION))
    if body.place == DRAWN:
        return Outcome(verdict("", Code.OK, Line.SAMPLING))
    if body.standing in (Standing.REJECTED, Standing.HELD):
        return Outcome(verdict(str(body.standing), body.condition))
    return Outcome(verdict("good"))
