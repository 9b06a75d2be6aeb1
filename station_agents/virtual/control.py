"""The tray's control socket: what a feeder, a scanner and a counting machine would do.

A Unix stream socket; one JSON object a line in, one JSON object a line out, in order. The
operations are listed in `docs/files.md`; a failure is answered with {"error": text}.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, Self

from station_agents.virtual.hopper import Hopper
from station_agents.virtual.loop import READ, WRITE, Loop

_LINE_MAX: Final = 65_536
_LONGEST_WAIT: Final = 3600.0  # seconds


class Line(Protocol):
    """The line of a reader (`link.VpcdLink`), as far as it hangs on command."""

    def hang(self, after: int) -> None: ...

    def replug(self) -> None: ...


class ControlServer:
    """Listens at `path` and serves `hopper`. `apdus` tells the count for `status`; `lines` are
    those of the readers, in their order."""

    def __init__(
        self,
        loop: Loop,
        path: Path,
        hopper: Hopper,
        lines: Sequence[Line],
        apdus: Callable[[], int],
    ) -> None:
        self.loop = loop
        self.hopper = hopper
        self._lines = lines
        self._apdus = apdus
        self._path = path
        self._waiting: list[_Conversation] = []
        self._conversations: set[_Conversation] = set()
        path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._socket.bind(str(path))
        path.chmod(0o600)
        self._socket.listen(64)
        self._socket.setblocking(False)
        loop.watch(self._socket.fileno(), READ, self._accept)

    def _accept(self, events: int) -> None:
        try:
            line, _ = self._socket.accept()
        except BlockingIOError:
            return
        line.setblocking(False)
        self._conversations.add(_Conversation(self, line))

    def forget(self, conversation: _Conversation) -> None:
        self._conversations.discard(conversation)
        if conversation in self._waiting:
            self._waiting.remove(conversation)

    def perform(self, request: dict[str, Any]) -> dict[str, Any]:
        """One operation but `wait`. Raises KeyError, TypeError, ValueError, IndexError, OSError."""
        match request["op"]:
            case "look":
                return self.hopper.look(reader_of(request))
            case "eject":
                loaded = self.hopper.eject(
                    reader_of(request), request["stack"], request.get("ticket")
                )
                return {"loaded": loaded}
            case "hang":
                self._lines[reader_of(request)].hang(natural(request, "after"))
                return {}
            case "replug":
                self._lines[reader_of(request)].replug()
                return {}
            case "count":
                return {"cartons": self.hopper.count()}
            case "list":
                return {"cards": self.hopper.lying_on(request["stack"])}
            case "feed":
                tickets = request.get("tickets")
                fed = self.hopper.feed(
                    request["stack"], None if tickets is None else frozenset(tickets)
                )
                for conversation in list(self._waiting):
                    conversation.look_again()
                return {"fed": fed}
            case "cut":
                slot = self.hopper.slots[reader_of(request)]
                slot.cut_power(natural(request, "command"), executed=request["executed"] is True)
                return {}
            case "status":
                return {**self.hopper.status(), "apdus": self._apdus()}
        raise ValueError("unknown op")

    def wait(self, conversation: _Conversation) -> None:
        self._waiting.append(conversation)

    def waited(self, conversation: _Conversation) -> None:
        self._waiting.remove(conversation)

    def close(self) -> None:
        for conversation in list(self._conversations):
            conversation.close()
        self.loop.unwatch(self._socket.fileno())
        self._socket.close()
        self._path.unlink(missing_ok=True)


def natural(request: dict[str, Any], name: str) -> int:
    """A number of a request. TypeError unless it is a natural one."""
    number = request[name]
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        raise TypeError(name)
    return number


def reader_of(request: dict[str, Any]) -> int:
    return natural(request, "reader")


class _Conversation:
    """One client. While it waits for a card, its later requests wait too."""

    def __init__(self, server: ControlServer, line: socket.socket) -> None:
        self._server = server
        self._line = line
        self._input = b""
        self._output = b""
        self._waiting_for: int | None = None
        self._wait_number = 0
        server.loop.watch(line.fileno(), READ, self._ready)

    def close(self) -> None:
        if self._line.fileno() >= 0:
            self._server.loop.unwatch(self._line.fileno())
            self._line.close()
            self._server.forget(self)

    def _ready(self, events: int) -> None:
        try:
            if events & WRITE:
                self._flush()
            if events & ~WRITE:
                data = self._line.recv(_LINE_MAX)
                if not data or len(self._input) > _LINE_MAX:
                    self.close()
                    return
                self._input += data
                self._go_on()
        except BlockingIOError:
            return
        except OSError:
            self.close()

    def _go_on(self) -> None:
        while self._waiting_for is None and b"\n" in self._input:
            line, self._input = self._input.split(b"\n", 1)
            answer = self._serve(line)
            if answer is not None:
                self._send(answer)

    def _serve(self, line: bytes) -> dict[str, Any] | None:
        try:
            request = json.loads(line)
            if request["op"] == "wait":
                return self._wait(reader_of(request), float(request["seconds"]))
            return self._server.perform(request)
        except KeyError as e:
            return {"error": f"missing: {e.args[0]}"}
        except IndexError:
            return {"error": "no such reader"}
        except (TypeError, AttributeError, OverflowError, RecursionError):
            return {"error": "not a request"}
        except ValueError as e:
            return {"error": "not JSON" if isinstance(e, json.JSONDecodeError) else str(e)}
        except OSError as e:
            return {"error": f"the journal cannot be written: {e.strerror or e}"}

    def _wait(self, reader: int, seconds: float) -> dict[str, Any] | None:
        if self._server.hopper.slots[reader].lying is not None:
            return {"loaded": True}
        if not seconds > 0:
            return {"loaded": False}
        self._waiting_for = reader
        self._wait_number += 1
        number = self._wait_number
        self._server.wait(self)
        self._server.loop.call_at(
            time.monotonic() + min(seconds, _LONGEST_WAIT), lambda: self._waited_enough(number)
        )
        return None

    def _waited_enough(self, number: int) -> None:
        if self._waiting_for is not None and number == self._wait_number:
            self._end_wait(loaded=False)

    def look_again(self) -> None:
        """Answer a wait if its card has come."""
        reader = self._waiting_for
        if reader is not None and self._server.hopper.slots[reader].lying is not None:
            self._end_wait(loaded=True)

    def _end_wait(self, *, loaded: bool) -> None:
        self._waiting_for = None
        if self._line.fileno() < 0:
            return
        self._server.waited(self)
        try:
            self._send({"loaded": loaded})
            self._go_on()
        except OSError:
            self.close()

    def _send(self, answer: dict[str, Any]) -> None:
        self._output += json.dumps(answer, ensure_ascii=False).encode() + b"\n"
        self._flush()

    def _flush(self) -> None:
        try:
            sent = self._line.send(self._output)
        except BlockingIOError:
            sent = 0
        self._output = self._output[sent:]
        events = READ | WRITE if self._output else READ
        self._server.loop.watch(self._line.fileno(), events, self._ready)


class TrayControl:
    """A client of the control socket, one request at a time; for tests, demos and agents.

    A method raises OSError if the tray is away (make a new TrayControl when it is back) and
    ValueError if it refuses.
    """

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            self._socket.connect(str(path))
        except BaseException:
            self._socket.close()
            raise
        self._lines = self._socket.makefile("rb")

    def ask(self, op: str, **arguments: Any) -> dict[str, Any]:
        """Send one operation and return its answer."""
        self._socket.sendall(json.dumps({"op": op, **arguments}).encode() + b"\n")
        line = self._lines.readline()
        if not line.endswith(b"\n"):
            raise ConnectionResetError("the tray closed its control socket")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ValueError(answer["error"])
        return answer

    def close(self) -> None:
        self._lines.close()
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
