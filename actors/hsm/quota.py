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

    def __init__(
        self,
        bodies: Callable[[str], int],
        drawn: Callable[[str], Sequence[str]],
        released: Callable[[str], int],
    ) -> None:
        """`bodies(carton_id)` is how many bodies a carton has; 0 for one that is not known.
        `drawn(carton_id)`: identification codes of chips whose first WRITE KEY was released;
        `released(carton_id)`: how many they are."""
        self._bodies, self._released, self._count = bodies, drawn, released
        self._drawn: dict[str, set[bytes]] = {}
        self._known: dict[str, int] = {}
        self._at_reading: dict[str, int] = {}
        """How many were released when they were read."""
        self._since: dict[str, int] = {}
        """Of cartons asked about in this chunk: how many were released since they were read. All
        of them may be chips that this process does not know."""

    def begin_chunk(self) -> None:
        """What other members drew is asked anew, once for each carton with a new chip."""
        self._since.clear()

    def admit(self, carton_id: str, identification_code: str) -> bool:
        """Whether the chip may draw; it counts from then on. A chip that drew before may again."""
        drawn = self._drawn.setdefault(carton_id, set())
        chip = bytes.fromhex(identification_code)
        if chip in drawn:
            return True
        if carton_id not in self._since:
            now = self._count(carton_id)
            self._since[carton_id] = now - self._at_reading.get(carton_id, 0)
        if self._since[carton_id] and self._used_up(carton_id, len(drawn) + self._since[carton_id]):
            # Counting them is cheap, reading them is not: only where the count does not settle it.
            codes = self._released(carton_id)
            drawn.update(map(bytes.fromhex, codes))
            self._at_reading[carton_id], self._since[carton_id] = len(codes), 0
            if chip in drawn:
                return True
        if self._used_up(carton_id, len(drawn) + self._since[carton_id]):
            return False
        drawn.add(chip)
        return True

    def _used_up(self, carton_id: str, draws: int) -> bool:
        # A carton's bodies never grow fewer: asked again only when what is known is used up, since
        # a recount may have found more.
        if draws >= self._known.get(carton_id, 0):
            self._known[carton_id] = self._bodies(carton_id)
        return draws >= self._known[carton_id]
