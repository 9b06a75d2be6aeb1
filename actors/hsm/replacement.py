"""The key replacement line: temporary social keys become formal ones (articles 11(10), 28(7)).

A session begins by reading the chip: identity, category, keys, a challenge. What was written before
a crash shows in the versions (`replacement_state`), so no key is written blindly twice. The loading
key comes last: with it the temporary keys are gone, since each lay where its formal one lies now.
Then the versions are read back, and every key is proven as the profile says; a session that broke
off in between proves all of them anew. The commit that binds chip, order and body precedes the
first WRITE KEY; the commit of the result precedes the verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from actors.chip_line import Held, Outcome, Prepared, verdict
from actors.hsm.carton_work import DONE, CartonWork, release, seen_before, take_back
from actors.hsm.leases import RETURNED, LeaseTerms, doubt, keep_transcript, late_for, ran_out
from actors.hsm.replacement_script import (
    CHALLENGE_BYTES,
    Identity,
    authenticate_segment,
    external_segment,
    external_usages,
    identify_segment,
    proof_segment,
    proofs,
    read_identity,
    read_keys,
    write_segment,
)
from actors.hsm.replacement_state import Facts, KeyState, Session, is_low, key_state
from actors.hsm.setting_apart import SettingApart
from domain.bodies import Body, Writing
from domain.card.profile import Profile
from domain.card.segment import Answers, Segment
from domain.changes import EventType
from domain.codes import Code
from domain.lines import KeyProvider, LedgerDoor
from domain.places import Line
from domain.provider import (
    Answer,
    Authenticate,
    Chip,
    FormalVersion,
    KeyChange,
    KeySet,
    ProveCheckValue,
    Request,
)
from domain.turns import NoAnswer, Opening, Restart, StationTurn
from ledger.queries import Queries

TAKEN_BACK_AT_ONCE = 1_000


class KeyReplacement(SettingApart):
    line = Line.KEY_REPLACEMENT

    def __init__(
        self,
        ledger: LedgerDoor,
        provider: KeyProvider,
        queries: Queries,
        profile: Profile,
        command_prefix: str,
        random: Callable[[int], bytes],
        leases: LeaseTerms,
    ) -> None:
        super().__init__(ledger, provider, queries, profile, command_prefix, random)
        self._leases = leases
        self._cartons = CartonWork(queries)
        self._identify = identify_segment(profile)

    def forget(self) -> None:
        self._cartons.forget()

    async def look_up(self, turns: Sequence[tuple[StationTurn, Session | None]]) -> Facts:
        codes, faces, cartons, opened, tickets, bodies = [], set(), set(), set(), [], []
        face_values = {}
        for turn, session in turns:
            if isinstance(turn.content, Answers):
                if session is None:
                    continue
                cartons.add(session.carton_id)
                if session.body is not None:
                    bodies.append(session.body.body_id)
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
        by_ticket = self._queries.bodies_by_ticket(tickets)
        return Facts(identified, by_face, by_ticket, self._queries.bodies_by_id(bodies))

    def open(
        self, turn: StationTurn, content: Opening | NoAnswer, facts: Facts
    ) -> Prepared[Session]:
        if not self._cartons.issued(content.carton_id):
            raise Held(Code.CARTON_NOT_ISSUED, 1_000)
        if isinstance(content, NoAnswer):
            silent = Session(
                content.carton_id, content.face_number, content.ticket, Segment(()), ""
            )
            return self.unreadable(turn, silent, Code.CHIP_SILENT, facts)
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
        mine = session.body
        if mine is not None and not self._leases.holds(turn, mine, facts.bodies[mine.body_id]):
            return self._late(turn, mine, facts.bodies[mine.body_id])
        if session.go_on == "identified":
            return self._identified(turn, session, answers, facts)
        if session.go_on == "authenticated":
            return self._authenticated(turn, session, answers)
        if session.go_on == "written":
            return self._written(turn, session, answers)
        if session.go_on == "proven":
            return self._proven(turn, session, answers)
        return self._checked(turn, session, answers)

    def _late(self, turn: StationTurn, mine: Body, current: Body) -> Prepared[Session]:
        """A session that lost its body, or whose lease ran out, moves nothing: its chip is read
        anew. If it has a lease, what it tells is kept."""

        def finish(_given: Sequence[Answer], writing: Writing) -> Outcome[Session]:
            if mine.leased_in == turn.presentation:
                keep_transcript(writing, turn, current, mine.lease)
            return Outcome(Restart(Code.LEASE_OVER))

        return Prepared(finish)

    async def keep_transcripts(self, turns: Sequence[StationTurn]) -> None:
        late = late_for(self._queries, self._leases, turns)
        if late:
            writing = self._writing()
            for turn in turns:
                if body := late.get(turn.presentation):
                    keep_transcript(writing, turn, body, body.lease)
            await self._ledger.commit(writing.changes())

    async def step(self) -> bool:
        """Set apart as IN_DOUBT what a station had for too long. Take back into work what was held
        for want of a record, once a correction has brought it: its chip is as it was, and it is
        fed again from the held stack."""
        async with self._one_at_a_time:
            writing = self._writing()
            for body in ran_out(self._queries, self._leases):
                doubt(writing, body)
            found = self._queries.advised_since(TAKEN_BACK_AT_ONCE)
            self._cartons.load(sorted({body.carton_id for body, _ in found}))
            for body, order_id in found:
                self._cartons.take_back(writing, body, order_id)
            if writing.empty:
                return False
            await self._ledger.commit(writing.changes())
            return True

    # The steps of the script.

    def _identified(
        self, turn: StationTurn, session: Session, answers: Answers, facts: Facts
    ) -> Prepared[Session]:
        identity = read_identity(self._profile, session.segment, answers)
        if identity is None:
            return self.unreadable(turn, session, Code.CHIP_UNREADABLE, facts)
        known = facts.identified[identity.identification_code]
        state = key_state(self._profile, identity.keys)
        session = replace(
            session, identity=identity, known=known, body=known.body, remaining=state.temporary
        )
        body = known.body or facts.tickets.get((session.carton_id, session.ticket))
        by_face = facts.faces.get(session.face_number)
        face_order = by_face.order_id if by_face else ""
        if known.order_id and session.face_number and face_order != known.order_id:
            return self.two_cards_in_one(turn, session, by_face)
        if body is not None and not self._cartons.at_hand(body):
            return Prepared(lambda _a, _w: seen_before(body))
        batch_id = self._cartons.carton(session.carton_id).batch_id
        if known.order_id and known.order_batch != batch_id:
            # Its order stands in the return of its own batch, not with a body of this one.
            return self.apart(turn, replace(session, known=None), Code.OTHER_BATCH)
        reason = self._cartons.why_not(session.carton_id, identity, known)
        if not reason and state.formal and not (body and body.released):
            reason = Code.FORMAL_KEYS_FOREIGN
        if reason or state.reason:
            return self.apart(turn, session, reason or state.reason)
        return self._begin(turn, session, identity, state)

    def _begin(
        self, turn: StationTurn, session: Session, identity: Identity, state: KeyState
    ) -> Prepared[Session]:
        """Authenticate for the keys that are to be written, or prove those that are: in the version
        that the chip carries already, else in the one that is active."""
        chip, loading = self._chip(session), self._profile.loading_usage
        requests: list[Request] = [FormalVersion()]
        refusals: dict[tuple[int, str], Callable[[Writing], Outcome[Session]]] = {}
        if state.formal:
            # Whatever the value: a version that the province does not have is refused.
            at = self._profile.key(state.formal[0]).key_id
            value = identity.keys[at].check_value
            requests = [ProveCheckValue(chip, state.formal[0], state.version, value)]
            refusals[0, Code.KEY_UNKNOWN] = lambda writing: self.set_apart(
                turn, session, Code.KEYS_MIXED, writing
            )
        if state.temporary:
            requests.append(Authenticate(chip, KeySet.TEMPORARY, loading, identity.challenge))

        def finish(given: Sequence[Answer], writing: Writing) -> Outcome[Session]:
            after = replace(session, version=given[0].version)
            if not state.temporary:
                assert session.body is not None
                after = replace(after, body=take_back(turn, session.body, writing, self._leases))
                random = self._random(self._profile.block)
                segment = proof_segment(self._profile, random)
                return Outcome(
                    segment, replace(after, segment=segment, go_on="proven", random=random)
                )
            segment = authenticate_segment(self._profile, given[1].data, session.remaining[0])
            return Outcome(segment, replace(after, segment=segment, go_on="authenticated"))

        return Prepared(finish, requests, session.claim, refusals)

    def _authenticated(
        self, turn: StationTurn, session: Session, answers: Answers
    ) -> Prepared[Session]:
        if not answers.complete(session.segment):
            return self.apart(turn, session, Code.AUTHENTICATION_REFUSED)
        return self._write_next(turn, session, answers, first=True)

    def _write_next(
        self, turn: StationTurn, session: Session, answers: Answers, *, first: bool
    ) -> Prepared[Session]:
        if first and session.body is None and not self._cartons.has_unbound(session.carton_id):
            return self.apart(turn, session, Code.OVER_COUNT)
        challenge = answers.of(session.segment, "get challenge")
        if challenge is None or len(challenge.data) != CHALLENGE_BYTES:
            return self.apart(turn, session, Code.KEY_WRITE_REFUSED)
        usage, later = session.remaining[0], session.remaining[1:]
        following = later[0] if later else ""
        random = b"" if later else self._random(self._profile.block)

        def finish(given: Sequence[Answer], writing: Writing) -> Outcome[Session]:
            segment = write_segment(self._profile, usage, given[0].data, following, random)
            body = session.body
            if first:
                body = body or self._cartons.take(session.carton_id, writing)
                if body is None:
                    return self.set_apart(turn, session, Code.OVER_COUNT, writing)
                body = release(turn, session, body, writing, self._leases)
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
        asked = KeyChange(chip, usage, challenge.data, session.version)
        refusals: dict[tuple[int, str], Callable[[Writing], Outcome[Session]]] = {}
        if first:
            # Another version was activated since: the chip is begun anew, in that one.
            refusals[0, Code.KEY_NOT_ACTIVE] = lambda _w: Outcome(Restart(Code.GUARD_FAILED))
        return Prepared(finish, [asked], session.claim, refusals)

    def _written(self, turn: StationTurn, session: Session, answers: Answers) -> Prepared[Session]:
        failed = answers.failed_step(session.segment)
        if failed is not None and failed[0] is session.segment.steps[0]:
            usage = failed[0].name.removeprefix("write key ")
            return self.apart(turn, session, Code.KEY_WRITE_REFUSED, usage)
        if not session.remaining:
            return self._proven(turn, session, answers)
        if failed is not None:
            return self.apart(turn, session, Code.KEY_WRITE_REFUSED, failed[0].name)
        return self._write_next(turn, session, answers, first=False)

    def _proven(self, turn: StationTurn, session: Session, answers: Answers) -> Prepared[Session]:
        """All keys are written: read back they must be formal, of one version, and each must be the
        one that was meant."""
        profile, keys = self._profile, read_keys(session.segment, answers)
        failed = answers.failed_step(session.segment)
        if failed is not None or not answers.complete(session.segment):
            return self.not_proven(turn, session, failed[0].name if failed else "")
        if not key_state(profile, keys).is_whole(session.version):
            return self.not_proven(turn, session, "versions")
        checked = external_usages(profile)
        low = [usage for usage in checked if is_low(profile, keys, profile.key(usage))]
        if low:
            return self.not_proven(turn, session, " ".join(low))
        session = replace(session, unproven=checked)
        asked = proofs(profile, self._chip(session), session.version, keys, session.random,
                       session.segment, answers)  # fmt: skip
        return self._check_next(turn, session, answers, asked)

    def _check_next(
        self, turn: StationTurn, session: Session, answers: Answers, asked: list[Request]
    ) -> Prepared[Session]:
        """Have the chip check the next key that it is to check; without one it is finished. `asked`
        is what the provider has to prove before."""
        chip, proven = self._chip(session), len(asked)
        if session.unproven:
            usage, later = session.unproven[0], session.unproven[1:]
            challenge = answers.of(session.segment, "get challenge")
            if challenge is None or len(challenge.data) != CHALLENGE_BYTES:
                return self.not_proven(turn, session, usage)
            asked = [*asked, Authenticate(chip, KeySet.FORMAL, usage, challenge.data,
                                          session.version)]  # fmt: skip

        def finish(given: Sequence[Answer], writing: Writing) -> Outcome[Session]:
            wrong = [answer.difference for answer in given if answer.difference]
            if wrong:
                return self.set_apart(turn, session, Code.KEY_NOT_PROVEN, writing, " ".join(wrong))
            if not session.unproven:
                return self._replaced(turn, session, writing)
            segment = external_segment(
                self._profile, usage, given[proven].data, later[0] if later else ""
            )
            return Outcome(
                segment, replace(session, segment=segment, go_on="checked", unproven=later)
            )

        return Prepared(finish, asked, session.claim)

    def _checked(self, turn: StationTurn, session: Session, answers: Answers) -> Prepared[Session]:
        """The chip has checked a key by EXTERNAL AUTHENTICATE: once, whatever it said."""
        if not answers.complete(session.segment):
            failed = answers.failed_step(session.segment)
            return self.not_proven(turn, session, failed[0].name if failed else "")
        return self._check_next(turn, session, answers, [])

    # What is written down.

    def _replaced(self, turn: StationTurn, session: Session, writing: Writing) -> Outcome[Session]:
        body = session.body
        assert body is not None
        station = {"station": turn.station_id}
        # What reads it next knows it again by this, should its chip fall silent.
        ticket = session.ticket or body.ticket
        writing.change(
            body, EventType.KEYS_REPLACED, station, place=DONE, ticket=ticket, **RETURNED
        )
        return Outcome(verdict("", Code.OK, Line.INSPECTION))

    def _chip(self, session: Session) -> Chip:
        assert session.identity is not None
        carton = self._cartons.carton(session.carton_id)
        return Chip(session.identity.identification_code, carton.batch_id, session.carton_id)
