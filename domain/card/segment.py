"""A segment: the APDUs that a station runs on a chip without asking the centre in between.

It ends at the first step whose bytes depend on an answer that the centre has not seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from domain.card.apdu import SW, Command, is_expected

_WITHOUT_SESSION = frozenset(
    (SW.SECURITY_STATUS_NOT_SATISFIED, SW.CHALLENGE_MISSING, SW.CONDITIONS_NOT_SATISFIED)
)


@dataclass(frozen=True)
class Step:
    """One APDU. The segment goes on while the status word fits one of `expect`."""

    name: str
    apdu: bytes
    expect: tuple[str, ...] = ("9000",)

    @classmethod
    def of(cls, name: str, command: Command, *expect: str) -> Step:
        return cls(name, bytes(command), expect or ("9000",))


@dataclass(frozen=True)
class Segment:
    """`writes`: a step changes the chip's memory, so the segment is released by a commit first."""

    steps: tuple[Step, ...]
    writes: bool = False

    @cached_property
    def places(self) -> Mapping[str, int]:
        """Where the step of a name stands; the first one, if it stands there twice."""
        return {step.name: at for at, step in reversed(list(enumerate(self.steps)))}


@dataclass(frozen=True)
class StepAnswer:
    status_word: int
    data: bytes


@dataclass(frozen=True)
class Answers:
    """What came back: one answer for each step that was executed, in order. `broken` is empty,
    or says why the station stopped before the end (removed, reader, unknown)."""

    steps: tuple[StepAnswer, ...]
    broken: str = ""

    def of(self, segment: Segment, name: str) -> StepAnswer | None:
        """The answer of the step called `name`, or None if it was not executed."""
        at = segment.places.get(name)
        return self.steps[at] if at is not None and at < len(self.steps) else None

    def failed_step(self, segment: Segment) -> tuple[Step, StepAnswer] | None:
        """The first step whose status word was not expected, with its answer; None if all fit."""
        for step, answer in zip(segment.steps, self.steps, strict=False):
            if not is_expected(answer.status_word, step.expect):
                return step, answer
        return None

    def session_lost(self, segment: Segment) -> bool:
        """Whether the chip answers as if nothing had gone before: application not selected, key
        not authenticated, no challenge given. So a chip answers whose power was cut unseen, for
        instance by a PC/SC service that finds a card late and powers it on itself."""
        failed = self.failed_step(segment)
        return failed is not None and failed[1].status_word in _WITHOUT_SESSION

    def complete(self, segment: Segment) -> bool:
        """Whether every step of `segment` ran and was answered as expected."""
        return (
            not self.broken
            and len(self.steps) == len(segment.steps)
            and self.failed_step(segment) is None
        )
