"""A carton draws formal keys for no more chips than it has bodies."""

from __future__ import annotations

from collections.abc import Callable, Sequence


class CartonQuota:
    """Counts the distinct chips of each carton for which formal keys were drawn.

    The members of a pool, and a process and the one after it, share the ledger and no memory: a
    chip that is new here counts against those whose first WRITE KEY the ledger knows to be
    released (whoever drew for them) and those for which this process drew. So at one member a
    carton never draws more than it has bodies, wherever it was served meanwhile. What no other
    process can know is what was drawn and not released: the chips of the one chunk of each line
    that was open when a member failed. By so many a carton's draws can exceed its bodies, in the
    providers' memory only: a key leaves for a chip after the commit that binds one body to it.
    """

    def __init__(self, bodies: Callable[[str], int], drawn: Callable[[str], Sequence[str]]) -> None:
        """`bodies(carton_id)` is how many bodies a carton has; 0 for one that is not known.
        `drawn(carton_id)`: identification codes of chips whose first WRITE KEY was released."""
        self._bodies = bodies
        self._released = drawn
        self._drawn: dict[str, set[bytes]] = {}
        self._known: dict[str, int] = {}
        self._read: set[str] = set()
        """Cartons whose releases were read in this chunk."""

    def begin_chunk(self) -> None:
        """What other members drew is asked anew, once for each carton with a new chip."""
        self._read.clear()

    def admit(self, carton_id: str, identification_code: str) -> bool:
        """Whether the chip may draw; it counts from then on. A chip that drew before may again."""
        drawn = self._drawn.setdefault(carton_id, set())
        chip = bytes.fromhex(identification_code)
        if chip not in drawn and carton_id not in self._read:
            drawn.update(bytes.fromhex(code) for code in self._released(carton_id))
            self._read.add(carton_id)
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
