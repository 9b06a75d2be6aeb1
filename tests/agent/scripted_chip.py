"""A chip at vpcd whose answers are a table: for what the virtual card never says."""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping
from typing import Self

ATR = bytes.fromhex("3B6D000000803180650000000000000000")
GET_ATR = b"\x04"


class ScriptedChip:
    """Answers at the reader behind `address`; a command that is not in `answers` gets 6D00.
    `received` is every command in order."""

    def __init__(self, address: str, answers: Mapping[bytes, bytes]) -> None:
        host, port = address.split(":")
        self._answers = answers
        self.received: list[bytes] = []
        self._line = socket.create_connection((host, int(port)))
        self._line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._thread = threading.Thread(target=self._serve)

    def _serve(self) -> None:
        with self._line.makefile("rb") as stream:
            while header := stream.read(2):
                message = stream.read(int.from_bytes(header, "big"))
                if message == GET_ATR:
                    answer = ATR
                elif len(message) == 1:
                    continue
                else:
                    self.received.append(message)
                    answer = self._answers.get(message, b"\x6d\x00")
                self._line.sendall(len(answer).to_bytes(2, "big") + answer)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._line.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._line.close()
