"""The memory of a chip that survives a loss of power, and the changes that can be made to it.

A change is the unit that is on file before the chip answers: it took effect as a whole, or not.
Each application's part stands in a module of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from station_agents.virtual.social_memory import SocialChange, SocialMemory


@dataclass(frozen=True)
class CardBlocked:
    """The chip serves nothing any more, for good."""


Change = SocialChange | CardBlocked


@dataclass
class CardMemory:
    social: SocialMemory
    blocked: bool = False

    def apply(self, change: Change) -> None:
        """Make `change`; made twice it is made once. KeyError for a key that is not there."""
        if isinstance(change, CardBlocked):
            self.blocked = True
        else:
            self.social.apply(change)
