"""The machine that lays cards into a reader and puts them on a stack afterwards."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any, Final, Protocol

import structlog

from station_agents.metrics import FEEDERS_AWAY
from station_agents.pausing import GrowingPause, Stopping

log = structlog.get_logger()

GOOD: Final = "good"


@dataclass(frozen=True)
class Look:
    """What a scanner sees of the card that lies in a reader. `ticket` names the card to the
    feeder, where it gives one: an eject that is repeated with it moves no other card."""

    loaded: bool
    carton_id: str = ""
    face_number: str = ""
    ticket: str = ""


class FeederRefused(Exception):
    """The feeder answered that it can't; the message is its own and names no person."""


class EjectUnknown(Exception):
    """The feeder went away during an eject and gave no ticket: nobody knows which card lies in
    the reader now. The chip has to be read anew."""


class Feeder(Protocol):
    """What a session needs of the feeding machine of its reader."""

    away: Callable[[], None]
    """Called, if it is set, each time the machine goes away."""

    @property
    def came_back(self) -> int:
        """How often the machine was away and came back."""
        ...

    def look(self) -> Look: ...

    def eject(self, stack: str, ticket: str) -> bool:
        """Put the card on `stack`; whether the next one lies there."""
        ...

    def wait(self, seconds: float) -> bool:
        """Until a card lies in the reader, at most `seconds`; whether one does."""
        ...


def _nobody_asked() -> None:
    """What is called when the machine goes away and nobody wants to know."""


class TrayFeeder:
    """A feeder behind a control socket (docs/files.md, "Tray control socket").

    A call waits while the tray is away, trying again with growing pauses. Raises FeederRefused,
    and Stopping when the agent is to stop. One thread uses it; `close` may come from another.
    """

    def __init__(self, path: Path, reader: int, stopping: Event) -> None:
        self.away: Callable[[], None] = _nobody_asked
        self._path = path
        self._reader = reader
        self._stopping = stopping
        self._pause = GrowingPause(stopping, 0.05, 2.0)
        self._line: socket.socket | None = None
        self._received = b""
        self._came_back = 0

    @property
    def came_back(self) -> int:
        return self._came_back

    def look(self) -> Look:
        answer = self._ask({"op": "look"})
        return Look(
            bool(answer["loaded"]),
            str(answer.get("carton_id", "")),
            str(answer.get("face_number", "")),
            str(answer.get("ticket", "")),
        )

    def eject(self, stack: str, ticket: str = "") -> bool:
        """Errors as of the class, and EjectUnknown."""
        request: dict[str, Any] = {"op": "eject", "stack": stack}
        if ticket:
            request["ticket"] = ticket
        return bool(self._ask(request, repeatable=bool(ticket))["loaded"])

    def wait(self, seconds: float) -> bool:
        return bool(self._ask({"op": "wait", "seconds": seconds})["loaded"])

    def _ask(self, request: dict[str, Any], *, repeatable: bool = True) -> dict[str, Any]:
        message = json.dumps({**request, "reader": self._reader}).encode() + b"\n"
        was_away = False
        while True:
            if self._stopping.is_set():
                raise Stopping
            sent = False
            try:
                line = self._connected()
                sent = True
                line.sendall(message)
                answer = self._read_line(line)
            except OSError as e:
                self._drop()
                if not was_away:
                    FEEDERS_AWAY.inc()
                    log.info("feeder.away", reader=self._reader, error=type(e).__name__)
                    self.away()
                was_away = True
                if sent and not repeatable:
                    raise EjectUnknown from e
                self._pause.take()
                continue
            self._pause.reset()
            if was_away:
                self._came_back += 1
                FEEDERS_AWAY.dec()
                log.info("feeder.back", reader=self._reader)
            if "error" in answer:
                raise FeederRefused(str(answer["error"]))
            return answer

    def _connected(self) -> socket.socket:
        if self._line is None:
            line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
            try:
                line.connect(str(self._path))
            except OSError:
                line.close()
                raise
            self._line, self._received = line, b""
        return self._line

    def _read_line(self, line: socket.socket) -> dict[str, Any]:
        while b"\n" not in self._received:
            data = line.recv(65_536)
            if not data:
                raise ConnectionResetError("the tray closed its control socket")
            self._received += data
        text, self._received = self._received.split(b"\n", 1)
        try:
            answer = json.loads(text)
        except ValueError:
            raise ConnectionError("the tray answered what is not JSON") from None
        if not isinstance(answer, dict):
            raise ConnectionError("the tray answered what is not an object")
        return answer

    def _drop(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            line.close()

    def close(self) -> None:
        """End a call that waits. To be called after `stopping` was set."""
        line = self._line
        if line is not None:
            try:
                line.shutdown(socket.SHUT_RDWR)
            except OSError as e:
                log.debug("feeder.closed_before", error=type(e).__name__)
