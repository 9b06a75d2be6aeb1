"""The memory of a chip that survives a loss of power, and the changes that can be made to it.

A change is the unit that is on file before the chip answers: it took effect as a whole, or not.
Each application's part stands in a module of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from station_agents.virtual.financial_memory import FinancialChange, FinancialMemory
from station_agents.virtual.social_memory import SocialChange, SocialMemory


@dataclass(frozen=True)
class CardBlocked:
    """The chip serves nothing any more, for good."""


Change = SocialChange | FinancialChange | CardBlocked


@dataclass
class CardMemory:
    """`financial` is None in a chip without a financial side."""

    social: SocialMemory
    blocked: bool = False
    financial: FinancialMemory | None = None

    def apply(self, change: Change) -> None:
        """Make `change`; made twice it is made once. KeyError for a key or an application that is
        not there."""
        if isinstance(change, CardBlocked):
            self.blocked = True
        elif not isinstance(change, FinancialChange):
            self.social.apply(change)
        elif self.financial is None:
            raise KeyError("financial")
        else:
            self.financial.apply(change)
