"""The numbers of one batch, bank and kind, on which inventory and key replacement decide both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class GroupKey(NamedTuple):
    batch_id: str
    bank: str
    kind: str


@dataclass(frozen=True)
class Group:
    """What was advised, what was counted, how many counted bodies were found that no accepted
    record stands for (`domain.codes.STRANGERS`). `stand_ins`: how many of these stood in the place
    of an advised one when this was settled last; `times`: how often it was."""

    advised: int = 0
    counted: int = 0
    unadvised: int = 0
    stand_ins: int = 0
    times: int = 0

    @property
    def due(self) -> int:
        """How many do so now: as many as the count shows beyond the advice are surplus by that
        alone; each other stands in the place of an advised one, which is missing."""
        return max(0, self.unadvised - max(0, self.counted - self.advised))
