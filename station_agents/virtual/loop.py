"""One thread that waits for sockets and deadlines: nothing in the tray process polls or locks."""

from __future__ import annotations

import heapq
import itertools
import os
import select
import signal
import time
from collections.abc import Callable
from typing import Final

READ: Final = select.EPOLLIN
WRITE: Final = select.EPOLLOUT


class Loop:
    """Calls handlers when their sockets are ready or their time has come, until SIGTERM or
    SIGINT, which end `run` between two handlers. Must be made in the main thread."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._stopping = False
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._wake_write)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        self.watch(self._wake_read, READ, lambda _: None)

    def _stop(self, number: int, frame: object) -> None:
        self._stopping = True

    def watch(self, fd: int, events: int, handler: Callable[[int], None]) -> None:
        """Call `handler(events)` whenever `fd` is ready; replaces an earlier watch of `fd`."""
        if fd in self._handlers:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._handlers[fd] = handler

    def unwatch(self, fd: int) -> None:
        """To be called before `fd` is closed."""
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def call_at(self, when: float, handler: Callable[[], None]) -> None:
        """Call `handler` once when `time.monotonic()` reaches `when`."""
        heapq.heappush(self._timers, (when, next(self._order), handler))

    def run(self) -> None:
        handlers, poll, timers = self._handlers, self._epoll.poll, self._timers
        while not self._stopping:
            timeout = max(0.0, timers[0][0] - time.monotonic()) if timers else None
            for fd, events in poll(timeout):
                handler = handlers.get(fd)
                if handler is not None:  # gone since, by a handler of this round
                    handler(events)
            while timers and timers[0][0] <= time.monotonic():
                heapq.heappop(timers)[2]()
