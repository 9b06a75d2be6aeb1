"""One batch through all lines in this process, from the factory's return to the centre's."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass

from actors.lots import LotPlan
from actors.sorting import Sorting
from bench.chips import BenchError, Chip, ChipTime
from bench.one_process import Door, Lines
from counterparts.factory import Delivery
from domain.places import DRAWN, Line
from proof.scanning import scan_packages
from station_agents.virtual.tray_file import read_tray

SEED_BYTES = 16


@dataclass(frozen=True)
class BatchRound:
    """Processor seconds of this process without those of the chips, and seconds by the clock."""

    cards: int
    seconds: float
    clock: float


async def run(lines: Lines, delivery: Delivery, *, keys: bool = True) -> BatchRound:
    """Take `delivery` in (with its temporary `keys`, unless the token has them), all its chips
    through the lines, the samples again, the packages scanned, the outbox acknowledged. Raises
    BenchError if the batch does not come to its return."""
    spent = ChipTime()
    chips = [
        Chip(plastic, "station-1", spent, sound=False)
        for tray in delivery.trays
        for plastic in read_tray(tray)[0].cards.values()
    ]
    spent.seconds = 0.0
    clock, started = time.perf_counter(), time.process_time()
    await lines.take_in(delivery, keys=keys)
    await lines.feed(chips)
    await _finish(lines, chips)
    seconds = time.process_time() - started - spent.seconds
    if not lines.queries.is_closed(delivery.batch_id):
        raise BenchError("the batch did not come to its return")
    return BatchRound(len(chips), seconds, time.perf_counter() - clock)


async def _finish(lines: Lines, chips: list[Chip]) -> None:
    lots = LotPlan(lambda _lot: secrets.token_bytes(SEED_BYTES))
    door, q = Door(lines.ledger, Line.SORTING, []), lines.queries
    sorting = Sorting(door, q, f"batch:{door.epoch}", lots)
    by_ticket = {(c.plastic.carton_id, c.plastic.card_id): c for c in chips}
    while True:
        while await sorting.step():
            pass
        drawn = [by_ticket[b.carton_id, b.ticket] for b in q.bodies("b.place = ?", DRAWN)]
        for chip in drawn:
            chip.open(Line.SAMPLING)
        await lines.feed(drawn)
        scanned = await scan_packages(sorting, q)
        if not drawn and not scanned:
            break
    sent = [r["id"] for r in q.rows("select id from outbox where acknowledged = 0 order by id")]
    await sorting.acknowledge(sent)
