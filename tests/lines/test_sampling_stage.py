"""The sampling stage with real keys, a real ledger and virtual chips that are fed again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from actors import stock
from actors.lots import LotPlan
from domain.card.profile import load_profile
from domain.codes import Code
from domain.custody import ActKind, Reason
from domain.lines import ConfirmedAct, StockCount
from domain.places import DRAWN, Line
from domain.provider import KeyChange
from domain.turns import Verdict
from ledger.lots import LotState, lots_of
from ledger.summary import summary
from ledger.verify import verify
from tests.lines.small_floor import Chip, PowerCut, SmallFloor, Station

PROFILE = load_profile("ssc-3des")


@pytest.fixture(scope="module")
def floor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallFloor]:
    floor = SmallFloor.make(
        tmp_path_factory.mktemp("floor"), LotPlan(lambda lot_id: lot_id.encode().ljust(32))
    )
    yield floor
    floor.close()


async def to_the_draw(floor: SmallFloor, chips: list[Chip]) -> list[Chip]:
    """Every card through both stages and sorting; answers the good stack."""
    for chip in chips:
        await Station(floor).run(chip)
    await sort(floor)
    return [c for c in chips if c.stack == "good"]


async def sort(floor: SmallFloor) -> None:
    await floor.sort()


def drawn_codes(floor: SmallFloor) -> set[str]:
    return {b.identification_code for b in floor.queries.bodies("b.place = ?", DRAWN)}


def code_of(chip: Chip) -> str:
    field = PROFILE.fields["identification_code"]
    return chip.plastic.memory.social.records[field.file][field.tag].hex().upper()


def test_a_good_stack_fed_again_is_read_as_far_as_it_was_drawn_and_ships(
    floor: SmallFloor,
) -> None:
    """All the good stack is fed again, a power cut and a killed line on the way: the drawn cards
    are read whole and proven, of the others the identity alone, no key is written, no card
    changes its stack, and the batch closes."""
    delivery = floor.deliver(seed=21, cards=120)
    good = asyncio.run(to_the_draw(floor, floor.chips(delivery)))
    drawn = drawn_codes(floor)
    lots = lots_of(floor.queries, delivery.batch_id)
    assert len(drawn) == sum(lot.sample_size for lot in lots)
    assert 0 < len(drawn) < len(good)
    assert floor.queries.rows("select * from package") == []
    requests = len(floor.keys.requests)
    writes = {id(c): c.writes for c in good}

    async def read_again() -> None:
        for number, chip in enumerate(good):
            if number % 7 == 3:
                with pytest.raises(PowerCut):
                    await Station(floor, cut_at=3, first=Line.SAMPLING).run(chip)
                floor.restart_lines()
            station = Station(floor, first=Line.SAMPLING)
            assert await station.run(chip) == Verdict("", "good", "OK")
            assert (station.apdus > 4) is (code_of(chip) in drawn)
        await sort(floor)

    asyncio.run(read_again())
    assert {id(c): c.writes for c in good} == writes
    assert not [r for r in floor.keys.requests[requests:] if isinstance(r, KeyChange)]
    states = {lot.state for lot in lots_of(floor.queries, delivery.batch_id)}
    assert states == {LotState.ACCEPTED}
    counts = summary(floor.queries)
    assert (counts["shipped"], counts["in_work"]) == (len(good), 0)
    assert counts["reconciled"]
    assert counts["stages"]["sampling"]["cards"] == len(drawn)


def test_one_drawn_card_that_is_not_as_ordered_holds_its_lot(floor: SmallFloor) -> None:
    """A chip that passed and then changed: sampling finds it as inspection would have. Fed at a
    station that begins with key replacement, which sends the drawn on. The lot is held, the
    others ship, and the whole ledger verifies."""
    delivery = floor.deliver(seed=22, cards=60)
    before = summary(floor.queries)
    good = asyncio.run(to_the_draw(floor, floor.chips(delivery)))
    drawn = drawn_codes(floor)
    spoilt = next(c for c in good if c.plastic.face_number and code_of(c) in drawn)
    name = PROFILE.fields["name"]
    spoilt.plastic.memory.social.records[name.file][name.tag] = "某人".encode("gb18030").ljust(
        name.length, b"\0"
    )

    async def read_again() -> dict[int, Verdict]:
        verdicts = {id(c): await Station(floor).run(c) for c in good}
        await sort(floor)
        return verdicts

    verdicts = asyncio.run(read_again())
    assert verdicts.pop(id(spoilt)) == Verdict("", "rejected", "DATA_DIFFERS")
    assert set(verdicts.values()) == {Verdict("", "good", "OK")}
    lots = lots_of(floor.queries, delivery.batch_id)
    (refused,) = [lot for lot in lots if lot.state is LotState.REFUSED]
    after = summary(floor.queries)
    reasons = floor.queries.rows(
        "select count(*) as n from return_line where batch_id = ? and result = 'held'"
        " and reason = 'LOT_REFUSED'",
        delivery.batch_id,
    )
    assert reasons == [{"n": refused.size - 1}]
    assert after["shipped"] - before["shipped"] == len(good) - refused.size
    assert after["in_work"] == 0
    assert after["reconciled"]
    again = asyncio.run(Station(floor, first=Line.SAMPLING).run(spoilt))
    assert again == Verdict("", "rejected", "DATA_DIFFERS")
    report = verify(floor.place / "ledger.db", None, None)
    assert report.ok, report.finding


@pytest.mark.parametrize("first", [Line.KEY_REPLACEMENT, Line.SAMPLING])
def test_a_drawn_temporary_card_that_is_silent_now_is_found_by_its_ticket(
    floor: SmallFloor, first: Line
) -> None:
    """It has no number on its face, and is still the drawn card, whichever stage sees it first: no
    new body comes of it, and its lot does not wait for ever."""
    delivery = floor.deliver(seed=25 if first == Line.SAMPLING else 26, cards=8)
    good = asyncio.run(to_the_draw(floor, floor.chips(delivery)))
    before = summary(floor.queries)
    (silent,) = [c for c in good if not c.plastic.face_number]
    dead = Chip(silent.plastic)
    dead.card.power_on = lambda: b""  # type: ignore[method-assign]
    verdict = asyncio.run(Station(floor, first=first).run(dead))
    assert verdict == Verdict("", "rejected", "CHIP_SILENT")
    after = summary(floor.queries)
    assert (after["received"], after["rejected"]) == (before["received"], before["rejected"] + 1)


def test_a_drawn_card_that_is_silent_now_is_found_by_its_face(floor: SmallFloor) -> None:
    """It is rejected and counts against its lot; a strange chip is set aside by itself."""
    delivery = floor.deliver(seed=23, cards=40)
    good = asyncio.run(to_the_draw(floor, floor.chips(delivery)))
    drawn = drawn_codes(floor)
    silent = next(c for c in good if c.plastic.face_number and code_of(c) in drawn)
    dead = Chip(silent.plastic)
    dead.card.power_on = lambda: b""  # type: ignore[method-assign]
    station = Station(floor)
    assert asyncio.run(station.run(dead)) == Verdict("", "rejected", "CHIP_SILENT")
    other = floor.chips(floor.deliver(seed=24, cards=8))[0]
    verdict = asyncio.run(Station(floor, first=Line.SAMPLING).run(other))
    assert verdict.stack == "held"


def test_a_drawn_card_that_the_books_miss_is_set_aside_where_it_turns_up(
    floor: SmallFloor,
) -> None:
    """Nothing is written or decided by feeding it: it lies with the held cards until a stock-take
    finds it; then it is read as it was to be. Two people say both (not here: the line alone)."""
    delivery = floor.deliver(seed=27, cards=40)
    good = asyncio.run(to_the_draw(floor, floor.chips(delivery)))
    here = floor.queries.bodies("b.place = ? and b.batch_id = ?", DRAWN, delivery.batch_id)
    lost = next(b for b in here if b.order_id)
    (chip,) = [c for c in good if code_of(c) == lost.identification_code]

    async def adjust(command_id: str, *there: str) -> None:
        counted = await floor.sampling.count_stock(
            StockCount(command_id, DRAWN, lost.carton_id, there)
        )
        content = stock.content(floor.queries, counted.reason, Reason.MISPLACED)
        act = ConfirmedAct(command_id, ActKind.STOCK_ADJUST, counted.reason, content)
        assert (await floor.sampling.carry_out(act)).code == Code.OK

    others = [b.order_id for b in here if b.carton_id == lost.carton_id and b != lost]
    asyncio.run(adjust("A1", *others))
    verdict = asyncio.run(Station(floor, first=Line.SAMPLING).run(chip))
    assert verdict == Verdict("", "held", "STOCK_MISSING")
    asyncio.run(adjust("A2", *others, lost.order_id))
    verdict = asyncio.run(Station(floor, first=Line.SAMPLING).run(chip))
    assert verdict == Verdict("", "good", "OK")
