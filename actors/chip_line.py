"""What the lines that talk to chips share: sessions as turns.

A turn is prepared (what does it ask of the provider?), the requests of all turns of a chunk go
to the provider in one call, each turn is decided, all changes go to the ledger in one commit,
and only then do the answers leave. Sessions live in memory alone: when one is lost, the station
re-powers its chip and opens it again, and the ledger and the chip tell where it stands.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import structlog

from actors import metrics
from actors.floor_acts import carry_out
from actors.stock import count
from domain.bodies import Writing
from domain.card.profile import Profile
from domain.card.segment import Answers, Segment
from domain.changes import Away, Refused
from domain.codes import Code
from domain.factory_return import FACE, index_text
from domain.lines import (
    CarriedOut,
    ConfirmedAct,
    KeyProvider,
    LedgerDoor,
    Receipt,
    StockCount,
)
from domain.places import Line
from domain.provider import Answer, LookUp, Request
from domain.turns import (
    CentreTurn,
    Content,
    NoAnswer,
    Opening,
    Restart,
    StationTurn,
    Verdict,
    Wait,
)
from ledger.queries import Identified, Queries

log = structlog.get_logger()


_STRANGE = Restart(Code.SESSION_UNKNOWN)


class ChipSession(Protocol):
    """What every session knows: the segment that it sent last, and its card's carton."""

    @property
    def segment(self) -> Segment: ...

    @property
    def carton_id(self) -> str: ...


SessionT = TypeVar("SessionT", bound=ChipSession)
FactsT = TypeVar("FactsT")

MAX_SESSIONS = 10_000
MAX_POWER_ONS = 3
"""Of one chip that loses its session each time: as many as a station gives a silent one."""
RETRY_MILLISECONDS = 300
REFUSED_MILLISECONDS = 2_000


@dataclass(frozen=True)
class Outcome(Generic[SessionT]):
    """How a turn ends: what the station is told, and the session as it goes on (None: over)."""

    content: Content
    session: SessionT | None = None


Refusals = Mapping[tuple[int, str], Callable[[Writing], Outcome[SessionT]]]
"""By place of the request, counted from 0, and code."""


@dataclass(frozen=True)
class Prepared(Generic[SessionT]):
    """A turn ready to be decided: `finish` gets the provider's answers, in order. When the
    provider refuses one of them (no key, no quota) the station waits and asks again, unless
    `refusals` says what becomes of a turn whose request of this place is refused with this code.
    `claim` names the card, as far as it is known: one chunk decides one turn of each."""

    finish: Callable[[Sequence[Answer], Writing], Outcome[SessionT]]
    requests: Sequence[Request] = field(default=())
    claim: str = ""
    refusals: Refusals[SessionT] = field(default_factory=dict)


class Held(Exception):
    """This turn cannot be decided now; the station keeps the chip and asks again."""

    def __init__(self, code: str, milliseconds: int = RETRY_MILLISECONDS) -> None:
        super().__init__(code)
        self.code = code
        self.milliseconds = milliseconds


@dataclass
class _Known(Generic[SessionT]):
    number: int
    reply: CentreTurn
    session: SessionT | None


