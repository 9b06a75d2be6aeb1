"""Hopper, readers and stacks: where the plastic of a tray process lies, and what answers there.

Nothing moves by itself: a card leaves a reader by `eject` only, and the next one comes to lie
there. pcscd never sees a removal; the new card answers from the next power-off, power-on or
reset, as the old one would not have answered any more.
"""

from __future__ import annotations

import json
import os
from collections import Counter, deque
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from domain.card.profile import Profile, load_profile
from station_agents.virtual.card import VirtualCard
from station_agents.virtual.tray_file import HOPPER, STACKS, OpenTray, Plastic

_PLACES_SIZE: Final = 4096


class Slot:
    """One reader. `lying` is the plastic in it; the chip that answers is the one that lay there
    at the last power-off, power-on or reset."""

    def __init__(self) -> None:
        self.lying: Plastic | None = None
        self.chip: VirtualCard | None = None
        self._next: VirtualCard | None = None

    def put(self, plastic: Plastic | None, chip: VirtualCard | None) -> None:
        self.lying, self._next = plastic, chip

    def _present(self) -> None:
        if self.chip is not self._next:
            if self.chip is not None:
                self.chip.power_off()
            self.chip = self._next

    def power_on(self) -> None:
        self._present()
        if self.chip is not None:
            self.chip.power_on()

    def reset(self) -> None:
        self._present()
        if self.chip is not None:
            self.chip.reset()

    def power_off(self) -> None:
        self._present()
        if self.chip is not None:
            self.chip.power_off()

    def atr(self) -> bytes:
        """What a question for presence is answered with; empty for "no card".

        An ejected card seems to be there until the power cycle that brings the next one; with
        nothing to come the reader is empty at once. Where the last answer was "no card", pcscd
        sends no power-on: the next card shows at once.
        """
        if self.chip is None or not self.chip.atr or self._next is None:
            self._present()
        return self.chip.atr if self.chip is not None else b""

    def cut_power(self, command: int, *, executed: bool) -> None:
        """As of `VirtualCard`; ValueError if no chip answers here."""
        if self.chip is None:
            raise ValueError("no chip answers in this reader")
        self.chip.cut_power(command, executed=executed)

    def process(self, apdu: bytes) -> bytes:
        """The chip's answer; empty if nothing answers, as when the chip was ejected."""
        if self.chip is None or self.chip is not self._next:
            return b""
        return self.chip.process(apdu)


