"""Calls that may never return: noticed by somebody else, and given up until they do.

SCardTransmit has no time limit, SCardCancel ends waits for a card only, and whoever asks the same
context for anything then waits too (decision 11). So nobody ends a call that hangs: its thread
stays in it, and is told when it comes back that the world has gone on without it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Self

from station_agents.pcsc import ReaderHung


class Watched:
    """Around each call of one reader, one at a time:

        with watched:
            code, answer = scard.SCardTransmit(...)

    raises ReaderHung after a call that was given up meanwhile, whatever it returned.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._began: float | None = None
        self._allowed = 0.0
        self._given_up = False

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._began = None
            given_up, self._given_up = self._given_up, False
        if given_up:
            raise ReaderHung("the call came back after it was given up")

    @contextmanager
    def waiting(self, seconds: float) -> Iterator[None]:
        """Around a call that may itself wait so long."""
        self._allowed = seconds
        try:
            with self:
                yield
        finally:
            self._allowed = 0.0

    def give_up(self, seconds: float, tell: Callable[[], None]) -> bool:
        """Whether the call under way is given up, because it has taken more than `seconds`. When
        that is new, `tell` is called before the call can come back. From any other thread."""
        with self._lock:
            if self._began is None:
                return False
            if not self._given_up and time.monotonic() - self._began > seconds + self._allowed:
                self._given_up = True
                tell()
            return self._given_up
