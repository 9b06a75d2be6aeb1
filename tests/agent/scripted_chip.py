"""A chip at vpcd whose answers are a table: for what the virtual card never says."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Mapping
from typing import Self

ATR = bytes.fromhex("3B6D000000803180650000000000000000")
GET_ATR = b"\x04"
AWAY_SECONDS = 0.05
"""Longer than a terminal needs to notice, shorter than pcscd's pause between looks (0.4 s)."""


class ScriptedChip:
    """Answers at the reader behind `address`; a command that is not in `answers` gets 6D00, one
    whose answer is empty makes the chip lose its power for a moment. `received` is every command
    in order. A command in `late` is answered when its event is set."""

    def __init__(
        self,
        address: str,
        answers: Mapping[bytes, bytes],
        late: Mapping[bytes, threading.Event] | None = None,
    ) -> None:
        host, port = address.split(":")
        self._address = host, int(port)
        self._answers = answers
        self._late = late or {}
        self.received: list[bytes] = []
        self._leaving = False
        self._line = self._connected()
        self._thread = threading.Thread(target=self._serve)

    def _connected(self) -> socket.socket:
        line = socket.create_connection(self._address)
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return line

    def _serve(self) -> None:
        while not self._leaving:
            # The driver may break the line off when the test ends it.
            with self._line.makefile("rb") as stream, contextlib.suppress(ConnectionError):
                while header := stream.read(2):
                    answer = self._answer(stream.read(int.from_bytes(header, "big")))
                    if answer == b"":
                        break
                    if answer is not None and not self._leaving:
                        self._line.sendall(len(answer).to_bytes(2, "big") + answer)
            if not self._leaving:
                self._line.close()
                time.sleep(AWAY_SECONDS)
                self._line = self._connected()

    def _answer(self, message: bytes) -> bytes | None:
        if message == GET_ATR:
            return ATR
        if len(message) == 1:
            return None
        self.received.append(message)
        if message in self._late:
            self._late[message].wait()
        return self._answers.get(message, b"\x6d\x00")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._leaving = True
        for event in self._late.values():
            event.set()
        self._line.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._line.close()
