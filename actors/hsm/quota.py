"""A carton draws formal keys for no more chips than it has bodies."""

from __future__ import annotations

from collections.abc import Callable, Sequence


class CartonQuota:
    """Counts the distinct chips of each carton for which formal keys were drawn.

    A new process begins with those whose first WRITE KEY the ledger knows to be released.
    """

    def __init__(self, bodies: Callable[[str], int], drawn: Callable[[str], Sequence[str]]) -> None:
        """`bodies(carton_id)` is how many bodies a carton has; 0 for one that is not known.
        `drawn(carton_id)`: identification codes of chips that had their keys before."""
        self._bodies = bodies
        self._drawn_before = drawn
        self._drawn: dict[str, set[bytes]] = {}
        self._known: dict[str, int] = {}

    def admit(self, carton_id: str, identification_code: str) -> bool:
        """Whether the chip may draw; it counts from then on. A chip that drew before may again."""
        if carton_id not in self._drawn:
            before = self._drawn_before(carton_id)
            self._drawn[carton_id] = {bytes.fromhex(code) for code in before}
        drawn = self._drawn[carton_id]
        chip = bytes.fromhex(identification_code)
        if chip in drawn:
            return True
        # A carton's bodies never grow fewer: asked again only when what is known is used up, since
        # a recount may have found more.
        if len(drawn) >= self._known.get(carton_id, 0):
            self._known[carton_id] = self._bodies(carton_id)
            if len(drawn) >= self._known[carton_id]:
                return False
        drawn.add(chip)
        return True
