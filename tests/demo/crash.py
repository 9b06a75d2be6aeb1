"""Processes that kill themselves (SIGKILL) at a named state, once.

A state is named by a file `wanted/<state>` that holds how many times it is passed before. The
process that gets there renames it to `fired/<state>`, so that its successor lives, and dies.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path


class CrashPoints:
    """Called with each state that is passed."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._passed: Counter[str] = Counter()

    @staticmethod
    def plan(directory: Path, states: dict[str, int]) -> None:
        (directory / "wanted").mkdir(parents=True)
        (directory / "fired").mkdir()
        for state, passed_before in states.items():
            (directory / "wanted" / state).write_text(str(passed_before))

    def __call__(self, state: str) -> None:
        if self.due(state):
            os.kill(os.getpid(), signal.SIGKILL)

    def due(self, state: str) -> bool:
        """Whether `state` is to crash now; it is only once."""
        wanted = self._directory / "wanted" / state
        try:
            before = int(wanted.read_text())
        except (FileNotFoundError, ValueError):
            return False
        self._passed[state] += 1
        if self._passed[state] <= before:
            return False
        try:
            wanted.rename(self._directory / "fired" / state)
        except FileNotFoundError:
            return False
        return True

    @staticmethod
    def left(directory: Path) -> set[str]:
        """The states that were never reached."""
        return {p.name for p in (directory / "wanted").iterdir()}
