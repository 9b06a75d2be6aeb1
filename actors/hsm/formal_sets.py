"""The province's formal keys as sets: one version, one key for each usage of the profile."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from actors.hsm import labels
from actors.hsm.masters import Masters, MasterState

_SERVING = {MasterState.ACTIVE, MasterState.RETIRED}


class FormalSets:
    """Which versions serve, as the masters are now.

    A version is active when every usage has an active key in it; of two, as an interrupted
    rotation leaves them, the higher one. A version whose keys were all active once is retired: it
    serves chips that carry it. What is missing a key, or has a staged one, serves nobody.
    """

    def __init__(self, masters: Masters, usages: Iterable[str]) -> None:
        states: dict[int, dict[str, str]] = defaultdict(dict)
        for label in masters.labels():
            if labels.kind_of(label) is labels.Kind.FORMAL:
                meaning = labels.meaning(label)
                states[meaning.version][meaning.usage] = masters.state(label)
        wanted = set(usages)
        self.known = frozenset(states)
        whole = {v: set(s.values()) for v, s in states.items() if wanted <= set(s)}
        active = [v for v, found in whole.items() if found == {MasterState.ACTIVE}]
        self.active = max(active, default=0)
        """0: none."""
        self.retired = frozenset(
            v for v, found in whole.items() if found <= _SERVING and v != self.active
        )
