"""The line from one reader to vpcd, the virtual reader driver inside pcscd.

The protocol (vsmartcard, `virtualsmartcard/src/vpcd`): each message is a 2-byte big-endian length
and that many bytes. From vpcd, messages of length 1 are power off, power on, reset and "get ATR",
which alone of them is answered; all others are command APDUs. An answer of length 0 means that
no card answers; with it the connection ends, and vpcd accepts the next one when pcscd next looks
for a card (every 0.4 s).
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from enum import IntEnum
from typing import Final

import structlog

from station_agents.virtual.hopper import Slot
from station_agents.virtual.loop import READ, WRITE, Loop

_MESSAGE_MAX: Final = 2 + 0xFFFF
_FIRST_PAUSE: Final = 0.01
_LONGEST_PAUSE: Final = 0.5

log = structlog.get_logger()


class _Control(IntEnum):
    """Messages of length 1 (`vpcd.h`)."""

    POWER_OFF = 0
    POWER_ON = 1
    RESET = 2
    GET_ATR = 4


class VpcdLink:
    """Connects to vpcd at `address`, again and again with growing pauses, and lets `slot`
    answer. `count` is called for each APDU before it is processed."""

    def __init__(
        self,
        loop: Loop,
        reader: int,
        address: tuple[str, int],
        slot: Slot,
        count: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._log = log.bind(reader=reader, port=address[1])
        self._address = address
        self._slot = slot
        self._count = count
        self._buffer = b""
        self._pause = 0.0
        self._away = True
        self._socket: socket.socket | None = None
        self._hangs_after: int | None = None
        self.connect()

    def connect(self) -> None:
        line = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        line.setblocking(False)
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = line
        self._buffer = b""
        line.connect_ex(self._address)
        self._loop.watch(line.fileno(), WRITE, self._connected)

    def _connected(self, events: int) -> None:
        line = self._line()
        try:
            failed = line.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            # While nobody listens, a connection to a port of this machine can meet itself.
            failed = failed or line.getsockname() == line.getpeername()
        except OSError:
            failed = 1
        if failed:
            self._lost()
            return
        self._loop.watch(line.fileno(), READ, self._readable)

    def _line(self) -> socket.socket:
        if self._socket is None:
            raise RuntimeError("a closed line had an event")
        return self._socket

    def hang(self, after: int) -> None:
        """Answer so many commands more, and then nothing at all until `replug`: the reader swallows
        what comes."""
        self._hangs_after = after

    def replug(self) -> None:
        """The reader is unplugged and plugged in again: it answers anew, the chip without power."""
        self._hangs_after = None
        if self._socket is not None and not self._away:
            self._lost()

    def close(self) -> None:
        if self._socket is not None:
            self._loop.unwatch(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def _lost(self) -> None:
        """The line is gone, and with it the power of the chip."""
        self.close()
        self._slot.power_off()
        if self._pause == 0.0:
            self.connect()
            self._pause = _FIRST_PAUSE
            return
        if not self._away:
            self._away = True
            self._log.info("reader away, trying again")
        self._loop.call_at(time.monotonic() + self._pause, self.connect)
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)

    def _readable(self, events: int) -> None:
        line = self._line()
        try:
            data = line.recv(_MESSAGE_MAX)
            if data:
                # Where vpcd sends length and message apart, its second write waits for our
                # acknowledgement of the first: without this 40 ms an APDU.
                line.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
                self._buffer += data
                if self._serve(line):
                    return
        except OSError as e:
            self._log.info("line broken", reason=e.strerror)
        self._lost()

    def _serve(self, line: socket.socket) -> bool:
        """Answer what has come whole. False if nothing answers here: the line must be closed,
        since vpcd, having read an empty answer, waits for more of it as long as the line lives."""
        while len(self._buffer) >= 2:
            end = 2 + int.from_bytes(self._buffer[:2], "big")
            if len(self._buffer) < end:
                break
            message, self._buffer = self._buffer[2:end], self._buffer[end:]
            self._pause = 0.0
            if self._away:
                self._away = False
                self._log.info("reader connected")
            if self._hangs(message):
                continue
            answer = self._answer(message)
            if answer is not None:
                line.send(len(answer).to_bytes(2, "big") + answer)
                if not answer:
                    return False
        return True

    def _hangs(self, message: bytes) -> bool:
        if not self._hangs_after:
            return self._hangs_after is not None
        self._hangs_after -= len(message) != 1
        return False

    def _answer(self, message: bytes) -> bytes | None:
        if len(message) != 1:
            self._count()
            return self._slot.process(message)
        match message[0]:
            case _Control.GET_ATR:
                return self._slot.atr()
            case _Control.POWER_OFF:
                self._slot.power_off()
            case _Control.POWER_ON:
                self._slot.power_on()
            case _Control.RESET:
                self._slot.reset()
        return None
