"""A carton draws formal keys for no more chips than it has bodies."""

from __future__ import annotations

from collections.abc import Callable


class CartonQuota:
    """Counts the distinct chips of each carton for which formal keys were drawn in this process.

    A new process counts from nothing, so this bounds what one provider gives away; that a body
    is counted once for good is the ledger's part.
    """

    def __init__(self, bodies: Callable[[str], int]) -> None:
        """`bodies(carton_id)` is how many bodies a carton has; 0 for one that is not known."""
        self._bodies = bodies
        self._drawn: dict[str, set[bytes]] = {}

    def admit(self, carton_id: str, identification_code: str) -> bool:
        """Whether the chip may draw; it counts from then on. A chip that drew before may again."""
        drawn = self._drawn.setdefault(carton_id, set())
        chip = bytes.fromhex(identification_code)
        if chip in drawn:
            return True
        # Asked each time, since a recount may change it.
        if len(drawn) >= self._bodies(carton_id):
            return False
        drawn.add(chip)
        return True
