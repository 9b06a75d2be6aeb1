"""No temporary key on a chip that has formal ones, by a real ledger."""

from __future__ import annotations

import asyncio

import pytest

from domain.codes import Code
from domain.provider import Authenticate, Chip, KeySet, KeyStanding
from ledger.chip_records import LedgerChipRecords
from tests.lines.small_floor import Chip as VirtualChip
from tests.lines.small_floor import PowerCut, SmallFloor, Station


def test_the_ledger_knows_which_chips_are_done_with_temporary_keys(floor: SmallFloor) -> None:
    """Of a finished chip, one that was cut while its keys were written, and one that nobody saw:
    the provider refuses temporary keys to the first alone, and the second is finished."""
    delivery = floor.deliver(seed=47, cards=60)
    planted = {fault["card"] for fault in delivery.faults}
    done, cut = [c for c in floor.chips(delivery) if c.plastic.card_id not in planted][:2]
    records = LedgerChipRecords(floor.place / "ledger.db")

    def drawn(chip: VirtualChip) -> set[str]:
        return set(records.carton_drawn(chip.plastic.carton_id))

    async def run() -> None:
        assert (await Station(floor).run(done)).code == "OK"
        (finished,) = drawn(done)
        with pytest.raises(PowerCut):
            await Station(floor, 12).run(cut)
        (begun,) = drawn(cut) - {finished}
        unseen = f"430100D156000005{'F' * 16}"
        assert records.key_standings([finished, begun, unseen]) == {
            finished: KeyStanding(begun=True, replaced=True),
            begun: KeyStanding(begun=True, replaced=False),
        }
        carton = done.plastic.carton_id
        asked = [
            Authenticate(Chip(code, delivery.batch_id, carton), KeySet.TEMPORARY, "MK", bytes(8))
            for code in (finished, begun, unseen)
        ]
        refused = [a.refused for a in floor.provider.perform(asked)]
        assert refused == [Code.KEY_TEMPORARY_REFUSED, "", ""]
        assert (await Station(floor).run(cut)).code == "OK"

    asyncio.run(run())
    records.close()
