"""What happened in a simulation, line by line, and the digest of it.

A line holds nothing that is random by nature (sealed bytes, signatures): the same seed gives the
same digest.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Line:
    """`cards`: names of the cards it is about (tickets, identification codes, body and order
    ids); one without any is about the floor."""

    at: float
    actor: str
    text: str
    cards: tuple[str, ...] = ()

    def __str__(self) -> str:
        hours, rest = divmod(self.at, 3600)
        minutes, seconds = divmod(rest, 60)
        return f"{int(hours):02}:{int(minutes):02}:{seconds:06.3f}  {self.actor}: {self.text}"


@dataclass
class Trace:
    """`time`: simulated seconds. `faults` counts what was injected, by kind."""

    time: Callable[[], float]
    lines: list[Line] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    _digest: hashlib._Hash = field(default_factory=hashlib.sha256)

    def note(self, actor: str, text: str, *cards: str) -> None:
        line = Line(self.time(), actor, text, tuple(c for c in cards if c))
        self.lines.append(line)
        self._digest.update(f"{line} {' '.join(line.cards)}\n".encode())

    def fault(self, kind: str, actor: str, text: str = "", *cards: str) -> None:
        """A fault was injected."""
        self.faults[kind] += 1
        self.note(actor, f"! {kind}" + (f": {text}" if text else ""), *cards)

    @property
    def digest(self) -> str:
        return self._digest.hexdigest()
