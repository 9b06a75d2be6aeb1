"""A floor whose keys the test knows, and chips whose memory is compared with keys that the test
derives by itself: what a chip really holds, whatever was said about it."""

from __future__ import annotations

import asyncio
import copy
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from domain.card.profile import Profile, load_profile
from station_agents.virtual.social_memory import Key
from tests.conformance.card_side import CARDS, Factory
from tests.lines.small_floor import Chip, SmallFloor

VERSION = 1
"""Of the formal keys."""


class KeyedChip(Chip):
    """A chip with temporary keys of a factory that the test plays."""

    def __init__(self, chip: Chip, floor: KnownFloor, factory: Factory) -> None:
        super().__init__(chip.plastic, floor.profile)
        self._floor = floor
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

    def holds_formal_set(self) -> bool:
        """Whether every key is the formal one of this chip, and all else is as it was delivered."""
        card = CARDS[self._floor.profile.suite]
        formal = {
            slot.key_id: (VERSION, card.chip_key(self._floor.formal[slot.usage], self.code))
            for slot in self._floor.profile.keys
        }
        memory = self.plastic.memory.social
        return {k: (key.version, key.value) for k, key in memory.keys.items()} == formal and (
            replace(memory, keys={}) == replace(self._delivered, keys={})
        )


@dataclass
class KnownFloor:
    """`chips` gives one after another, each of a card that is in order; a new delivery comes when
    one is used up."""

    floor: SmallFloor
    formal: dict[str, bytes]
    _chips: Iterator[KeyedChip] = field(init=False)

    def __post_init__(self) -> None:
        self._chips = self._deliveries()

    @property
    def profile(self) -> Profile:
        return self.floor.profile

    def chip(self) -> KeyedChip:
        return next(self._chips)

    def code_of(self, chip: Chip) -> str:
        at = self.profile.fields["identification_code"]
        answer = chip.card.power_on() and chip.card.process(
            b"\x00\xa4\x04\x00" + bytes((len(self.profile.aid),)) + self.profile.aid
        )
        assert answer
        p2 = at.file << 3 | 4
        read = chip.card.process(bytes((0x00, 0xB2, at.tag, p2, at.length + 2)))
        return read[2:-2].hex().upper()

    def _deliveries(self) -> Iterator[KeyedChip]:
        for seed in range(100, 1_000):
            yield from self._delivery(seed)

    def _delivery(self, seed: int) -> Iterator[KeyedChip]:
        delivery = self.floor.deliver(seed, cards=160, keys=False)
        factory = Factory.of(delivery.batch_id, self.profile)
        block = factory.sealed((self.floor.place / "transport.pem").read_bytes())
        asyncio.run(self.floor.keys.import_temporary_keys(block))
        planted = {fault["card"] for fault in delivery.faults}
        for chip in self.floor.chips(delivery):
            if chip.plastic.card_id not in planted and chip.plastic.face_number:
                yield KeyedChip(chip, self, factory)


@contextmanager
def known_floor(place: Path, profile_id: str) -> Iterator[KnownFloor]:
    formal = {slot.usage: os.urandom(16) for slot in load_profile(profile_id).keys}
    floor = SmallFloor.make(place, profile_id=profile_id, formal=formal)
    try:
        yield KnownFloor(floor, formal)
    finally:
        floor.close()
