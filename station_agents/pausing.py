"""Waiting before another try: longer each time, and not at all once the agent is to stop."""

from __future__ import annotations

from threading import Event


class Stopping(Exception):
    """The agent was told to stop; whoever waits gives up and leaves things as they are."""


class GrowingPause:
    """Pauses of `first`, twice that, ... up to `longest` seconds."""

    def __init__(self, stopping: Event, first: float, longest: float) -> None:
        self._stopping = stopping
        self._first = first
        self._longest = longest
        self._next = first

    def reset(self) -> None:
        """It went well: the next pause is the first again."""
        self._next = self._first

    def take(self) -> None:
        """Wait. Raises Stopping as soon as the agent is to stop."""
        wait(self._stopping, self._next)
        self._next = min(self._next * 2, self._longest)


def wait(stopping: Event, seconds: float) -> None:
    """Wait `seconds`. Raises Stopping as soon as the agent is to stop."""
    if stopping.wait(seconds):
        raise Stopping