class Places:
    """Which card lies in which reader, kept beside the tray so that a restart puts each one back
    where it lay. Only a hint: that nothing is lost or doubled rests on the journal alone."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def read(self) -> list[tuple[str, str] | None]:
        """(tray id, card id) by reader; shorter than the readers, or empty, if unknown."""
        try:
            rows = json.loads(os.pread(self._file, _PLACES_SIZE, 0) or b"[]")
            return [None if row is None else (str(row[0]), str(row[1])) for row in rows]
        except (ValueError, TypeError, IndexError):
            return []

    def write(self, slots: Sequence[Slot]) -> None:
        rows = [None if s.lying is None else (s.lying.tray_id, s.lying.card_id) for s in slots]
        data = json.dumps(rows).encode()
        if len(data) <= _PLACES_SIZE:
            os.pwrite(self._file, data.ljust(_PLACES_SIZE), 0)

    def close(self) -> None:
        os.close(self._file)


class Hopper:
    """All plastic of the open trays. `slots` are the readers; ValueError if two trays have the
    same id. Each move is in the journal before it happens."""

    def __init__(self, trays: Sequence[OpenTray], readers: int, places: Places) -> None:
        self._trays = {t.tray.tray_id: t for t in trays}
        if len(self._trays) != len(trays):
            raise ValueError("two trays have the same id")
        self._profiles: dict[str, Profile] = {
            t.tray.profile_id: load_profile(t.tray.profile_id) for t in trays
        }
        self.slots = [Slot() for _ in range(readers)]
        self._places = places
        self._stacks: Counter[str] = Counter(dict.fromkeys(STACKS, 0))
        self._hopper: deque[Plastic] = deque()
        cards = {(c.tray_id, c.card_id): c for t in trays for c in t.tray.cards.values()}
        waiting = {name: card for name, card in cards.items() if card.stack == HOPPER}
        self._stacks.update(card.stack for card in cards.values() if card.stack != HOPPER)
        for slot, name in zip(self.slots, places.read(), strict=False):
            if name is not None and name in waiting:
                self._put(slot, waiting.pop(name))
        self._hopper.extend(waiting.values())
        self._load()

    def _put(self, slot: Slot, plastic: Plastic | None) -> None:
        if plastic is None:
            slot.put(None, None)
            return
        tray = self._trays[plastic.tray_id]
        chip = VirtualCard(
            self._profiles[tray.tray.profile_id],
            plastic.memory,
            plastic.atr,
            partial(tray.change, plastic.card_id),
            silent=plastic.silent,
            weak=plastic.weak,
        )
        slot.put(plastic, chip)

    def _load(self) -> None:
        """Let a card come to lie in each empty reader, as far as there are any."""
        for slot in self.slots:
            if slot.lying is None and self._hopper:
                self._put(slot, self._hopper.popleft())
        self._places.write(self.slots)

    def eject(self, reader: int, stack: str, ticket: str | None = None) -> bool:
        """Put the card in `reader` on `stack`; whether a card lies there now. With a `ticket`
        (of `look`) only that card is ejected: a repeated request moves nothing.

        Raises ValueError for an unknown stack, IndexError for an unknown reader, OSError if the
        journal cannot be written; nothing has moved then.
        """
        if stack not in STACKS:
            raise ValueError("the stack must be one of " + ", ".join(STACKS))
        slot = self.slots[reader]
        plastic = slot.lying
        if plastic is None or ticket not in (None, _ticket(plastic)):
            return plastic is not None
        tray = self._trays[plastic.tray_id]
        tray.append([{"card": plastic.card_id, "stack": stack}])
        plastic.stack = stack
        self._stacks[stack] += 1
        self._put(slot, None)
        self._load()
        return slot.lying is not None

    def feed(self, stack: str, tickets: Collection[str] | None = None) -> int:
        """Put a stack's cards, or those of them that `tickets` name, at the end of the hopper, and
        from there into empty readers; the number of cards. Errors as of `eject`; what one tray's
        journal could not take stays."""
        if stack not in STACKS:
            raise ValueError("the stack must be one of " + ", ".join(STACKS))
        fed = 0
        for tray in self._trays.values():
            cards = [
                c
                for c in tray.tray.cards.values()
                if c.stack == stack and (tickets is None or _ticket(c) in tickets)
            ]
            if not cards:
                continue
            tray.append([{"card": c.card_id, "stack": HOPPER} for c in cards])
            for card in cards:
                card.stack = HOPPER
            self._hopper.extend(cards)
            fed += len(cards)
            self._stacks[stack] -= len(cards)
        self._load()
        return fed

    def look(self, reader: int) -> dict[str, Any]:
        """What eyes or a scanner see of the card lying in `reader`, and its ticket."""
        plastic = self.slots[reader].lying
        return {
            "loaded": plastic is not None,
            "carton_id": plastic.carton_id if plastic else "",
            "face_number": plastic.face_number if plastic else "",
            "ticket": _ticket(plastic) if plastic else "",
        }

    def lying_on(self, stack: str) -> list[dict[str, str]]:
        """What eyes see of the cards on a stack, and their tickets. Raises ValueError for an
        unknown stack."""
        if stack not in STACKS:
            raise ValueError("the stack must be one of " + ", ".join(STACKS))
        return [
            {"carton_id": c.carton_id, "face_number": c.face_number, "ticket": _ticket(c)}
            for tray in self._trays.values()
            for c in tray.tray.cards.values()
            if c.stack == stack
        ]

    def count(self) -> dict[str, int]:
        """All plastic by carton, wherever it lies."""
        return dict(
            Counter(c.carton_id for t in self._trays.values() for c in t.tray.cards.values())
        )

    def status(self) -> dict[str, Any]:
        return {
            "hopper": len(self._hopper),
            "in_readers": sum(slot.lying is not None for slot in self.slots),
            "stacks": dict(self._stacks),
        }

    def _order(self) -> Iterator[Plastic]:
        """Readers first, then the hopper, then the stacks: so that a tray loaded again feeds in
        the order in which it would have fed."""
        yield from (slot.lying for slot in self.slots if slot.lying is not None)
        yield from self._hopper
        for tray in self._trays.values():
            yield from (c for c in tray.tray.cards.values() if c.stack != HOPPER)

    def compact(self) -> None:
        """Write every tray as it is now into its base file and empty its journal."""
        order = list(self._order())
        for tray_id, tray in self._trays.items():
            tray.compact(c for c in order if c.tray_id == tray_id)


def _ticket(plastic: Plastic) -> str:
    """Names the card in a reader for a safe repeat; says nothing about chip or holder."""
    return f"{plastic.tray_id}/{plastic.card_id}"
