"""A floor whose keys the test knows, and chips whose memory is compared with keys that the test
derives by itself: what a chip really holds, whatever was said about it."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from actors.hsm import labels
from actors.hsm.masters import MasterState
from counterparts.factory import make_delivery
from domain.card.apdu import read_record, select_application
from domain.card.profile import Profile, load_profile
from domain.card.segment import Answers, Segment
from station_agents.virtual.social_memory import Key
from tests.conformance.card_side import CARDS as CIPHERS
from tests.conformance.card_side import Factory, take_temporary_keys
from tests.lines.small_floor import Chip, SmallFloor, Station

CARDS = 320
"""In a delivery."""


class KeyedChip(Chip):
    """A chip with temporary keys of a factory that the test plays."""

    def __init__(self, chip: Chip, floor: KnownFloor, factory: Factory) -> None:
        super().__init__(chip.plastic, floor.profile)
        self._floor, self.factory = floor, factory
        memory = chip.plastic.memory.social
        self.code = floor.code_of(self)
        memory.keys.clear()
        for slot in floor.profile.keys:
            value = factory.key(slot.usage, self.code)
            version = floor.profile.temporary_version
            memory.keys[slot.key_id] = Key(slot.key_id, version, value, slot.tries, slot.tries)
        self._delivered = copy.deepcopy(memory)

    @property
    def keys(self) -> dict[int, Key]:
        return self.plastic.memory.social.keys

    def holds_formal_set(self, version: int = 1) -> bool:
        """Whether every key is the formal one of this chip, and all else is as it was delivered."""
        card = CIPHERS[self._floor.profile.suite]
        formal = {
            slot.key_id: (
                version,
                card.chip_key(self._floor.formal[version, slot.usage], self.code),
            )
            for slot in self._floor.profile.keys
        }
        memory = self.plastic.memory.social
        return {k: (key.version, key.value) for k, key in memory.keys.items()} == formal and (
            replace(memory, keys={}) == replace(self._delivered, keys={})
        )


@dataclass
class KnownFloor:
    """`formal`: the province's masters by version and usage."""

    floor: SmallFloor
    formal: dict[tuple[int, str], bytes]
    _chips: list[tuple[Chip, Factory]] = field(default_factory=list)
    _seed: int = 100

    @property
    def profile(self) -> Profile:
        return self.floor.profile

    def rotate(self) -> None:
        """Version 2 is activated, and 1 retired."""
        masters = self.floor.provider.masters
        for slot in self.profile.keys:
            key = self.formal[2, slot.usage] = os.urandom(16)
            masters.create(labels.formal(slot.usage, 2), key, MasterState.ACTIVE)
        for slot in self.profile.keys:
            masters.set_state(labels.formal(slot.usage, 1), MasterState.RETIRED)

    async def chip(self) -> KeyedChip:
        """Another chip of a card that is in order; a new delivery comes when one is used up."""
        if not self._chips:
            await self._take_delivery()
        chip, factory = self._chips.pop()
        return KeyedChip(chip, self, factory)

    async def _take_delivery(self) -> None:
        self._seed += 1
        place = self.floor.place
        pem = (place / "transport.pem").read_bytes()
        delivery = make_delivery(self._seed, CARDS, place / f"delivery-{self._seed}", pem)
        factory = Factory.of(delivery.batch_id, self.profile)
        take_temporary_keys(self.floor.provider, factory.sealed(pem))
        await self.floor.take(delivery, keys=False)
        planted = {fault["card"] for fault in delivery.faults}
        self._chips += [
            (chip, factory)
            for chip in self.floor.chips(delivery)
            if chip.plastic.card_id not in planted and chip.plastic.face_number
        ]

    def code_of(self, chip: Chip) -> str:
        """As the chip says it."""
        at = self.profile.fields["identification_code"]
        chip.card.power_on()
        chip.card.process(bytes(select_application(self.profile.aid)))
        answer = chip.card.process(bytes(read_record(at.tag, at.file, at.length)))
        return at.decode(at.parse(answer[:-2]))


@dataclass
class Recording(Station):
    """Keeps what it sent."""

    sent: list[bytes] = field(default_factory=list)

    def execute(self, chip: Chip, segment: Segment) -> Answers:
        answers = super().execute(chip, segment)
        self.sent += [step.apdu for step in segment.steps[: len(answers.steps)]]
        return answers


@contextmanager
def known_floor(place: Path, profile_id: str) -> Iterator[KnownFloor]:
    formal = {slot.usage: os.urandom(16) for slot in load_profile(profile_id).keys}
    floor = SmallFloor.make(place, profile_id=profile_id, formal=formal)
    try:
        yield KnownFloor(floor, {(1, usage): key for usage, key in formal.items()})
    finally:
        floor.close()
