"""A chip under test, as the suite of `chip_suite` gets it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from domain.card.profile import Profile
from tests.conformance.chip_terminal import OK, Terminal

TEMPORARY, FORMAL = 0, 1


class Chip(Protocol):
    """What a reader can do with a chip, and the accidents that can befall it."""

    def power_on(self) -> bytes: ...
    def reset(self) -> bytes: ...
    def power_off(self) -> None: ...
    def process(self, apdu: bytes) -> bytes: ...
    def cut_power(self, command: int, *, executed: bool) -> None: ...


@dataclass
class Specimen:
    """A chip under temporary keys with a holder's data, the same each time it is made. `keys` by
    usage; `wake` gives the chip of what survived, without power."""

    profile: Profile
    keys: dict[str, bytes]
    wake: Callable[[], Chip]

    def open(self, *, select: bool = True) -> Terminal:
        """Power lost and back again, and a terminal at the chip."""
        self.chip = self.wake()
        assert self.chip.power_on()
        terminal = Terminal(self.profile, dict(self.keys), self.chip.process)
        if select:
            assert terminal.select() == OK
        return terminal


Make = Callable[[], AbstractContextManager[Specimen]]
