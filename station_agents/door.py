"""The stream to the centre: turns of all readers out, the centre's turns back.

A turn is asked until it is answered: when the stream breaks, a new one is opened after growing
pauses and every turn without an answer is sent again, the same bytes, so that the centre gives
the same answer (proto/station.proto). Turns that wait together share one message.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
import structlog

from station_agents.metrics import DOOR_CONNECTED
from station_agents.pausing import Stopping
from stubs import station_pb2 as pb
from stubs.common_pb2 import ReaderStatistics
from stubs.station_pb2_grpc import StationStub

log = structlog.get_logger()

_TURNS_PER_MESSAGE: Final = 256
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 2.0
# A centre that takes a turn and never answers looks the same as one behind a cut line: after
# this many seconds the turn is sent again on a new stream.
ANSWER_SECONDS: Final = 60.0
_CHANNEL_OPTIONS: Final = (
    # Each try makes a connection of its own instead of sharing the last one's back-off.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
)


@dataclass
class _Asked:
    turn: pb.StationTurn
    answer: Future[pb.CentreTurn] = field(default_factory=Future)


class Door:
    """The centre's door at `address`. `run` in an event loop; `ask` and `tell` from the readers'
    threads, one turn of a presentation at a time."""

    def __init__(self, address: str, answer_seconds: float = ANSWER_SECONDS) -> None:
        self._address = address
        self._answer_seconds = answer_seconds
        self._loop = asyncio.get_running_loop()
        self._unanswered: dict[str, _Asked] = {}
        self._outgoing: list[pb.StationTurn] = []
        self._news: dict[str, pb.ReaderNews] = {}
        self._standing: dict[str, pb.ReaderNews] = {}
        self._changed: dict[str, ReaderStatistics] = {}
        self._statistics: dict[str, ReaderStatistics] = {}
        self._wake = asyncio.Event()
        self._written = asyncio.Event()
        self._written.set()
        self._closing = asyncio.Event()
        self._connected = False
        self._stopped = False
        self._pause = _FIRST_PAUSE

    def ask(self, turn: pb.StationTurn) -> pb.CentreTurn:
        """The centre's answer to `turn`, however long it takes.

        Raises Stopping when the agent is to stop; the turn has then been sent once if there is a
        stream, and may or may not have taken effect.
        """
        asked = _Asked(turn)
        self._loop.call_soon_threadsafe(self._submit, asked)
        return asked.answer.result()

    def tell(self, turn: pb.StationTurn) -> None:
        """Send `turn` if there is a stream now, and don't wait for an answer."""
        self._loop.call_soon_threadsafe(self._send, turn)

    def stand(self, news: pb.ReaderNews) -> None:
        """How a reader stands from now on; a new stream begins with how all stand."""
        self._loop.call_soon_threadsafe(self._note, news)

    def _note(self, news: pb.ReaderNews) -> None:
        self._standing[news.reader] = news
        if self._connected:
            self._news[news.reader] = news
            self._wake.set()

    def count(self, statistics: ReaderStatistics) -> None:
        """What was counted of a reader so far; a new stream begins with that of all. In the loop's
        thread."""
        if self._statistics.get(statistics.reader) != statistics:
            self._statistics[statistics.reader] = statistics
            if self._connected:
                self._changed[statistics.reader] = statistics
                self._wake.set()

    def _submit(self, asked: _Asked) -> None:
        if self._stopped:
            asked.answer.set_exception(Stopping())
        else:
            self._unanswered[asked.turn.presentation] = asked
        self._send(asked.turn)

    def _send(self, turn: pb.StationTurn) -> None:
        # Without a stream, what has no answer is sent when there is one; the rest is dropped.
        if self._connected:
            self._outgoing.append(turn)
            self._written.clear()
            self._wake.set()

    def stop(self) -> None:
        """Ask nothing more: whoever waits for an answer gets Stopping. In the loop's thread."""
        self._stopped = True
        for asked in self._unanswered.values():
            asked.answer.set_exception(Stopping())
        self._unanswered.clear()

    async def close(self, seconds: float) -> None:
        """Send what was handed over, at most for `seconds`, and end `run`."""
        if self._connected:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._written.wait(), seconds)
        self._closing.set()

    async def run(self) -> None:
        """Keep a stream open until `close`."""
        while not self._closing.is_set():
            try:
                async with grpc.aio.insecure_channel(
                    self._address, options=_CHANNEL_OPTIONS
                ) as channel:
                    # grpc-stubs want the iterator that this way of writing does without.
                    await self._stream(StationStub(channel).Work())  # type: ignore[call-arg]
                reason = "ended"
            except grpc.aio.AioRpcError as e:
                reason = e.code().name
            except Exception as e:  # noqa: BLE001  # the stream is opened again whatever it was
                reason = type(e).__name__
            self._disconnected()
            if self._closing.is_set():
                break
            log.info("door.away", door=self._address, reason=reason, pause=self._pause)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), self._pause)
            self._pause = min(self._pause * 2, _LONGEST_PAUSE)

    def _disconnected(self) -> None:
        self._connected = False
        DOOR_CONNECTED.set(0)
        self._outgoing.clear()
        self._news.clear()
        self._changed.clear()
        self._written.set()

    async def _stream(self, call: Any) -> None:
        """One stream, until it breaks or the door is closed."""
        await call.wait_for_connection()
        log.info("door.connected", door=self._address, turns=len(self._unanswered))
        self._connected = True
        DOOR_CONNECTED.set(1)
        self._outgoing = [asked.turn for asked in self._unanswered.values()]
        self._news = dict(self._standing)
        self._changed = dict(self._statistics)
        self._wake.set()
        tasks = {
            asyncio.create_task(work)
            for work in (self._write(call), self._read(call), self._closing.wait())
        }
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            call.cancel()
        for task in done:
            task.result()

    async def _write(self, call: Any) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._outgoing or self._news or self._changed:
                now = self._outgoing[:_TURNS_PER_MESSAGE]
                del self._outgoing[:_TURNS_PER_MESSAGE]
                # After the turns: what a reader's last turn broke off with comes before why.
                message = pb.StationTurns(turns=now)
                if not self._outgoing:
                    message.readers.extend(self._news.values())
                    message.statistics.extend(self._changed.values())
                    self._news.clear()
                    self._changed.clear()
                await call.write(message)
            self._written.set()

    async def _read(self, call: Any) -> None:
        while True:
            reading = asyncio.ensure_future(call.read())
            try:
                message = await self._next(reading)
            finally:
                reading.cancel()
            if message is grpc.aio.EOF:  # type: ignore[attr-defined]  # not in grpc-stubs
                # Raises what the stream ended with, unless that is OK.
                if await call.code() is not grpc.StatusCode.OK:
                    raise ConnectionError(f"the stream ended: {await call.code()}")
                return
            self._pause = _FIRST_PAUSE
            self._take(message.turns)

    async def _next(self, reading: asyncio.Future[Any]) -> Any:
        """The next message. TimeoutError if a turn waits too long for one."""
        while True:
            waiting = list(self._unanswered.values())
            done, _ = await asyncio.wait({reading}, timeout=self._answer_seconds)
            if done:
                return reading.result()
            if any(self._unanswered.get(a.turn.presentation) is a for a in waiting):
                raise TimeoutError("no answer from the centre")

    def _take(self, turns: Iterable[pb.CentreTurn]) -> None:
        for turn in turns:
            asked = self._unanswered.get(turn.presentation)
            # After a resend an answer may come twice; the second one belongs to no question.
            if asked is None or (asked.turn.number, asked.turn.stage) != (turn.number, turn.stage):
                continue
            del self._unanswered[turn.presentation]
            asked.answer.set_result(turn)
