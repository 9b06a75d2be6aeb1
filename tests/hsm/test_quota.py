"""How many chips of a carton may draw formal keys."""

from __future__ import annotations

from actors.hsm.quota import CartonQuota
from tests.conformance.card_side import identification_code


def test_bodies_that_a_recount_finds_may_draw() -> None:
    """The ledger is asked when what is known is used up, not for every card; more bodies than
    before then count at once, and a chip that drew before is never refused."""
    bodies, asked = 2, []

    def count(carton_id: str) -> int:
        asked.append(carton_id)
        return bodies

    quota = CartonQuota(count, lambda _: [])
    first, second, third = (identification_code(n) for n in range(3))
    assert quota.admit("C1", first)
    assert quota.admit("C1", second)
    assert asked == ["C1"]
    assert not quota.admit("C1", third)
    assert quota.admit("C1", first)
    bodies = 3
    assert quota.admit("C1", third)
