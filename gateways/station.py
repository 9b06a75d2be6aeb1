"""The door of the stations: one stream an agent, turns of many chips on each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import grpc
import structlog

from domain.codes import Code
from domain.turns import CentreTurn, Restart, StationTurn
from gateways.floor import Floor
from gateways.gathering import Collector, answer
from gateways.turns_wire import NotATurn, centre_turn_to_wire, station_turn_from_wire
from stubs import station_pb2 as pb
from stubs.station_pb2_grpc import StationServicer

log = structlog.get_logger()

ANSWERS_PER_MESSAGE = 256


class _Stream:
    """One agent's stream: what it is owed, and the answers that are ready."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._ready: list[pb.CentreTurn] = []
        self._owed = 0
        self._no_more = False
        self.stations: set[str] = set()
        """Who has spoken on it: one, unless an agent speaks for several."""
        self._changed = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()

    def owe(self) -> None:
        """A turn was read: one more answer will come."""
        self._owed += 1

    def deliver(self, turn: CentreTurn) -> None:
        self.deliver_wire(centre_turn_to_wire(turn))

    def deliver_wire(self, turn: pb.CentreTurn) -> None:
        self._owed -= 1
        self._ready.append(turn)
        if self._owed + len(self._ready) >= self._room:
            self._has_room.clear()
        self._changed.set()

    def end(self) -> None:
        """No turn comes any more; the stream ends when all are answered."""
        self._no_more = True
        self._changed.set()

    async def room(self) -> None:
        """Until the agent has read enough of its answers. Not reading on is what tells it."""
        await self._has_room.wait()

    async def messages(self) -> AsyncIterator[pb.CentreTurns]:
        """What is ready together goes together."""
        while True:
            while self._ready:
                now, self._ready = (
                    self._ready[:ANSWERS_PER_MESSAGE],
                    self._ready[ANSWERS_PER_MESSAGE:],
                )
                if self._owed + len(self._ready) < self._room:
                    self._has_room.set()
                yield pb.CentreTurns(turns=now)
            if self._no_more and not self._owed:
                return
            self._changed.clear()
            await self._changed.wait()


class StationDoor(StationServicer):
    """`start` before the first stream, `stop` after (or to end) the last."""

    def __init__(self, floor: Floor) -> None:
        self._limits = floor.limits
        self._board = floor.board
        self._collectors = {
            stage: Collector(stage, line, floor.limits) for stage, line in floor.chip_lines.items()
        }
        self._tasks: list[asyncio.Task[None]] = []
        self._streams: set[_Stream] = set()
        self._closing = False

    def start(self) -> None:
        self._tasks = [
            asyncio.create_task(c.run(), name=f"collector of {stage}")
            for stage, c in self._collectors.items()
        ]

    def waiting(self) -> dict[str, int]:
        """Turns that wait, by stage."""
        return {stage: c.waiting for stage, c in self._collectors.items()}

    def end_streams(self) -> None:
        """Read no more turns; each stream ends when its turns are answered."""
        self._closing = True
        for stream in self._streams:
            stream.end()

    async def stop(self) -> None:
        """End the collectors; turns that still wait are told to ask again."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def Work(
        self, request_iterator: Any, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[pb.CentreTurns]:
        stream = _Stream(self._limits.turns_in_queue)
        self._streams.add(stream)
        if self._closing:
            stream.end()
        reader = asyncio.create_task(self._read(request_iterator, stream))
        try:
            async for message in stream.messages():
                yield message
        finally:
            # What the stream has in the queues is decided all the same; its answers wait in the
            # line's memory for the agent to ask again.
            self._streams.discard(stream)
            for station_id in stream.stations:
                self._board.left(station_id)
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    async def _read(self, turns: AsyncIterator[pb.StationTurns], stream: _Stream) -> None:
        try:
            async for message in turns:
                for turn in message.turns:
                    stream.owe()
                    self._take(turn, stream)
                for news in message.readers:
                    self._meet(news.station_id, stream)
                    self._board.news(news.station_id, news.reader, news.code)
                for counted in message.statistics:
                    self._meet(counted.station_id, stream)
                    self._board.counted(counted)
                await stream.room()
                if self._closing:
                    return
        except Exception as e:  # noqa: BLE001  # an agent that went away ends its stream only
            log.info(
                "station.stream_ended", stations=sorted(stream.stations), error=type(e).__name__
            )
        finally:
            stream.end()

    def _meet(self, station_id: str, stream: _Stream) -> None:
        if station_id not in stream.stations:
            stream.stations.add(station_id)
            self._board.joined(station_id)

    def _take(self, wire: pb.StationTurn, stream: _Stream) -> None:
        try:
            turn = station_turn_from_wire(wire)
        except NotATurn:
            stream.deliver_wire(
                pb.CentreTurn(
                    presentation=wire.presentation,
                    number=wire.number,
                    stage=wire.stage,
                    restart=pb.Restart(code=Code.MALFORMED),
                )
            )
            return
        self._meet(turn.station_id, stream)
        self._board.asked(turn)
        deliver = partial(self._deliver, turn, stream)
        collector = self._collectors.get(turn.stage)
        if collector is None:
            deliver(answer(turn, Restart(Code.STAGE_UNKNOWN)))
        else:
            collector.offer(turn, deliver)

    def _deliver(self, turn: StationTurn, stream: _Stream, reply: CentreTurn) -> None:
        stream.deliver(reply)
        self._board.answered(turn, reply)
