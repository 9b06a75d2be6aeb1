"""One chip after another through one reader, each told by the centre what becomes of it.

A presentation is one opening of one chip at one stage: power on, turn 0, then segment and
answers in turn until the verdict. Whatever goes wrong, the chip stays where it lies and is opened
anew as another presentation; only a verdict ejects it. A reader that hangs, or whose cards fail too
often, is in quarantine until it answers again, or was plugged in again.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Event
from time import perf_counter
from typing import Final, NoReturn, Protocol

import structlog

from domain.card.apdu import matches
from domain.codes import Code
from station_agents import metrics
from station_agents.feeder import GOOD, EjectUnknown, Feeder, FeederRefused, Look
from station_agents.journal import Journal
from station_agents.metrics import ReaderState, reader_is
from station_agents.pausing import GrowingPause, Stopping, wait
from station_agents.pcsc import CardSilent, ReaderError, ReaderHung, ServiceLost
from station_agents.quarantine import Outcome, Quarantine
from station_agents.reader import Reader
from stubs import station_pb2 as pb

_WAIT_FOR_CARD_SECONDS: Final = 60.0
_SHORTEST_WAIT_SECONDS: Final = 0.01
_OK: Final = 0x9000


class Asking(Protocol):
    """The way to the centre (`station_agents.door.Door`)."""

    def ask(self, turn: pb.StationTurn) -> pb.CentreTurn: ...

    def tell(self, turn: pb.StationTurn) -> None: ...

    def stand(self, news: pb.ReaderNews) -> None: ...


def nothing(state: str) -> None:
    """The hook of a station that is not being tested."""


@dataclass
class Station:
    """What the sessions of one station share."""

    station_id: str
    stages: Sequence[str]
    """In working order; a chip is opened at the first."""
    door: Asking
    journal: Journal
    stopping: Event
    at: Callable[[str], None] = nothing
    """Called with the name of each state that a segment passes: `segment.before` (received),
    `write.before` (a writing segment is in the journal, nothing sent), `write.within` (its first
    step is answered), `write.after` (all are), `segment.after` (journalled, answers not sent)."""
    quarantine: Quarantine = field(default_factory=Quarantine)


class Again(Exception):
    """This presentation is over without a verdict: open the chip again."""


class Untrusted(Exception):
    """The reader gets no more cards until it was plugged in again."""


class Session:
    """The reader `reader` with its `feeder`. `run` in a thread of its own, `watch` from another."""

    def __init__(self, station: Station, reader: Reader, feeder: Feeder) -> None:
        self._station = station
        self._reader = reader
        self._feeder = feeder
        self._again = GrowingPause(station.stopping, 0.05, 2.0)
        self._feeder_came_back = 0
        self._standing: str | None = None
        self._in_hand: pb.StationTurn | None = None
        """The turn that the segment which runs now will send."""
        self._writes = False
        self._broke_off = False
        self._silent: Look | None = None
        self._log = structlog.get_logger().bind(reader=reader.name)
        self.statistics = reader.statistics
        station.quarantine.begin(reader.name)

    def _stand(self, code: str) -> None:
        """Tell the centre, if it is news, why this reader does not work; empty: it works."""
        if code != self._standing:
            self._standing = code
            self._station.door.stand(
                pb.ReaderNews(
                    station_id=self._station.station_id, reader=self._reader.name, code=code
                )
            )

    def run(self) -> None:
        """Until the station stops; nothing else ends it."""
        stopping = self._station.stopping
        self._feeder.away = lambda: self._stand(Code.FEEDER_AWAY)
        self._stand("")
        while not stopping.is_set():
            try:
                try:
                    with metrics.card(self._reader.name):
                        self._serve_card()
                except Again as e:
                    self._log.info("chip.again", reason=str(e))
                    self._again.take()
                except Stopping:
                    raise
                except ServiceLost as e:
                    self._log.warning("pcsc.lost", code=f"{e.code:08X}")
                    self._stand(Code.PCSC_AWAY)
                    self._reader.await_return()
                except Untrusted as e:
                    self._sit_out(str(e))
                except ReaderHung:
                    self._log.info("reader.answers_again")
                    self._again.take()
                except ReaderError as e:
                    self._log.warning("reader.failed", error=type(e).__name__, reason=str(e))
                    self._stand(Code.READER_AWAY)
                    self._again.take()
                except EjectUnknown:
                    self._log.warning("feeder.eject_unknown")
                except FeederRefused as e:
                    self._log.error("feeder.refused", reason=str(e))
                    self._stand(Code.FEEDER_AWAY)
                    self._again.take()
                except Exception as e:  # noqa: BLE001  # a reader never stops working in silence
                    # The type only: a message may hold what a log must not.
                    self._log.error("reader.unexpected", error=type(e).__name__)
                    self._again.take()
            except Stopping:
                break
        with contextlib.suppress(ReaderHung):
            self._reader.close()

    def watch(self, seconds: float) -> bool:
        """Whether the reader hangs: its call under way takes longer than `seconds`. When that is
        new, the centre is told: what the chip has done is unknown."""
        return self._reader.watched.give_up(seconds, self._tell_hung)

    def _tell_hung(self) -> None:
        # The session's thread waits in the call, and can't come back before this is done.
        self._log.error("reader.hangs", code=Code.READER_QUARANTINED)
        self.statistics.hung()
        turn, self._in_hand = self._in_hand, None
        if turn is not None:
            turn.answers.broken = ReaderHung.broken
            self._broke_off = True
            self.statistics.broke_off()
            self._station.door.tell(turn)
        self._quarantined()
        if turn is not None:
            try:
                self._finished(turn)
            except OSError as e:
                self._log.error("journal.failed", error=type(e).__name__)

    def _quarantined(self) -> None:
        self.statistics.quarantined()
        reader_is(self._reader.name, ReaderState.QUARANTINED)
        self._stand(Code.READER_QUARANTINED)

    def _sit_out(self, why: str) -> None:
        """Until somebody has unplugged the reader and plugged it in again. Raises Stopping."""
        self._log.error("reader.quarantined", code=Code.READER_QUARANTINED, reason=why)
        self._quarantined()
        self._reader.await_replug()
        self._log.info("reader.released")
        self._silent = None
        self._station.quarantine.begin(self._reader.name)

    def _note(self, outcome: Outcome) -> None:
        """Raises Untrusted."""
        why = self._station.quarantine.note(self._reader.name, outcome)
        if why:
            raise Untrusted(why)

    def _serve_card(self) -> None:
        """The card that lies in the reader, from its opening to a stack."""
        look = self._feeder.look()
        structlog.contextvars.bind_contextvars(carton_id=look.carton_id)
        if not look.loaded:
            self._log.info("feeder.empty")
            self._stand(Code.FEEDER_EMPTY)
            self._reader.emptied()
            reader_is(self._reader.name, ReaderState.EMPTY)
            while not self._feeder.wait(_WAIT_FOR_CARD_SECONDS):
                pass
            return
        if self._feeder.came_back != self._feeder_came_back:
            self._feeder_came_back = self._feeder.came_back
            self._reader.accident()
            self._broke_off = False  # not by the reader's fault
        if self._broke_off:
            self._broke_off = False
            self._note(Outcome.BROKEN)
        stage = self._station.stages[0]
        laid_in = perf_counter()
        while True:
            began = perf_counter()
            verdict = self._present(stage, look)
            metrics.presented(stage, verdict.stack, perf_counter() - began)
            self._again.reset()
            if verdict.next_stage not in self._station.stages:
                break
            stage = verdict.next_stage
        # A stage that is done elsewhere: the card goes on with the good ones.
        stack = verdict.stack or (GOOD if verdict.next_stage else "")
        self._feeder.eject(stack, look.ticket)
        self.statistics.card_done(perf_counter() - laid_in)
        if self._silent != look:
            self._note(Outcome.ANSWERED)

    def _present(self, stage: str, look: Look) -> pb.Verdict:
        """One presentation. Raises Again, Untrusted, ReaderError, Stopping, or what the feeder
        raises."""
        presentation = str(uuid.uuid4())
        log = self._log.bind(presentation=presentation, stage=stage)
        turn = pb.StationTurn(
            station_id=self._station.station_id,
            reader=self._reader.name,
            presentation=presentation,
            stage=stage,
        )
        try:
            atr = self._reader.power_on()
        except CardSilent as e:
            # No card answers either when it was taken away, or when the feeder itself failed.
            if self._feeder.look() != look or self._feeder.came_back != self._feeder_came_back:
                raise Again("silent, but not the card that was looked at") from None
            log.warning("chip.silent", code=f"{e.code:08X}")
            if self._silent != look:  # not for the same card again
                self._silent = look
                self._note(Outcome.SILENT)
            turn.no_answer.CopyFrom(
                pb.NoAnswer(
                    carton_id=look.carton_id, face_number=look.face_number, ticket=look.ticket
                )
            )
        else:
            turn.opening.CopyFrom(
                pb.Opening(
                    atr=atr,
                    carton_id=look.carton_id,
                    face_number=look.face_number,
                    ticket=look.ticket,
                )
            )
        self._stand("")
        while True:
            with metrics.turn(self._reader.name, stage, "centre"):
                answer = self._station.door.ask(turn)
            if answer.batch_id:
                log = log.bind(batch_id=answer.batch_id)
            match answer.WhichOneof("content"):
                case "segment" if turn.WhichOneof("content") != "no_answer":
                    with metrics.turn(self._reader.name, stage, "chip"):
                        turn = self._run_segment(answer.segment, turn)
                case "verdict":
                    log.info("chip.verdict", code=answer.verdict.code, stack=answer.verdict.stack,
                             next_stage=answer.verdict.next_stage)  # fmt: skip
                    return answer.verdict
                case "wait":
                    reader_is(self._reader.name, ReaderState.WAITING)
                    seconds = max(answer.wait.milliseconds / 1000, _SHORTEST_WAIT_SECONDS)
                    wait(self._station.stopping, seconds)
                case "restart":
                    raise Again(answer.restart.code)
                case other:
                    raise Again(f"the centre sent {other}")

    def _run_segment(self, segment: pb.Segment, turn: pb.StationTurn) -> pb.StationTurn:
        """Run `segment`, which answered `turn`; the next turn, with its answers.

        A chip or reader that fails on the way is told to the centre and then raised.
        """
        station, at = self._station, self._station.at
        at("segment.before")
        following = pb.StationTurn(
            station_id=turn.station_id,
            reader=turn.reader,
            presentation=turn.presentation,
            stage=turn.stage,
            number=turn.number + 1,
        )
        answers = following.answers
        answers.SetInParent()
        if segment.writes:
            names = [step.name for step in segment.steps]
            station.journal.released(turn.presentation, turn.stage, following.number, names)
            at("write.before")
        failure: Exception | None = None
        self._in_hand, self._writes = following, segment.writes
        try:
            if segment.writes:
                go_on = self._run_steps(segment.steps[:1], answers)
                at("write.within")
                if go_on:
                    self._run_steps(segment.steps[1:], answers)
                at("write.after")
            else:
                self._run_steps(segment.steps, answers)
        except ReaderHung:
            raise  # it was told and journalled when the reader was given up
        except ReaderError as e:
            failure, answers.broken = e, e.broken
        except Exception as e:  # noqa: BLE001  # what was done has to be on record all the same
            failure, answers.broken = e, "unknown"
        finally:
            self._in_hand = None
            self.statistics.answered(len(answers.steps))
        self._finished(following)
        at("segment.after")
        if failure is not None:
            self._break_off(following, failure)
        return following

    def _finished(self, turn: pb.StationTurn) -> None:
        """The segment whose answers `turn` has is over, whatever came of it."""
        if self._writes:
            words = [answer.status_word for answer in turn.answers.steps]
            self._station.journal.finished(
                turn.presentation, turn.stage, turn.number, words, turn.answers.broken
            )

    def _run_steps(self, steps: Sequence[pb.Step], answers: pb.Answers) -> bool:
        """Run steps until one is answered with an unexpected status word; whether none was."""
        transmit, add = self._reader.transmit, answers.steps.add
        for apdu, expect in [(list(step.apdu), tuple(step.expect)) for step in steps]:
            response = transmit(apdu)
            word = response[-2] << 8 | response[-1]
            add(status_word=word, data=bytes(response[:-2]))
            if word == _OK and "9000" in expect:
                continue
            if not any(matches(word, pattern) for pattern in expect):
                return False
        return True

    def _break_off(self, turn: pb.StationTurn, failure: Exception) -> NoReturn:
        self._broke_off = not isinstance(failure, ServiceLost)
        self.statistics.broke_off()
        # Its answer would be about a chip that may lie elsewhere by now: it is not awaited.
        self._station.door.tell(turn)
        raise failure