class ChipLine(Generic[SessionT, FactsT]):
    """Base of a line. A subclass says what each turn means by `look_up`, `open` and `go_on`."""

    line: Line

    def __init__(
        self,
        ledger: LedgerDoor,
        provider: KeyProvider,
        queries: Queries,
        profile: Profile,
        command_prefix: str,
        random: Callable[[int], bytes],
    ) -> None:
        """`command_prefix` is new for each instance, so that its command ids are."""
        self._ledger = ledger
        self._provider = provider
        self._queries = queries
        self._profile = profile
        self._random = random
        self._prefix = command_prefix
        self._commands = 0
        self._known: OrderedDict[str, _Known[SessionT]] = OrderedDict()
        self._lost: Counter[tuple[str, str]] = Counter()
        self._one_at_a_time = asyncio.Lock()
        self._batches: dict[str, str] = {}
        """By carton, for the log."""
        metrics.expect_chip_line(self.line)

    # What a subclass says.

    async def look_up(self, turns: Sequence[tuple[StationTurn, SessionT | None]]) -> FactsT:
        """All that the ledger knows about the chips of this chunk, in a few queries."""
        raise NotImplementedError

    def open(
        self, turn: StationTurn, content: Opening | NoAnswer, facts: FactsT
    ) -> Prepared[SessionT]:
        """A chip is presented. May raise Held."""
        raise NotImplementedError

    def go_on(
        self, turn: StationTurn, session: SessionT, answers: Answers, facts: FactsT
    ) -> Prepared[SessionT]:
        """A segment was run whole or up to an unexpected status word. May raise Held."""
        raise NotImplementedError

    def forget(self) -> None:
        """Drop what was remembered from the ledger: a commit did not go through."""

    async def keep_transcripts(self, turns: Sequence[StationTurn]) -> None:
        """Answers came of sessions that this line does not know (any more); they move nothing."""

    async def orders_by_face(
        self, faces: Iterable[str], known: Mapping[str, str] | None = None
    ) -> dict[str, Identified]:
        """The orders whose social card number stands on a card's face, by that number. `known`:
        look-up values by number, as far as they were asked for before (`look_up_of`)."""
        values = dict(known or {})
        numbers = sorted(set(faces) - set(values))
        if numbers:
            texts = [index_text(FACE, n) for n in numbers]
            values |= zip(numbers, await self._provider.index(texts), strict=True)
        orders = self._queries.orders_by_number(FACE, list(values.values())) if values else {}
        return {n: orders[v] for n, v in values.items() if v in orders}

    def look_up_of(self, face_number: str) -> list[LookUp]:
        """Asks for the look-up value of a face together with what else a chunk asks of the
        provider: nothing if there is no number on it."""
        return [LookUp(index_text(FACE, face_number))] if face_number else []

    # What the stations call.

    async def turns(self, turns: Sequence[StationTurn]) -> list[CentreTurn]:
        """Answer a chunk of turns, at most one of each presentation."""
        metrics.chunk_turns(self.line).observe(len(turns))
        async with self._one_at_a_time:
            replies: dict[str, CentreTurn] = {}
            fresh: list[tuple[StationTurn, SessionT | None]] = []
            strange: list[StationTurn] = []
            for turn in turns:
                reply = self._without_deciding(turn)
                if reply is not None:
                    replies[turn.presentation] = reply
                    if reply.content == _STRANGE:
                        strange.append(turn)
                else:
                    known = self._known.get(turn.presentation)
                    fresh.append((turn, known.session if known else None))
            if fresh:
                with structlog.contextvars.bound_contextvars(**self._about(fresh)):
                    outcomes = await self._decide(fresh)
                for (turn, session), outcome in zip(fresh, outcomes, strict=True):
                    batch_id = self._batches.get(_carton_of(turn, session), "")
                    replies[turn.presentation] = self._remember(turn, outcome, batch_id)
            if strange:
                await self.keep_transcripts(strange)
            return [replies[t.presentation] for t in turns]

    async def count_stock(self, command: StockCount) -> Receipt:
        """Compare what was scanned with the books, and keep what differs (`actors.stock`)."""
        async with self._one_at_a_time:
            return await count(self.line, self._ledger, self._queries, command)

    async def carry_out(self, act: ConfirmedAct) -> CarriedOut:
        """Do what two people have confirmed, once (`actors.floor_acts`)."""
        async with self._one_at_a_time:
            try:
                return await carry_out(self.line, self._ledger, self._queries, act)
            finally:
                self.forget()

    def _about(self, fresh: Sequence[tuple[StationTurn, SessionT | None]]) -> dict[str, list[str]]:
        """What every log line about a chunk names: batches, cartons, stations."""
        cartons = {_carton_of(turn, session) for turn, session in fresh}
        unknown = sorted(cartons - self._batches.keys())
        if unknown:
            self._batches.update(self._queries.batches_of_cartons(unknown))
        return {
            "batch_ids": sorted({self._batches[c] for c in cartons if c in self._batches}),
            "carton_ids": sorted(cartons),
            "stations": sorted({turn.station_id for turn, _ in fresh}),
        }

    def _without_deciding(self, turn: StationTurn) -> CentreTurn | None:
        """The answer to a repeated turn, or to one that this line can't place."""
        known = self._known.get(turn.presentation)
        if known is not None and known.number == turn.number:
            return known.reply
        if isinstance(turn.content, Answers):
            if known is None or known.session is None or turn.number != known.number + 1:
                return self._restart(turn, _STRANGE)
            if turn.content.broken:
                return self._restart(turn, Restart(Code.OK))
            if turn.content.session_lost(known.session.segment):
                # The card stays in its reader, so what comes there next is the same chip.
                self._lost[turn.station_id, turn.reader] += 1
                if self._lost[turn.station_id, turn.reader] < MAX_POWER_ONS:
                    return self._restart(turn, Restart(Code.SESSION_LOST))
        return None

    async def _decide(
        self, fresh: Sequence[tuple[StationTurn, SessionT | None]]
    ) -> list[Outcome[SessionT]]:
        writing = self._writing()
        outcomes: list[Outcome[SessionT]] = []
        lap = metrics.laps(self.line)
        try:
            facts = await self.look_up(fresh)
            lap("look_up")
            prepared = self._one_of_each(
                [self._prepare(turn, session, facts) for turn, session in fresh], fresh
            )
            requests = [r for p in prepared for r in p.requests]
            lap("prepare")
            answers = await self._provider.perform(requests) if requests else []
            lap("provider")
            at = 0
            for p, (_, session) in zip(prepared, fresh, strict=True):
                mine = answers[at : at + len(p.requests)]
                at += len(p.requests)
                outcomes.append(_finish(p, mine, writing, session))
            lap("decide")
            if not writing.empty:
                await self._ledger.commit(writing.changes())
                lap("commit")
        except Away as e:
            log.warning("line.away", line=self.line, reason=str(e))
            self.forget()
            return self._after_failure(fresh, writing, e.code)
        except Refused as e:
            # Another instance, or a stale picture: look at the ledger and the chips again.
            log.warning("line.refused", line=self.line, code=e.code, detail=e.detail)
            self.forget()
            return [Outcome(Restart(e.code)) for _ in fresh]
        except Exception:
            # A fault of the program: what was taken from memory is read again.
            self.forget()
            raise
        return outcomes

    def _writing(self) -> Writing:
        """For the next command."""
        self._commands += 1
        return Writing(self.line, f"{self._prefix}:{self._commands}")

    def _one_of_each(
        self,
        prepared: Sequence[Prepared[SessionT]],
        fresh: Sequence[tuple[StationTurn, SessionT | None]],
    ) -> list[Prepared[SessionT]]:
        """Two presentations of one card are decided one after the other: the second waits."""
        claimed: set[str] = set()
        chosen = []
        for p, (_, session) in zip(prepared, fresh, strict=True):
            if p.claim and p.claim in claimed:
                p = _waiting(Code.BUSY, RETRY_MILLISECONDS, session)
            claimed.add(p.claim)
            chosen.append(p)
        return chosen

    def _after_failure(
        self, fresh: Sequence[tuple[StationTurn, SessionT | None]], writing: Writing, code: str
    ) -> list[Outcome[SessionT]]:
        """Nothing was released. Before a commit was tried the same turn may come again; after
        that its effect is not known, so the chip is read anew."""
        if writing.empty:
            return [Outcome(Wait(RETRY_MILLISECONDS, code), session) for _, session in fresh]
        return [Outcome(Restart(code)) for _ in fresh]

    def _prepare(
        self, turn: StationTurn, session: SessionT | None, facts: FactsT
    ) -> Prepared[SessionT]:
        try:
            if isinstance(turn.content, Answers):
                assert session is not None
                return self.go_on(turn, session, turn.content, facts)
            return self.open(turn, turn.content, facts)
        except Held as e:
            return _waiting(e.code, e.milliseconds, session)

    def _restart(self, turn: StationTurn, restart: Restart) -> CentreTurn:
        self._known.pop(turn.presentation, None)
        return CentreTurn(turn.presentation, turn.number, turn.stage, restart)

    def _remember(self, turn: StationTurn, outcome: Outcome[SessionT], batch_id: str) -> CentreTurn:
        content = outcome.content
        reply = CentreTurn(turn.presentation, turn.number, turn.stage, content, batch_id)
        if isinstance(content, Verdict):
            self._lost.pop((turn.station_id, turn.reader), None)
        if isinstance(content, Restart):
            self._known.pop(turn.presentation, None)
        elif not isinstance(content, Wait):
            self._known[turn.presentation] = _Known(turn.number, reply, outcome.session)
            self._known.move_to_end(turn.presentation)
            while len(self._known) > MAX_SESSIONS:
                self._known.popitem(last=False)
        return reply


def _carton_of(turn: StationTurn, session: ChipSession | None) -> str:
    if isinstance(turn.content, Answers):
        return session.carton_id if session else ""
    return turn.content.carton_id


def _waiting(code: str, milliseconds: int, session: SessionT | None) -> Prepared[SessionT]:
    wait: Outcome[SessionT] = Outcome(Wait(milliseconds, code), session)
    return Prepared(lambda _answers, _writing: wait)


def _finish(
    prepared: Prepared[SessionT],
    answers: Sequence[Answer],
    writing: Writing,
    session: SessionT | None,
) -> Outcome[SessionT]:
    first = next(((at, a.refused) for at, a in enumerate(answers) if a.refused), None)
    if first is None:
        return prepared.finish(answers, writing)
    if first in prepared.refusals:
        return prepared.refusals[first](writing)
    return Outcome(Wait(REFUSED_MILLISECONDS, first[1]), session)


def verdict(stack: str, code: str = Code.OK, next_stage: str = "") -> Verdict:
    """How a session ends: a stack to eject to, or the stage that opens the chip next."""
    return Verdict(next_stage, stack, code)
