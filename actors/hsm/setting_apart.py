"""How key replacement sets apart a card that can't go on: with which reason, and as which card."""

from __future__ import annotations

from dataclasses import replace

from actors.chip_line import ChipLine, Outcome, Prepared, verdict
from actors.hsm.carton_work import CartonWork, seen_before
from actors.hsm.replacement_state import Facts, Session
from domain.bodies import Writing
from domain.codes import Code
from domain.turns import StationTurn
from ledger.queries import Identified


class SettingApart(ChipLine[Session, Facts]):
    """A part of the line: `actors.hsm.replacement`."""

    _cartons: CartonWork

    def two_cards_in_one(
        self, turn: StationTurn, session: Session, by_face: Identified | None
    ) -> Prepared[Session]:
        """The chip of one order on plastic with the face of another, or of none: the plastic
        counts, unless the order of its face has a card already."""
        apart = replace(session, identity=None, known=None, body=None)
        if by_face is None or (by_face.body and not self._cartons.at_hand(by_face.body)):
            return self.apart(turn, apart, Code.NOT_IN_RETURN)
        apart = replace(apart, known=by_face, body=by_face.body)
        return self.apart(turn, apart, Code.FACE_DIFFERS)

    def unreadable(
        self, turn: StationTurn, session: Session, code: str, facts: Facts
    ) -> Prepared[Session]:
        """A chip that does not say who it is: its face may, and the feeder knows whether it is
        the one that was presented before."""
        seen = facts.tickets.get((session.carton_id, session.ticket))
        if seen is not None and self._cartons.at_hand(seen):
            # Beyond the count until a recount took it up: now it is set apart for what it is.
            return self.apart(turn, replace(session, body=seen), code)
        if seen is not None:
            return Prepared(lambda _a, _w: seen_before(seen))
        known = facts.faces.get(session.face_number)
        return self.apart(turn, replace(session, known=known), code)

    def apart(
        self, turn: StationTurn, session: Session, code: str, detail: str = ""
    ) -> Prepared[Session]:
        """Set a card apart with a reason: held when somebody has to decide, rejected else."""
        return Prepared(
            lambda _a, writing: self.set_apart(turn, session, code, writing, detail),
            claim=session.claim,
        )

    def set_apart(
        self, turn: StationTurn, session: Session, code: str, writing: Writing, detail: str = ""
    ) -> Outcome[Session]:
        known, identity = session.known, session.identity
        named = identity or known
        body = session.body or (known.body if known else None)
        if body is not None and not self._cartons.at_hand(body):
            return seen_before(body)
        stack = self._cartons.set_apart(
            writing,
            session.carton_id,
            code,
            body,
            # What the face names is this card, should its chip answer one day.
            identification_code=named.identification_code if named else "",
            order_id=known.order_id if known else "",
            ticket="" if identity else session.ticket,
            station=turn.station_id,
            detail=detail,
        )
        return Outcome(verdict(stack, code))

    def not_proven(self, turn: StationTurn, session: Session, detail: str) -> Prepared[Session]:
        return self.apart(turn, session, Code.KEY_NOT_PROVEN, detail.removeprefix("prove "))
