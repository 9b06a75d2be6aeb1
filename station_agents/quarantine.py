"""When a reader is not to be trusted with another card.

A bad reader makes good cards look dead, and a dead chip goes to the rejected stack. What tells a
bad reader from bad cards is that the other readers of the station, which get cards from the same
cartons, do well. Two rules, each with numbers that can be set:

- `silent` chips in a row gave no answer, while another reader had a chip that did;
- `failures` of the last `of` presentations were silent or broke off, and there is another reader
  with at most half as many; a reader without neighbours is measured by this rule alone.

Nothing counts that was not the reader's: PC/SC service, feeder or centre away.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum, auto
from threading import Lock


class Outcome(Enum):
    """What came of a card that lay in a reader."""

    ANSWERED = auto()
    SILENT = auto()
    BROKEN = auto()


@dataclass(frozen=True)
class Rule:
    """The numbers of the two rules; 0 turns a rule off."""

    silent: int = 3
    failures: int = 6
    of: int = 20


@dataclass
class _Record:
    outcomes: deque[Outcome]
    silent_in_a_row: int = 0
    neighbours_answered: int = 0
    """Chips that answered in other readers since the first of those in a row."""

    @property
    def failures(self) -> int:
        return sum(outcome is not Outcome.ANSWERED for outcome in self.outcomes)


@dataclass
class Quarantine:
    """The records of all readers of a station. Threads share it."""

    rule: Rule = Rule()
    _records: dict[str, _Record] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def begin(self, reader: str) -> None:
        """It works from now on: newly, or started anew, and what it did before counts no more."""
        with self._lock:
            self._records[reader] = _Record(deque(maxlen=max(1, self.rule.of)))

    def note(self, reader: str, outcome: Outcome) -> str:
        """A presentation came out so. In words, why the reader belongs into quarantine; empty:
        it may go on."""
        with self._lock:
            mine = self._records[reader]
            others = [r for name, r in self._records.items() if name != reader]
            mine.outcomes.append(outcome)
            if outcome is not Outcome.SILENT:
                mine.silent_in_a_row = 0
            else:
                mine.silent_in_a_row += 1
                if mine.silent_in_a_row == 1:
                    mine.neighbours_answered = 0
            if outcome is Outcome.ANSWERED:
                for other in others:
                    other.neighbours_answered += 1
            return self._why(mine, others)

    def _why(self, mine: _Record, others: list[_Record]) -> str:
        rule = self.rule
        if rule.silent and mine.silent_in_a_row >= rule.silent and mine.neighbours_answered:
            return f"{mine.silent_in_a_row} silent chips in a row"
        if not rule.failures or mine.failures < rule.failures:
            return ""
        # Who has not worked yet is no measure.
        fine = [o for o in others if o.outcomes and 2 * o.failures <= mine.failures]
        if others and not fine:
            return ""
        return f"{mine.failures} failures in its last {len(mine.outcomes)} cards"
