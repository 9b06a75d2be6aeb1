"""A chip that answers anything, through a PC/SC service that returns anything."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Event
from typing import Any
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st
from smartcard import scard
from structlog.testing import capture_logs

from domain.card.apdu import is_expected
from station_agents.feeder import Look
from station_agents.pausing import Stopping
from station_agents.reader import Patience, Reader
from station_agents.session import Session, Station
from stubs import station_pb2 as pb

CODES = [
    scard.SCARD_S_SUCCESS, scard.SCARD_W_REMOVED_CARD, scard.SCARD_W_RESET_CARD,
    scard.SCARD_E_NOT_TRANSACTED, scard.SCARD_E_INVALID_HANDLE, scard.SCARD_E_READER_UNAVAILABLE,
    scard.SCARD_W_UNRESPONSIVE_CARD, scard.SCARD_E_NO_SERVICE, scard.SCARD_E_UNKNOWN_READER,
    scard.SCARD_F_COMM_ERROR, 0x7FFFFFFF,
]  # fmt: skip
_words = st.sampled_from([b"\x90\x00", b"\x61\x00", b"\x61\x05", b"\x6c\x10", b"\x63\xc2"])
answers = st.lists(
    st.tuples(
        st.sampled_from(CODES[:1] * 12 + CODES),
        st.one_of(
            st.builds(bytes.__add__, st.binary(max_size=256), _words), st.binary(max_size=258)
        ),
    ),
    max_size=40,
)
apdus = st.one_of(st.binary(min_size=4, max_size=20), st.just(bytes.fromhex("00B2093420")))
expects = st.lists(st.sampled_from(["9000", "61xx", "6Cxx", "63Cx", "6A83"]), min_size=1)
segments = st.lists(
    st.tuples(st.lists(st.tuples(apdus, expects), max_size=6), st.booleans()), min_size=1,
    max_size=4,
)  # fmt: skip


class Scripted:
    """`smartcard.scard` with one reader whose chip answers from a list, and then goes on with
    9000. `sent` is every command with what came back."""

    def __init__(self, codes: Sequence[int], answers: Sequence[tuple[int, bytes]]) -> None:
        self._codes, self._answers = iter(codes), iter(answers)
        self.sent: list[tuple[bytes, int, bytes]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(scard, name)  # the constants

    def SCardEstablishContext(self, scope: int) -> tuple[int, int]:
        return 0, 1

    def SCardReleaseContext(self, context: int) -> int:
        return 0

    def SCardListReaders(self, context: int, groups: list[str]) -> tuple[int, list[str]]:
        return next(self._codes, 0), ["R"]

    def SCardConnect(self, *_: object) -> tuple[int, int, int]:
        return next(self._codes, 0), 7, 1

    def SCardReconnect(self, *_: object) -> tuple[int, int]:
        return next(self._codes, 0), 1

    def SCardStatus(self, handle: int) -> tuple[int, str, int, int, bytes]:
        return next(self._codes, 0), "R", 0, 1, b"\x3b\x00"

    def SCardGetStatusChange(self, *_: object) -> tuple[int, list[tuple[str, int, bytes]]]:
        return next(self._codes, 0), [("R", scard.SCARD_STATE_PRESENT, b"")]

    def SCardDisconnect(self, handle: int, disposition: int) -> int:
        return 0

    def SCardTransmit(self, handle: int, pci: object, apdu: list[int]) -> tuple[int, list[int]]:
        code, answer = next(self._answers, (0, b"\x90\x00"))
        self.sent.append((bytes(apdu), code, answer))
        return code, list(answer)


class Examiner:
    """The centre: it hands out segments, and compares what is told of each with what was sent."""

    def __init__(self, card: Scripted, script: Sequence[Any], stopping: Event) -> None:
        self._card, self._script, self._stopping = card, iter(script), stopping
        self._steps: Sequence[tuple[bytes, list[str]]] = []
        self._began = 0
        self.complete = 0

    def ask(self, turn: pb.StationTurn) -> pb.CentreTurn:
        self._examine(turn)
        following = next(self._script, None)
        if following is None:
            self._stopping.set()
            return pb.CentreTurn(verdict=pb.Verdict(stack="good", code="OK"))
        self._steps, writes = following
        self._began = len(self._card.sent)
        steps = [pb.Step(apdu=a, expect=e, name="s") for a, e in self._steps]
        return pb.CentreTurn(segment=pb.Segment(steps=steps, writes=writes))

    def tell(self, turn: pb.StationTurn) -> None:
        assert turn.answers.broken
        self._examine(turn)

    def stand(self, news: pb.ReaderNews) -> None:
        """Not examined."""

    def _examine(self, turn: pb.StationTurn) -> None:
        if turn.WhichOneof("content") != "answers":
            return
        sent = iter(self._card.sent[self._began :])
        for (apdu, expect), told in zip(self._steps, turn.answers.steps, strict=False):
            command, code, answer = next(sent)
            assert command == apdu
            # What belongs to the same step: GET RESPONSE, or the command with another Le.
            while answer[-2:] != told.status_word.to_bytes(2, "big") or code:
                assert code == 0
                assert answer[-2] in (0x61, 0x6C)
                _, code, answer = next(sent)
            if told is not turn.answers.steps[-1]:
                assert is_expected(told.status_word, expect)
        if not turn.answers.broken and len(turn.answers.steps) == len(self._steps):
            self.complete += 1


class NoJournal:
    def released(self, *_: object) -> None: ...

    def finished(self, *_: object) -> None: ...


class OneCard:
    """A feeder with a card that lies in the reader until the station stops."""

    came_back = 0
    away: Any = None

    def __init__(self, stopping: Event) -> None:
        self._stopping = stopping

    def look(self) -> Look:
        if self._stopping.is_set():
            raise Stopping
        return Look(loaded=True, ticket="t")

    def eject(self, stack: str, ticket: str) -> bool:
        return False

    def wait(self, seconds: float) -> bool:
        return True


class AtOnce(Event):
    """Pauses that don't last."""

    def wait(self, timeout: float | None = None) -> bool:
        return self.is_set()


@given(st.lists(st.sampled_from(CODES[:1] * 6 + CODES), max_size=30), answers, segments)
def test_no_answer_breaks_the_session(codes: Any, answered: Any, script: Any) -> None:
    """Whatever a chip answers (any bytes, 0 to 258 of them, any status word) and whatever the
    service returns, the session ends only when the station stops, nothing raises, and a step is
    told as answered only with the word that came back for it, the steps before it as expected."""
    stopping = AtOnce()
    card = Scripted(codes, answered)
    centre = Examiner(card, script, stopping)
    with (
        patch("station_agents.reader.scard", card),
        patch("station_agents.pcsc.scard", card),
        capture_logs() as logs,
    ):
        reader = Reader("R", stopping, Patience(seconds=0.001, replug_seconds=0.001))
        any_: Any = NoJournal()
        station = Station("S", ["inspection"], centre, any_, stopping)
        Session(station, reader, OneCard(stopping)).run()
    assert stopping.is_set()
    # The session's last net catches an unexpected exception, and an assertion of the examiner too.
    assert not [line for line in logs if line["event"] == "reader.unexpected"]
