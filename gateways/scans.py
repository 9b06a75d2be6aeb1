"""What a hand scanner reads: numbers become orders at the door, so that no line sees a number."""

from __future__ import annotations

from collections.abc import Sequence

from domain.factory_return import FACE, index_text
from gateways.floor import Floor

LONGEST_SCAN = 100
"""Characters; what is longer is no number and stands for no card."""


async def orders_of_scans(floor: Floor, numbers: Sequence[str]) -> tuple[str, ...]:
    """The order behind each scanned number, "" where there is none; all in one call."""
    texts = [index_text(FACE, n) if len(n) <= LONGEST_SCAN else "" for n in numbers]
    values = await floor.provider.index(texts) if texts else []
    found = floor.queries.orders_by_number(FACE, values)
    return tuple(found[v].order_id if v in found else "" for v in values)
