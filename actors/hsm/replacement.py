"""The key replacement line: temporary social keys become formal ones (articles 11(10), 28(7)).

A session begins by reading the chip: identity, category, key versions, a challenge. What was
written before a crash shows in the versions, so that no key is written blindly twice. The
loading key comes last: a chip whose loading key is formal is formal altogether. The commit that
binds chip, order and body precedes the first WRITE KEY; the commit of the result precedes the
verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from actors.chip_line import ChipLine, Held, Outcome, Prepared, verdict
from actors.hsm.carton_work import CartonWork
from actors.hsm.replacement_script import (
    CHALLENGE_BYTES,
    Identity,
    authenticate_segment,
    identify_segment,
    key_state,
    proof_segment,
    read_identity,
    read_keys,
    write_segment,
)
from domain.bodies import Body, Writing
from domain.card.profile import Profile
from domain.card.segment import Answers, Segment
from domain.changes import EventType
from domain.codes import Code
from domain.lines import KeyProvider, LedgerDoor
from domain.places import DRAWN, Line, Standing, transit, work
from domain.provider import Answer, Authenticate, Chip, KeyChange, KeySet, Prove
from domain.turns import NoAnswer, Opening, StationTurn
from ledger.queries import Identified, Queries

DONE = transit(Line.KEY_REPLACEMENT, Line.INSPECTION)
WORK = work(Line.KEY_REPLACEMENT)
TAKEN_BACK_AT_ONCE = 1_000


@dataclass(frozen=True)
class Session:
    """Where one presentation stands. `remaining`: usages still to be written, loading key last;
    `identity` and `known` are set once the chip was read."""

    carton_id: str
    face_number: str
    ticket: str
    segment: Segment
    go_on: str
    identity: Identity | None = None
    known: Identified | None = None
    body: Body | None = None
    remaining: tuple[str, ...] = ()
    random: bytes = b""
    face_value: str = ""
    """Look-up value of the number on the face."""

    @property
    def claim(self) -> str:
        """Names the card as far as it is known (see `Prepared`)."""
        if self.identity is not None:
            return self.identity.identification_code
        if self.known is not None:
            return self.known.identification_code
        return f"{self.carton_id} {self.ticket}" if self.ticket else ""


@dataclass(frozen=True)
class Facts:
    """What a chunk needs to know: cartons in work, chips by identification code, orders by the
    number printed on the face."""

    identified: Mapping[str, Identified] = field(default_factory=dict)
    faces: Mapping[str, Identified] = field(default_factory=dict)
    tickets: Mapping[tuple[str, str], Body] = field(default_factory=dict)


class KeyReplacement(ChipLine[Session, Facts]):
    line = Line.KEY_REPLACEMENT

    def __init__(
        self,
        ledger: LedgerDoor,
        provider: KeyProvider,
        queries: Queries,
        profile: Profile,
        command_prefix: str,
        random: Callable[[int], bytes],
    ) -> None:
        super().__init__(ledger, provider, queries, profile, command_prefix, random)
        self._cartons = CartonWork(queries)
        self._identify = identify_segment(profile)

    def forget(self) -> None:
        self._cartons.forget()

    async def look_up(self, turns: Sequence[tuple[StationTurn, Session | None]]) -> Facts:
        codes, faces, cartons, opened, tickets = [], set(), set(), set(), []
        face_values = {}
        for turn, session in turns:
            if isinstance(turn.content, Answers):
                if session is None:
                    continue
                cartons.add(session.carton_id)
                if session.go_on == "identified":
                    identity = read_identity(self._profile, session.segment, turn.content)
                    if session.face_number:
                        face_values[session.face_number] = session.face_value
                    tickets.append((session.carton_id, session.ticket))
                    if identity is not None:
                        codes.append(identity.identification_code)
            else:
                opened.add(turn.content.carton_id)
                if isinstance(turn.content, NoAnswer):
                    faces.add(turn.content.face_number)
                    tickets.append((turn.content.carton_id, turn.content.ticket))
        self._cartons.load(sorted(cartons | opened), opened)
        identified = self._queries.identify(codes) if codes else {}
        by_face = await self.orders_by_face(faces - {""}, face_values)
        return Facts(identified, by_face, self._queries.bodies_by_ticket(tickets))

    def open(
        self, turn: StationTurn, content: Opening | NoAnswer, facts: Facts
    ) -> Prepared[Session]:
        if not self._cartons.issued(content.carton_id):
            raise Held(Code.CARTON_NOT_ISSUED, 1_000)
        if isinstance(content, NoAnswer):
            silent = Session(
                content.carton_id, content.face_number, content.ticket, Segment(()), ""
            )
            return self._unreadable(turn, silent, Code.CHIP_SILENT, facts)
        segment = self._identify
        session = Session(
            content.carton_id, content.face_number, content.ticket, segment, "identified"
        )

        def finish(given: Sequence[Answer], writing: Writing) -> Outcome[Session]:
            value = given[0].data.hex() if given else ""
            return Outcome(segment, replace(session, face_value=value))

        # Needed with the next turn; asked for now it costs no call of its own.
        return Prepared(finish, self.look_up_of(content.face_number))

    def go_on(
        self, turn: StationTurn, session: Session, answers: Answers, facts: Facts
    ) -> Prepared[Session]:
        if session.go_on == "identified":
            return self._identified(turn, session, answers, facts)
        if session.go_on == "authenticated":
            return self._authenticated(turn, session, answers)
        if session.go_on == "written":
            return self._written(turn, session, answers)
        return self._proven(turn, session, answers)

    async def step(self) -> bool:
        """Take back into work what was held for want of a record, once a correction has brought
        it. Its chip is as it was: it is fed again from the held stack."""
        async with self._one_at_a_time:
            found = self._queries.advised_since(TAKEN_BACK_AT_ONCE)
            if not found:
                return False
            self._cartons.load(sorted({body.carton_id for body, _ in found}))
            writing = self._writing()
            for body, order_id in found:
                self._cartons.take_back(writing, body, order_id)
            await self._ledger.commit(writing.changes())
            return True

    # The steps of the script.

    def _identified(
        self, turn: StationTurn, session: Session, answers: Answers, facts: Facts
    ) -> Prepared[Session]:
        identity = read_identity(self._profile, session.segment, answers)
        if identity is None:
            return self._unreadable(turn, session, Code.CHIP_UNREADABLE, facts)
        known = facts.identified[identity.identification_code]
        state = key_state(self._profile, identity.keys)
        session = replace(
            session, identity=identity, known=known, body=known.body, remaining=state.temporary
        )
        body = known.body or facts.tickets.get((session.carton_id, session.ticket))
        by_face = facts.faces.get(session.face_number)
        face_order = by_face.order_id if by_face else ""
        if known.order_id and session.face_number and face_order != known.order_id:
            return self._two_cards_in_one(turn, session, by_face)
        if body is not None and body.place not in (WORK, *self._cartons.before_work):
            return Prepared(lambda _a, _w: _seen_before(body))
        batch_id = self._cartons.carton(session.carton_id).batch_id
        if known.order_id and known.order_batch != batch_id:
            # Its order stands in the return of its own batch, not with a body of this one.
            return self._apart(turn, replace(session, known=None), Code.OTHER_BATCH)
        reason = self._why_not(session.carton_id, identity, known)
        if not reason and state.formal and not (body and body.released):
            reason = Code.FORMAL_KEYS_FOREIGN
        if reason or state.reason:
            return self._apart(turn, session, reason or state.reason)
        chip = self._chip(session)
        if not state.temporary:
            random = self._random(self._profile.block)
            segment = proof_segment(self._profile, random)
            after = replace(session, segment=segment, go_on="proven", random=random)
            return Prepared(lambda _a, _w: Outcome(segment, after), claim=after.claim)

        def finish(given: Sequence[Answer], writing: Writing) -> Outcome[Session]:
            first = session.remaining[0]
            segment = authenticate_segment(self._profile, given[0].data, first)
            return Outcome(segment, replace(session, segment=segment, go_on="authenticated"))

        usage = self._profile.loading_usage
        asked = Authenticate(chip, KeySet.TEMPORARY, usage, identity.challenge)
        return Prepared(finish, [asked], session.claim)

    def _authenticated(
        self, turn: StationTurn, session: Session, answers: Answers
    ) -> Prepared[Session]:
        if not answers.complete(session.segment):
            return self._apart(turn, session, Code.AUTHENTICATION_REFUSED)
        return self._write_next(turn, session, answers, first=True)

    def _write_next(
        self, turn: StationTurn, session: Session, answers: Answers, *, first: bool
    ) -> Prepared[Session]:
        if first and session.body is None and not self._cartons.has_unbound(session.carton_id):
            return self._apart(turn, session, Code.OVER_COUNT)
        challenge = answers.of(session.segment, "get challenge")
        if challenge is None or len(challenge.data) != CHALLENGE_BYTES:
            return self._apart(turn, session, Code.KEY_WRITE_REFUSED)
        usage, later = session.remaining[0], session.remaining[1:]
        random = b"" if later else self._random(self._profile.block)

        def finish(given: Sequence[Answer], writing: Writing) -> Outcome[Session]:
            following = later[0] if later else ""
            segment = write_segment(self._profile, usage, given[0].data, following, random)
            body = session.body
            if first:
                body = body or self._cartons.take(session.carton_id, writing)
                if body is None:
                    return self._set_apart(turn, session, Code.OVER_COUNT, writing)
                body = self._release(turn, session, body, writing)
            return Outcome(
                segment,
                replace(
                    session,
                    segment=segment,
                    go_on="written",
                    body=body,
                    remaining=later,
                    random=random,
                ),
            )

        chip = self._chip(session)
        return Prepared(finish, [KeyChange(chip, usage, challenge.data)], session.claim)

    def _written(self, turn: StationTurn, session: Session, answers: Answers) -> Prepared[Session]:
        if answers.complete(session.segment):
            if session.remaining:
                return self._write_next(turn, session, answers, first=False)
            return self._proven(turn, session, answers)
        return self._apart(turn, session, Code.KEY_WRITE_REFUSED)

    def _proven(self, turn: StationTurn, session: Session, answers: Answers) -> Prepared[Session]:
        """All keys are written: the versions must be formal, and the chip must prove the key of
        INTERNAL AUTHENTICATE."""
        body = session.body
        assert body is not None
        answer = answers.of(session.segment, "internal authenticate")
        state = key_state(self._profile, read_keys(session.segment, answers))
        proof = answer.data if answer else b""
        if (
            not answers.complete(session.segment)
            or len(proof) != self._profile.block
            or state.temporary
        ):
            return self._apart(turn, session, Code.KEY_NOT_PROVEN)

        def finish(given: Sequence[Answer], writing: Writing) -> Outcome[Session]:
            if given[0].difference:
                return self._set_apart(turn, session, Code.KEY_NOT_PROVEN, writing)
            station = {"station": turn.station_id}
            # What reads it next knows it again by this, should its chip fall silent.
            ticket = session.ticket or body.ticket
            writing.change(body, EventType.KEYS_REPLACED, station, place=DONE, ticket=ticket)
            return Outcome(verdict("", Code.OK, Line.INSPECTION))

        usage = self._profile.internal_usage
        chip = self._chip(session)
        asked = Prove(chip, KeySet.FORMAL, usage, session.random, proof)
        return Prepared(finish, [asked], session.claim)

    # What is written down.

    def _release(self, turn: StationTurn, session: Session, body: Body, writing: Writing) -> Body:
        """Bind chip, order and body, before the first WRITE KEY leaves. From here on the body
        stays bound, whatever happens: only a look at the chip tells what was written."""
        assert session.identity is not None
        assert session.known is not None
        return writing.change(
            body,
            EventType.KEY_WRITE_RELEASED,
            {
                "station": turn.station_id,
                "reader": turn.reader,
                "keys": list(session.remaining),
            },
            identification_code=session.identity.identification_code,
            order_id=session.known.order_id,
            destination=session.known.branch or body.destination,
            lease=body.lease + 1,
            released=True,
        )

    def _why_not(self, carton_id: str, identity: Identity, known: Identified) -> str:
        """Why the floor may not work on this chip at all; empty if it may."""
        temporary = self._cartons.is_temporary(carton_id)
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

    def _two_cards_in_one(
        self, turn: StationTurn, session: Session, by_face: Identified | None
    ) -> Prepared[Session]:
        """The chip of one order on plastic with the face of another, or of none: the plastic
        counts, unless the order of its face has a card already."""
        apart = replace(session, identity=None, known=None, body=None)
        if by_face is None or (by_face.body and by_face.body.place != WORK):
            return self._apart(turn, apart, Code.NOT_IN_RETURN)
        apart = replace(apart, known=by_face, body=by_face.body)
        return self._apart(turn, apart, Code.FACE_DIFFERS)

    def _unreadable(
        self, turn: StationTurn, session: Session, code: str, facts: Facts
    ) -> Prepared[Session]:
        """A chip that does not say who it is: its face may, and the feeder knows whether it is
        the one that was presented before."""
        seen = facts.tickets.get((session.carton_id, session.ticket))
        if seen is not None and seen.place in (WORK, *self._cartons.before_work):
            # Beyond the count until a recount took it up: now it is set apart for what it is.
            return self._apart(turn, replace(session, body=seen), code)
        if seen is not None:
            return Prepared(lambda _a, _w: _seen_before(seen))
        known = facts.faces.get(session.face_number)
        return self._apart(turn, replace(session, known=known), code)

    def _apart(self, turn: StationTurn, session: Session, code: str) -> Prepared[Session]:
        """Set a card apart with a reason: held when somebody has to decide, rejected else."""
        return Prepared(
            lambda _a, writing: self._set_apart(turn, session, code, writing), claim=session.claim
        )

    def _set_apart(
        self, turn: StationTurn, session: Session, code: str, writing: Writing
    ) -> Outcome[Session]:
        known, identity = session.known, session.identity
        named = identity or known
        body = session.body or (known.body if known else None)
        if body is not None and body.place not in (WORK, *self._cartons.before_work):
            return _seen_before(body)
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
        )
        return Outcome(verdict(stack, code))

    def _chip(self, session: Session) -> Chip:
        assert session.identity is not None
        carton = self._cartons.carton(session.carton_id)
        return Chip(session.identity.identification_code, carton.batch_id, session.carton_id)


def _seen_before(body: Body) -> Outcome[Session]:
    """A chip that this line is done with: on to the stage that waits for it, or to the stack
    where it belongs."""
    if body.place == DONE:
        return Outcome(verdict("", Code.OK, Line.INSPECTION))
    if body.place == DRAWN:
        return Outcome(verdict("", Code.OK, Line.SAMPLING))
    if body.standing in (Standing.REJECTED, Standing.HELD):
        return Outcome(verdict(str(body.standing), body.condition))
    return Outcome(verdict("good"))
