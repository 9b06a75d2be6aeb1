"""What the stages share that read a whole chip again: its keys must all be formal, of one version,
its data equal to the sealed record of its order (or empty, for a temporary card), and it must
prove its keys by check value, by INTERNAL, and one by EXTERNAL AUTHENTICATE. Nothing is written to
the chip.

A subclass says which bodies wait for it, where they go, and what it tells the others.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from actors.chip_line import ChipLine, Held, Outcome, Prepared, verdict
from actors.hsm.replacement_script import (
    CHALLENGE_BYTES,
    identity_steps,
    internal_steps,
    proofs,
    read_field,
    read_keys,
)
from actors.hsm.replacement_state import is_low, key_state
from domain.bodies import Body, Writing
from domain.card.apdu import (
    external_authenticate,
    get_challenge,
    read_record,
)
from domain.card.profile import KeyInformation, Profile
from domain.card.records import RecordError
from domain.card.segment import Answers, Segment, Step
from domain.changes import EventType
from domain.codes import Code
from domain.lines import KeyProvider, LedgerDoor
from domain.places import Line, held, rejected
from domain.provider import Answer, Authenticate, Chip, Compare, KeySet, Request
from domain.turns import NoAnswer, Opening, StationTurn, Verdict
from ledger.queries import Identified, Queries

NOT_OF_THE_ORDER = ("identification_code", "card_category")


@dataclass(frozen=True)
class Session:
    segment: Segment
    go_on: str
    """What the answers to `segment` are: "read", "authenticated", or what a subclass adds."""
    random: bytes
    look: Opening
    """What the station saw of the card."""
    body: Body | None = None

    @property
    def carton_id(self) -> str:
        return self.look.carton_id


@dataclass(frozen=True)
class Facts:
    identified: Mapping[str, Identified] = field(default_factory=dict)
    sealed: Mapping[str, str] = field(default_factory=dict)
    faces: Mapping[str, Identified] = field(default_factory=dict)
    tickets: Mapping[tuple[str, str], Body] = field(default_factory=dict)


class ReadingLine(ChipLine[Session, Facts]):
    """A chip line that reads and proves. `arrived`: where the bodies are that it is to read;
    `done`: where a good one goes, with an event of type `passed`."""

    arrived: str
    done: str
    passed: EventType

    def elsewhere(self, body: Body | None, code: str = Code.OK) -> Verdict:
        """What becomes of a chip that does not wait for this stage. `code` is not OK for a chip
        that could not be read."""
        raise NotImplementedError

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
        # The same for every chip. An absent record is an answer too: whether it should be there is
        # for the comparison.
        self._reads = (
            *identity_steps(profile),
            *(
                Step.of(f"read {f.name}", read_record(f.tag, f.file, f.length), "9000", "6A83")
                for f in self._holder_fields
            ),
        )
        self._challenge = Step.of("get challenge", get_challenge())

    async def look_up(self, turns: Sequence[tuple[StationTurn, Session | None]]) -> Facts:
        codes: list[str] = []
        nameless: list[Opening | NoAnswer] = []
        for turn, session in turns:
            content = turn.content
            if isinstance(content, NoAnswer):
                nameless.append(content)
            if isinstance(content, Answers) and session is not None and not session.body:
                code = self.code(session, content)
                if code is not None:
                    codes.append(code)
                else:
                    nameless.append(session.look)
        identified = self._queries.identify(codes) if codes else {}
        orders = [i.order_id for i in identified.values() if i.order_id]
        sealed = self._queries.sealed(orders) if orders else {}
        by_face = await self.orders_by_face({n.face_number for n in nameless} - {""})
        by_ticket = self._queries.bodies_by_ticket([(n.carton_id, n.ticket) for n in nameless])
        return Facts(identified, sealed, by_face, by_ticket)

    def open(
        self, turn: StationTurn, content: Opening | NoAnswer, facts: Facts
    ) -> Prepared[Session]:
        if isinstance(content, NoAnswer):
            return self.unreadable(content, facts, Code.CHIP_SILENT)
        return self.begin_reading(content)

    def begin_reading(self, look: Opening) -> Prepared[Session]:
        """Have the chip read; nothing is known of it yet but its face."""
        random = self._random(self._profile.block)
        segment = self._read_segment(random)
        session = Session(segment, "read", random, look)
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
                return self._reject(
                    writing, body, Code.KEY_NOT_PROVEN, self._profile.external_usage
                )
            station = {"station": turn.station_id}
            # By this it is found in the good stack, if it is drawn as a sample.
            ticket = session.look.ticket or body.ticket
            writing.change(body, self.passed, station, place=self.done, ticket=ticket)
            return Outcome(verdict("good"))

        return Prepared(finish)

    def _read_segment(self, random: bytes) -> Segment:
        """All that is checked by reading, and the challenge for the last proof."""
        return Segment((*self._reads, *internal_steps(self._profile, random), self._challenge))

    def code(self, session: Session, answers: Answers) -> str | None:
        return read_field(self._profile, session.segment, answers, "identification_code")

    def _was_read(
        self, turn: StationTurn, session: Session, answers: Answers, facts: Facts
    ) -> Prepared[Session]:
        code = self.code(session, answers)
        if code is None:
            return self.unreadable(session.look, facts, Code.CHIP_UNREADABLE)
        known = facts.identified[code]
        body = known.body
        if body is None or body.place != self.arrived:
            return Prepared(lambda _a, _w: Outcome(self.elsewhere(body)))
        if known.stopped == Code.CANCELLED and self.line == Line.INSPECTION:
            return Prepared(lambda _a, w: self._hold(w, body, Code.CANCELLED))
        keys = read_keys(session.segment, answers)
        challenge = answers.of(session.segment, "get challenge")
        detail = self._unfit(session, answers, keys)
        if detail or challenge is None:
            return Prepared(lambda _a, w: self._reject(w, body, Code.KEY_NOT_PROVEN, detail))
        chip = Chip(known.identification_code, body.batch_id, body.carton_id)
        version, usage = key_state(self._profile, keys).version, self._profile.external_usage
        requests = proofs(self._profile, chip, version, keys, session.random, session.segment,
                          answers)  # fmt: skip
        proven = len(requests)
        requests.append(Authenticate(chip, KeySet.FORMAL, usage, challenge.data, version))
        foreign = self._prepare_compare(session, answers, known, facts, requests)
        key_id = self._profile.key(usage).key_id

        def finish(given: Sequence[Answer], writing: Writing) -> Outcome[Session]:
            wrong = [answer.difference for answer in given[:proven] if answer.difference]
            if wrong:
                return self._reject(writing, body, Code.KEY_NOT_PROVEN, " ".join(wrong))
            differs = foreign or "".join(answer.difference for answer in given[proven:])
            if differs:
                return self._reject(writing, body, Code.DATA_DIFFERS, differs)
            cryptogram = external_authenticate(key_id, given[proven].data)
            segment = Segment((Step.of("external authenticate", cryptogram),))
            after = replace(session, segment=segment, go_on="authenticated", body=body)
            return Outcome(segment, after)

        return Prepared(finish, requests)

    def _unfit(self, session: Session, answers: Answers, keys: Mapping[int, KeyInformation]) -> str:
        """Why the keys of a chip can't be proven, as far as its own words tell; empty if they
        can: its set is whole, in the version that it carries, and no counter is low."""
        if not answers.complete(session.segment):
            failed = answers.failed_step(session.segment)
            return f"{failed[0].name}: {failed[1].status_word:04X}" if failed else "cut off"
        state = key_state(self._profile, keys)
        if not state.is_whole(state.version):
            return "versions"
        challenge = answers.of(session.segment, "get challenge")
        external = self._profile.key(self._profile.external_usage)
        if challenge is None or len(challenge.data) != CHALLENGE_BYTES:
            return "get challenge"
        return external.usage if is_low(self._profile, keys, external) else ""

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

    def unreadable(self, look: Opening | NoAnswer, facts: Facts, code: str) -> Prepared[Session]:
        """A chip that had its keys replaced and does not answer any more: the number on its face
        tells which it is, or the feeder's ticket. Without both the floor has to look."""
        by_face = facts.faces.get(look.face_number)
        body = by_face.body if by_face else facts.tickets.get((look.carton_id, look.ticket))
        if body is None or body.place != self.arrived:
            return Prepared(lambda _a, _w: Outcome(self.elsewhere(body, code)))
        return Prepared(lambda _a, w: self._reject(w, body, code, ""))

    def _hold(self, writing: Writing, body: Body, code: str) -> Outcome[Session]:
        writing.change(body, EventType.BODY_HELD, place=held(self.line), condition=code)
        return Outcome(verdict("held", code))

    def _reject(self, writing: Writing, body: Body, code: str, detail: str) -> Outcome[Session]:
        writing.change(
            body,
            EventType.BODY_REJECTED,
            {"detail": detail} if detail else {},
            place=rejected(self.line),
            condition=code,
            live=False,
        )
        return Outcome(verdict("rejected", code))
