"""The inspection line (检卡): every chip is read again after its keys were replaced.

Its versions must all be formal, its data equal to the sealed record of its order (or empty, for
a temporary card), and it must prove the keys of INTERNAL and EXTERNAL AUTHENTICATE. Nothing is
written to the chip.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from actors.chip_line import ChipLine, Held, Outcome, Prepared, verdict
from actors.hsm.replacement_script import (
    CHALLENGE_BYTES,
    identity_steps,
    key_state,
    read_field,
    read_keys,
)
from domain.bodies import Body, Writing
from domain.card.apdu import (
    external_authenticate,
    get_challenge,
    internal_authenticate,
    read_record,
)
from domain.card.profile import Profile
from domain.card.records import RecordError
from domain.card.segment import Answers, Segment, Step
from domain.changes import EventType
from domain.codes import Code
from domain.lines import KeyProvider, LedgerDoor
from domain.places import Line, Standing, held, rejected, transit
from domain.provider import Answer, Authenticate, Chip, Compare, KeySet, Prove, Request
from domain.turns import NoAnswer, Opening, StationTurn
from ledger.queries import Identified, Queries

ARRIVED = transit(Line.KEY_REPLACEMENT, Line.INSPECTION)
DONE = transit(Line.INSPECTION, Line.SORTING)
NOT_OF_THE_ORDER = ("identification_code", "card_category")


@dataclass(frozen=True)
class Session:
    segment: Segment
    go_on: str
    random: bytes
    face_number: str
    body: Body | None = None


@dataclass(frozen=True)
class Facts:
    identified: Mapping[str, Identified] = field(default_factory=dict)
    sealed: Mapping[str, str] = field(default_factory=dict)
    faces: Mapping[str, Identified] = field(default_factory=dict)


class Inspection(ChipLine[Session, Facts]):
    line = Line.INSPECTION

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
        self._holder_fields = tuple(
            f for name, f in profile.fields.items() if name not in NOT_OF_THE_ORDER
        )

    async def look_up(self, turns: Sequence[tuple[StationTurn, Session | None]]) -> Facts:
        codes, faces = [], set()
        for turn, session in turns:
            content = turn.content
            if isinstance(content, NoAnswer) and content.face_number:
                faces.add(content.face_number)
            if isinstance(content, Answers) and session is not None and session.go_on == "read":
                code = self._code(session, content)
                if code is not None:
                    codes.append(code)
                elif session.face_number:
                    faces.add(session.face_number)
        identified = self._queries.identify(codes) if codes else {}
        orders = [i.order_id for i in identified.values() if i.order_id]
        sealed = self._queries.sealed(orders) if orders else {}
        by_face = await self.orders_by_face(faces)
        return Facts(identified, sealed, by_face)

    def open(
        self, turn: StationTurn, content: Opening | NoAnswer, facts: Facts
    ) -> Prepared[Session]:
        if isinstance(content, NoAnswer):
            return self._unreadable(facts.faces.get(content.face_number), Code.CHIP_SILENT)
        random = self._random(8)
        segment = self._read_segment(random)
        session = Session(segment, "read", random, content.face_number)
        return Prepared(lambda _a, _w: Outcome(segment, session))

    def go_on(
        self, turn: StationTurn, session: Session, answers: Answers, facts: Facts
    ) -> Prepared[Session]:
        if session.go_on == "read":
            return self._was_read(turn, session, answers, facts)
        body = session.body
        assert body is not None
        passed = answers.complete(session.segment)

        def finish(_given: Sequence[Answer], writing: Writing) -> Outcome[Session]:
            if not passed:
                return _reject(writing, body, Code.KEY_NOT_PROVEN, self._profile.external_usage)
            writing.change(body, EventType.INSPECTED, {"station": turn.station_id}, place=DONE)
            return Outcome(verdict("good"))

        return Prepared(finish)

    def _read_segment(self, random: bytes) -> Segment:
        """All that is checked by reading, and the challenge for the last proof. An absent record
        is an answer too: whether it should be there is for the comparison."""
        internal = self._profile.key(self._profile.internal_usage).key_id
        return Segment(
            (
                *identity_steps(self._profile),
                *(
                    Step.of(f"read {f.name}", read_record(f.tag, f.file, f.length), "9000", "6A83")
                    for f in self._holder_fields
                ),
                Step.of("internal authenticate", internal_authenticate(internal, random)),
                Step.of("get challenge", get_challenge()),
            )
        )

    def _code(self, session: Session, answers: Answers) -> str | None:
        return read_field(self._profile, session.segment, answers, "identification_code")

    def _was_read(
        self, turn: StationTurn, session: Session, answers: Answers, facts: Facts
    ) -> Prepared[Session]:
        code = self._code(session, answers)
        if code is None:
            return self._unreadable(facts.faces.get(session.face_number), Code.CHIP_UNREADABLE)
        known = facts.identified[code]
        body = known.body
        if body is None or body.place != ARRIVED:
            return Prepared(lambda _a, _w: _elsewhere(body))
        if known.stopped == Code.CANCELLED:
            return Prepared(lambda _a, w: _hold(w, body, Code.CANCELLED))
        state = key_state(self._profile, read_keys(session.segment, answers))
        proof = answers.of(session.segment, "internal authenticate")
        challenge = answers.of(session.segment, "get challenge")
        complete = (
            answers.complete(session.segment)
            and proof is not None
            and challenge is not None
            and len(proof.data) == len(challenge.data) == CHALLENGE_BYTES
        )
        if not complete or state.temporary or state.reason:
            return Prepared(lambda _a, w: _reject(w, body, Code.KEY_NOT_PROVEN, "versions"))
        assert proof is not None
        assert challenge is not None
        requests = self._proofs(session, known, body, proof.data, challenge.data)
        foreign = self._prepare_compare(session, answers, known, facts, requests)
        key_id = self._profile.key(self._profile.external_usage).key_id

        def finish(given: Sequence[Answer], writing: Writing) -> Outcome[Session]:
            if given[0].difference:
                return _reject(writing, body, Code.KEY_NOT_PROVEN, given[0].difference)
            differs = foreign or (given[2].difference if len(given) > 2 else "")
            if differs:
                return _reject(writing, body, Code.DATA_DIFFERS, differs)
            segment = Segment(
                (Step.of("external authenticate", external_authenticate(key_id, given[1].data)),)
            )
            after = replace(session, segment=segment, go_on="authenticated", body=body)
            return Outcome(segment, after)

        return Prepared(finish, requests)

    def _proofs(
        self, session: Session, known: Identified, body: Body, proof: bytes, challenge: bytes
    ) -> list[Request]:
        chip = Chip(known.identification_code, body.batch_id, body.carton_id)
        p = self._profile
        return [
            Prove(chip, KeySet.FORMAL, p.internal_usage, session.random, proof),
            Authenticate(chip, KeySet.FORMAL, p.external_usage, challenge),
        ]

    def _prepare_compare(
        self,
        session: Session,
        answers: Answers,
        known: Identified,
        facts: Facts,
        requests: list[Request],
    ) -> str:
        """Ask the provider to compare with the sealed record; for a card without order, name the
        first holder field that should not be there."""
        read_back = {}
        for f in self._holder_fields:
            answer = answers.of(session.segment, f"read {f.name}")
            if answer is None or answer.status_word != 0x9000:
                continue
            try:
                read_back[f.name] = f.parse(answer.data)
            except RecordError:
                return f.name
        if not known.order_id:
            return next(iter(read_back), "")
        sealed = facts.sealed.get(known.order_id)
        if sealed is None:
            raise Held(Code.RECORD_UNSEALABLE, 2_000)
        requests.append(
            Compare(known.order_batch, known.order_id, base64.b64decode(sealed), read_back)
        )
        return ""

    def _unreadable(self, known: Identified | None, code: str) -> Prepared[Session]:
        """A chip that had its keys replaced and does not answer any more. Without the number on
        its face nobody knows which it is: the floor has to look."""
        body = known.body if known else None
        if body is None or body.place != ARRIVED:
            return Prepared(lambda _a, _w: _elsewhere(body, code))
        return Prepared(lambda _a, w: _reject(w, body, code, ""))


def _reject(writing: Writing, body: Body, code: str, detail: str) -> Outcome[Session]:
    writing.change(
        body,
        EventType.BODY_REJECTED,
        {"detail": detail} if detail else {},
        place=rejected(Line.INSPECTION),
        condition=code,
        live=False,
    )
    return Outcome(verdict("rejected", code))


def _hold(writing: Writing, body: Body, code: str) -> Outcome[Session]:
    writing.change(body, EventType.BODY_HELD, place=held(Line.INSPECTION), condition=code)
    return Outcome(verdict("held", code))


def _elsewhere(body: Body | None, code: str = Code.OK) -> Outcome[Session]:
    """A chip that does not wait for inspection: back to key replacement if that is not done, to
    its stack if it is known where it belongs."""
    if body is None:
        if code != Code.OK:
            return Outcome(verdict("held", code))
        return Outcome(verdict("", Code.OK, Line.KEY_REPLACEMENT))
    if body.standing in (Standing.REJECTED, Standing.HELD):
        return Outcome(verdict(str(body.standing), body.condition))
    if body.place in (DONE, *_LATER) or body.standing == Standing.SHIPPED:
        return Outcome(verdict("good" if code == Code.OK else "held", code))
    return Outcome(verdict("", Code.OK, Line.KEY_REPLACEMENT))


_LATER = ("sorting/work", "sorting/packed")
