"""Chips at simulated stations: in-process virtual cards that speak in turns, without PC/SC.

The processor time of the chips themselves is counted apart, since a real chip brings its own.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from typing import Final

from counterparts.factory import Delivery
from domain.card.apdu import is_expected
from domain.card.profile import load_profile
from domain.card.segment import Answers, Segment, StepAnswer
from domain.places import Line
from domain.turns import Content, NoAnswer, Opening, Restart, StationTurn, Verdict
from station_agents.virtual.card import VirtualCard
from station_agents.virtual.memory import Change
from station_agents.virtual.tray_file import Plastic, read_tray

TURNS_OF_A_CARD: Final = 14
"""Eleven of key replacement, three of inspection; the bench fails if the lines need others."""
_PROFILE: Final = load_profile("ssc-3des")


class BenchError(Exception):
    """What was measured is not what the figures say: no result is written."""


@dataclass
class ChipTime:
    """Processor seconds that virtual chips used in this process."""

    seconds: float = 0.0


def sound_cards(delivery: Delivery) -> list[Plastic]:
    """The cards of a delivery in which no fault was planted, in the order of the trays."""
    planted = {fault["card"] for fault in delivery.faults}
    return [
        plastic
        for tray in delivery.trays
        for plastic in read_tray(tray)[0].cards.values()
        if plastic.card_id not in planted
    ]


@dataclass
class Chip:
    """One card on its way through the stages. `turn` is what its station says next; `take` what
    the centre answered. `seen` keeps the segments of each presentation."""

    plastic: Plastic
    station_id: str
    spent: ChipTime
    sound: bool = True
    """Has to be good in the end: one that is set apart is another measurement."""
    turns: int = 0
    done: bool = False
    seen: list[list[Segment]] = field(default_factory=list)

    def __post_init__(self) -> None:
        p = self.plastic
        self._card = VirtualCard(_PROFILE, p.memory, p.atr, _remember, silent=p.silent)
        self.open(Line.KEY_REPLACEMENT)

    def open(self, stage: str) -> None:
        """Lay the card into a reader of `stage`."""
        started = time.process_time()
        atr = self._card.power_on()
        self.spent.seconds += time.process_time() - started
        self.seen.append([])
        self.stage = stage
        self._presentation = str(uuid.uuid4())
        self._number = 0
        p = self.plastic
        look = p.carton_id, p.face_number, p.card_id
        self._content: Opening | NoAnswer | Answers = (
            Opening(atr, *look) if atr else NoAnswer(*look)
        )
        self.done = False

    @property
    def turn(self) -> StationTurn:
        return StationTurn(
            self.station_id, "R0", self._presentation, self._number, self.stage, self._content
        )

    def take(self, content: Content) -> None:
        """Go on as the centre says; the answer Wait is not for here. BenchError if a sound card
        is set apart."""
        self.turns += 1
        match content:
            case Segment():
                self.seen[-1].append(content)
                self._content = self._run(content)
                self._number += 1
            case Verdict(next_stage="", stack=stack) if stack == "good" or not self.sound:
                self.done = True
            case Verdict(next_stage=stage) if stage:
                self.open(stage)
            case Restart():
                self.open(Line.KEY_REPLACEMENT)
            case _:
                raise BenchError(f"a sound card was answered {content}")

    def _run(self, segment: Segment) -> Answers:
        """As an agent runs it: up to the first status word that is not expected."""
        started = time.process_time()
        answers = []
        for step in segment.steps:
            answer = self._card.process(step.apdu)
            word = int.from_bytes(answer[-2:], "big")
            answers.append(StepAnswer(word, answer[:-2]))
            if not is_expected(word, step.expect):
                break
        self.spent.seconds += time.process_time() - started
        return Answers(tuple(answers))


def _remember(change: Change) -> None:
    """A chip of the bench has no journal."""
