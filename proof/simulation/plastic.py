"""The plastic of a simulated floor: where each card lies, and what is truly on its chip."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from domain.card.profile import Profile
from station_agents.virtual.card import VirtualCard
from station_agents.virtual.memory import Change
from station_agents.virtual.social_memory import KeyWritten
from station_agents.virtual.tray_file import Plastic

STACKS = ("good", "rejected", "held")


@dataclass(frozen=True)
class Truth:
    """What the factory knows of a card. `order_id`: the order that it made the chip for, empty
    for none; `face_order`: the one whose number is on its face; `destination`: the branch of its
    order; `fault`: what was done wrong (`counterparts.faults`)."""

    order_id: str
    face_order: str
    destination: str
    fault: str


@dataclass(eq=False)
class Card:
    """One piece of plastic."""

    ticket: str
    plastic: Plastic
    profile: Profile
    truth: Truth
    told: Callable[[Card, KeyWritten], None]
    """Called before a key of the chip changes."""
    written: Counter[int] = field(default_factory=Counter)
    """How often each key was written, by its id."""
    answered: dict[str, float] = field(default_factory=dict)
    """When it last answered in each of its presentations, in simulated seconds."""
    lies: str = "outside"
    """A stack, a reader or a package."""
    chip: VirtualCard = field(init=False)
    code: str = field(init=False)
    """Its identification code."""

    def __post_init__(self) -> None:
        p = self.plastic
        where = self.profile.fields["identification_code"]
        self.code = p.memory.social.records[where.file][where.tag].hex().upper()
        self.chip = VirtualCard(
            self.profile, p.memory, p.atr, self._changes, silent=p.silent, weak=p.weak
        )

    def _changes(self, change: Change) -> None:
        if isinstance(change, KeyWritten):
            self.told(self, change)
            self.written[change.key_id] += 1


class Feeder:
    """The hopper of a station and its readers; `lying` by reader."""

    def __init__(self, name: str, readers: int) -> None:
        self.name = name
        self._hopper: deque[Card] = deque()
        self.lying: list[Card | None] = [None] * readers
        self._arrived = asyncio.Event()

    def feed(self, card: Card) -> None:
        card.lies = self.name
        self._hopper.append(card)
        self._arrived.set()

    @property
    def waiting(self) -> int:
        return len(self._hopper) + sum(card is not None for card in self.lying)

    async def card(self, reader: int) -> Card:
        """The card in a reader; the next one of the hopper if there is none."""
        while self.lying[reader] is None:
            if self._hopper:
                self.lying[reader] = self._hopper.popleft()
            else:
                self._arrived.clear()
                await self._arrived.wait()
        card = self.lying[reader]
        assert card is not None
        return card

    def eject(self, reader: int, stack: str) -> None:
        card = self.lying[reader]
        if card is not None:
            card.lies = stack
            self.lying[reader] = None

    def take_out(self, reader: int) -> Card | None:
        """Somebody takes the card out of a reader by hand."""
        card, self.lying[reader] = self.lying[reader], None
        return card
