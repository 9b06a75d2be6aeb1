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

    quota = CartonQuota(count, lambda _: [], lambda _: 0)
    first, second, third = (identification_code(n) for n in range(3))
    assert quota.admit("C1", first)
    assert quota.admit("C1", second)
    assert asked == ["C1"]
    assert not quota.admit("C1", third)
    assert quota.admit("C1", first)
    bodies = 3
    assert quota.admit("C1", third)


def test_what_others_release_counts_and_is_read_only_near_the_end() -> None:
    """However two members share a carton, no more chips get keys than it has bodies, and a chip
    that another one released may draw again; the releases are read a few times, not each time."""
    bodies = 200
    released: list[str] = []
    reads: list[int] = []

    def drawn(_: str) -> list[str]:
        reads.append(len(released))
        return list(released)

    members = [CartonQuota(lambda _: bodies, drawn, lambda _: len(released)) for _ in range(2)]
    served = 0
    for n in range(300):
        member = members[n % 2]
        member.begin_chunk()
        if member.admit("C1", identification_code(n)):
            served += 1
            released.append(identification_code(n))
        if n == 150:
            assert members[1 - n % 2].admit("C1", identification_code(n))
    assert served == bodies
    assert len([at for at in reads if at < bodies - 20]) < 20
    for member in members:
        member.begin_chunk()
        assert all(member.admit("C1", code) for code in released)
