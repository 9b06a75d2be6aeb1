"""Key replacement and inspection, with real keys, a real ledger and virtual chips."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter

import pytest

from counterparts.factory import Delivery
from counterparts.faults import Fault
from domain.card.profile import load_profile
from domain.lines import OrderAct, OrdersCommand
from domain.places import Line
from domain.provider import KeyChange
from domain.turns import Opening, StationTurn, Verdict
from ledger.summary import summary
from station_agents.virtual.card import VirtualCard
from tests.lines.small_floor import Chip, SmallFloor, Station

PROFILE = load_profile("ssc-3des")


def is_formal(chip: Chip) -> bool:
    return {k.version for k in chip.plastic.memory.social.keys.values()} == {1}


def good_chips(floor: SmallFloor, delivery: Delivery) -> list[Chip]:
    planted = {f["card"] for f in delivery.faults}
    return [c for c in floor.chips(delivery) if c.plastic.card_id not in planted]


@pytest.fixture(scope="module")
def delivery(floor: SmallFloor) -> Delivery:
    return floor.deliver(seed=3, cards=160)


def test_a_chip_that_lost_its_session_unseen_is_read_again(floor: SmallFloor) -> None:
    """Before every APDU of both sessions: the chip is reset and nobody is told (a PC/SC service
    that sees a card late powers it on itself). It is opened again, and ends among the good."""
    chips = iter(good_chips(floor, floor.deliver(seed=41, cards=70)))

    async def run() -> None:
        whole = Station(floor)
        await whole.run(next(chips))
        for reset_at in range(1, whole.apdus + 1):
            chip = next(chips)
            found = await Station(floor, reset_at=reset_at).run(chip)
            assert (reset_at, found) == (reset_at, Verdict("", "good", "OK"))
            assert chip.writes == len(PROFILE.keys)

    asyncio.run(run())


def test_a_chip_that_never_keeps_its_session_is_rejected(
    floor: SmallFloor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chip that refuses EXTERNAL AUTHENTICATE as without challenge each time: three times in
    all, as a power-on is tried, and not for ever."""
    chip = good_chips(floor, floor.deliver(seed=42, cards=20))[0]
    process = chip.card.process
    asked: list[bytes] = []

    def refusing(apdu: bytes) -> bytes:
        if apdu[1] != 0x82:
            return process(apdu)
        asked.append(apdu)
        return b"\x69\x84"

    monkeypatch.setattr(chip.card, "process", refusing)
    found = asyncio.run(Station(floor).run(chip))
    assert (found.stack, found.code, len(asked)) == ("rejected", "AUTHENTICATION_REFUSED", 3)


def test_a_card_in_a_carton_of_another_batch_is_held(floor: SmallFloor) -> None:
    """Each return is about its own batch: the card is surplus where it came, its order missing
    where it did not, and nothing is written to the chip."""
    one, other = (floor.deliver(seed, cards=20) for seed in (43, 44))
    chip, host = good_chips(floor, one)[0], good_chips(floor, other)[0]
    chip.plastic.carton_id = host.plastic.carton_id
    found = asyncio.run(Station(floor).run(chip))
    assert (found.stack, found.code, chip.writes) == ("held", "OTHER_BATCH", 0)
    held = floor.queries.bodies("b.condition = 'OTHER_BATCH'")
    assert [(b.batch_id, b.order_id) for b in held] == [(other.batch_id, "")]


def test_each_planted_fault_ends_in_its_account_and_the_batch_closes(floor: SmallFloor) -> None:
    """Whatever is wrong with a card, it stops nobody, it has a reason, and the equation holds."""
    delivery = floor.deliver(seed=11, cards=90)
    chips = floor.chips(delivery)

    async def run() -> None:
        for chip in chips:
            await Station(floor).run(chip)
        await floor.sort()

    asyncio.run(run())
    stacks = {c.plastic.card_id: c.stack for c in chips}
    reasons = {
        Fault.SILENT_CHIP: ("rejected", "CHIP_SILENT", "rejected"),
        Fault.FOREIGN_FORMAL_KEYS: ("held", "FORMAL_KEYS_FOREIGN", "held"),
        Fault.OTHER_PERSON: ("rejected", "DATA_DIFFERS", "rejected"),
        Fault.UNKNOWN_BANK: ("held", "UNKNOWN_BANK", "surplus"),
        Fault.BAD_CHECK_DIGIT: ("held", "BAD_CHECK_DIGIT", "surplus"),
        Fault.REPEATED_IDENTITY: ("held", "REPEATED_NUMBER", "surplus"),
    }
    lines = {r["order_id"]: r for r in floor.queries.rows("select * from return_line")}
    for fault, (stack, reason, result) in reasons.items():
        for planted in delivery.planted(fault):
            assert stacks[planted["card"]] == stack
            line = lines[planted["order_id"]]
            assert (line["result"], line["reason"]) == (result, reason)
    for planted in delivery.planted(Fault.NOT_IN_RETURN):
        assert stacks[planted["card"]] == "held"
        assert lines[planted["order_id"]]["result"] == "missing"
    for planted in delivery.planted(Fault.SURPLUS_CARD):
        assert stacks[planted["card"]] == "held"
        assert lines[planted["order_id"]]["result"] == "shipped"
    for planted in delivery.planted(Fault.RECORD_TWICE):
        assert lines[planted["order_id"]]["result"] == "shipped"
    for planted in delivery.planted(Fault.CARTON_SHORT):
        assert lines[planted["order_id"]]["result"] == "missing"
    bodies = floor.queries.rows(
        "select place, count(*) as n from body where batch_id = ? group by place",
        delivery.batch_id,
    )
    assert (
        sum(r["n"] for r in bodies if r["place"].startswith("courier/"))
        == Counter(stacks.values())["good"]
    )
    assert summary(floor.queries)["reconciled"]


def test_a_temporary_card_with_a_holder_is_rejected(floor: SmallFloor) -> None:
    """A reusable card must come empty: one that carries somebody's name never leaves."""
    delivery = floor.deliver(seed=12, cards=60)
    chip = next(c for c in good_chips(floor, delivery) if not c.plastic.face_number)
    chip.plastic.memory.social.records.setdefault(0x06, {})[0x09] = "某人".encode("gb18030").ljust(
        30, b"\0"
    )
    verdict = asyncio.run(Station(floor).run(chip))
    assert (verdict.stack, verdict.code) == ("rejected", "DATA_DIFFERS")


def test_a_card_beyond_the_count_becomes_a_held_body(floor: SmallFloor) -> None:
    """More chips than were signed for: the extra one is surplus and held, and nothing of another
    card is used for it."""
    delivery = floor.deliver(seed=13, cards=20)
    chips = good_chips(floor, delivery)
    carton = chips[0].plastic.carton_id
    inside = [c for c in chips if c.plastic.carton_id == carton]
    stranger = next(c for c in chips if c.plastic.carton_id != carton and c.plastic.face_number)
    stranger.plastic.carton_id = carton

    async def run() -> list[Verdict]:
        return [await Station(floor).run(c) for c in [*inside, stranger]]

    verdicts = asyncio.run(run())
    assert [v.stack for v in verdicts] == ["good"] * len(inside) + ["held"]
    assert verdicts[-1].code == "OVER_COUNT"
    assert not is_formal(stranger)
    assert summary(floor.queries)["reconciled"]


def test_a_cancelled_card_is_set_apart_where_it_comes_by_next(floor: SmallFloor) -> None:
    """Before its keys are replaced none is written; between the two stages inspection sets it
    apart. One on hold is finished and waits at sorting."""
    delivery = floor.deliver(seed=15, cards=20)
    early, between, on_hold = [c for c in good_chips(floor, delivery) if c.plastic.face_number][:3]
    order_of = {card: order_id for order_id, card in delivery.cards.items()}

    def command(act: OrderAct, chip: Chip) -> None:
        command = OrdersCommand(secrets.token_hex(4), act, (order_of[chip.plastic.card_id],))
        assert asyncio.run(floor.sorting.command_orders(command)).accepted

    command(OrderAct.CANCEL, early)
    assert asyncio.run(Station(floor).run(early)) == Verdict("", "held", "CANCELLED")
    assert early.writes == 0
    asyncio.run(Station(floor).present(between, Line.KEY_REPLACEMENT))
    command(OrderAct.CANCEL, between)
    assert asyncio.run(Station(floor).run(between)) == Verdict("", "held", "CANCELLED")
    command(OrderAct.HOLD, on_hold)
    assert asyncio.run(Station(floor).run(on_hold)) == Verdict("", "good", "OK")
    asyncio.run(floor.sorting.step())
    places = {
        r["order_id"]: (r["place"], r["condition"])
        for r in floor.queries.rows("select order_id, place, condition from body")
    }
    assert [places[order_of[c.plastic.card_id]] for c in (early, between, on_hold)] == [
        ("key_replacement/held", "CANCELLED"),
        ("inspection/held", "CANCELLED"),
        ("sorting/held", "ON_HOLD"),
    ]


def test_a_recounted_card_goes_on_when_it_is_fed_again(floor: SmallFloor) -> None:
    """Two cards too many in a carton, a good one and a silent one without number: beyond the
    count both are held; counted anew and fed again, each ends as it deserves."""
    delivery = floor.deliver(seed=16, cards=20)
    chips = [c for c in good_chips(floor, delivery) if c.plastic.face_number]
    carton = chips[0].plastic.carton_id
    counted = [c for c in chips if c.plastic.carton_id == carton]
    good, silent = [c for c in chips if c.plastic.carton_id != carton][:2]
    silent.plastic.face_number = ""

    async def run(chip: Chip) -> Verdict:
        return await Station(floor).run(chip)

    silent.card = VirtualCard(PROFILE, silent.plastic.memory, silent.plastic.atr, silent._persist,
                              silent=True)  # fmt: skip
    for chip in (good, silent):
        chip.plastic.carton_id = carton
    assert {asyncio.run(run(c)).stack for c in counted} == {"good"}
    assert [asyncio.run(run(c)).stack for c in (good, silent)] == ["held"] * 2
    receipt = asyncio.run(floor.inventory.recount(carton, len(counted) + 2))
    assert receipt.accepted
    assert asyncio.run(run(good)) == Verdict("", "good", "OK")
    assert is_formal(good)
    assert asyncio.run(run(silent)) == Verdict("", "rejected", "CHIP_SILENT")
    assert summary(floor.queries)["reconciled"]


def test_a_temporary_card_beyond_the_count_still_goes_to_the_window_of_its_carton(
    floor: SmallFloor,
) -> None:
    """It was in no row but its own when it was read: counted anew, it must not be sent nowhere."""
    delivery = floor.deliver(seed=18, cards=60)
    inside, beyond = (c for c in floor.chips(delivery) if not c.plastic.face_number)
    beyond.plastic.carton_id = carton = inside.plastic.carton_id
    assert asyncio.run(Station(floor).run(inside)).stack == "good"
    assert asyncio.run(Station(floor).run(beyond)).code == "OVER_COUNT"
    assert asyncio.run(floor.inventory.recount(carton, 2)).accepted
    assert asyncio.run(Station(floor).run(beyond)).stack == "good"
    bodies = floor.queries.bodies("b.carton_id = ?", carton)
    counted = floor.queries.carton(carton)
    assert counted is not None
    assert counted.destination.startswith("window-")
    assert [b.destination for b in bodies] == [counted.destination] * 2


def test_a_finished_chip_that_is_fed_again_goes_to_its_stack_untouched(
    floor: SmallFloor, delivery: Delivery
) -> None:
    """Reading a stack twice changes nothing and asks for no key."""
    chip = good_chips(floor, delivery)[-2]
    asyncio.run(Station(floor).run(chip))
    commits = floor.queries.one("select count(*) as n from commit_link")
    before = len([r for r in floor.keys.requests if isinstance(r, KeyChange)])
    assert asyncio.run(Station(floor).run(chip)) == Verdict("", "good", "OK")
    assert floor.queries.one("select count(*) as n from commit_link") == commits
    assert len([r for r in floor.keys.requests if isinstance(r, KeyChange)]) == before
    assert chip.writes == len(PROFILE.keys)


def test_a_silent_card_that_is_presented_twice_stays_one_body(floor: SmallFloor) -> None:
    """A temporary card without a face number, whose station died between verdict and eject: the
    feeder's ticket says that it is the same card, and no other card's body is used up."""
    delivery = floor.deliver(seed=14, cards=60)
    chips = floor.chips(delivery)
    chip = next(c for c in chips if not c.plastic.face_number)
    chip.card.atr = b""

    async def run() -> None:
        for card in [chip, chip, *(c for c in chips if c is not chip), chip]:
            await Station(floor).run(card)

    asyncio.run(run())
    silent = floor.queries.bodies(
        "b.batch_id = ? and b.condition = 'CHIP_SILENT' and b.kind = 'temporary_card'",
        delivery.batch_id,
    )
    assert len(silent) == 1
    over = floor.queries.bodies("b.batch_id = ? and b.condition = 'OVER_COUNT'", delivery.batch_id)
    assert over == []


def test_a_chip_that_answers_again_after_it_was_rejected_stays_rejected(
    floor: SmallFloor, delivery: Delivery
) -> None:
    """Silent once, known by its face; later it answers. Its order has one body, rejected."""
    chip = [c for c in good_chips(floor, delivery) if c.plastic.face_number][-4]
    atr, chip.card.atr = chip.card.atr, b""
    first = asyncio.run(Station(floor).run(chip))
    chip.card.atr = atr
    second = asyncio.run(Station(floor).run(chip))
    assert (first.stack, second.stack) == ("rejected", "rejected")
    assert chip.writes == 0


def test_two_presentations_of_one_chip_in_one_chunk_take_turns(
    floor: SmallFloor, delivery: Delivery
) -> None:
    """Whatever stations send, one command changes a body once: the second waits."""
    chip = good_chips(floor, delivery)[-5]
    line, carton = floor.replacement, chip.plastic.carton_id
    atr = chip.card.power_on()

    async def run() -> list[str]:
        def turn(presentation: str, number: int, content: object) -> StationTurn:
            return StationTurn(
                "station-1", "R0", presentation, number, Line.KEY_REPLACEMENT, content  # type: ignore[arg-type]
            )  # fmt: skip

        opening = Opening(atr, carton, chip.plastic.face_number)
        opened = await line.turns([turn("first", 0, opening), turn("second", 0, opening)])
        answers = Station(floor).execute(chip, opened[0].content)  # type: ignore[arg-type]
        replies = await line.turns([turn("first", 1, answers), turn("second", 1, answers)])
        return [type(r.content).__name__ for r in replies]

    assert asyncio.run(run()) == ["Segment", "Wait"]


def test_the_chip_of_one_card_on_the_plastic_of_another_is_rejected(
    floor: SmallFloor, delivery: Delivery
) -> None:
    """A copied chip: its identity is another order's than its face. The order of the face gets
    its rejected card, and the order of the chip still gets its own."""
    genuine, copied = good_chips(floor, delivery)[-7:-5]
    original = copied.plastic.memory
    copied.plastic.memory.social.records = {
        f: dict(r) for f, r in genuine.plastic.memory.social.records.items()
    }
    found = asyncio.run(Station(floor).run(copied))
    assert (found.stack, found.code) == ("rejected", "FACE_DIFFERS")
    assert copied.writes == 0
    assert original is copied.plastic.memory
    assert asyncio.run(Station(floor).run(genuine)).stack == "good"


def test_a_challenge_of_another_length_is_no_reason_to_wait_for_ever(
    floor: SmallFloor, delivery: Delivery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chip that answers GET CHALLENGE with 4 bytes cannot be worked on: it is set apart."""
    chip = good_chips(floor, delivery)[-20]
    process = chip.card.process

    def short_challenge(apdu: bytes) -> bytes:
        return process(apdu)[4:] if apdu[1] == 0x84 else process(apdu)

    monkeypatch.setattr(chip.card, "process", short_challenge)
    found = asyncio.run(Station(floor).run(chip))
    assert (found.stack, found.code) == ("rejected", "CHIP_UNREADABLE")


def test_a_wrong_length_at_inspection_is_rejected_too(
    floor: SmallFloor, delivery: Delivery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keyed in order, and then GET CHALLENGE answers 4 bytes: rejected, not waited for."""
    chip = good_chips(floor, delivery)[-21]
    process = chip.card.process

    async def run() -> Verdict | None:
        await Station(floor).present(chip, Line.KEY_REPLACEMENT)
        monkeypatch.setattr(
            chip.card, "process", lambda a: process(a)[4:] if a[1] == 0x84 else process(a)
        )
        return await Station(floor).present(chip, Line.INSPECTION)

    assert asyncio.run(run()) == Verdict("", "rejected", "KEY_NOT_PROVEN")


def test_a_repeated_turn_gets_the_same_answer(floor: SmallFloor, delivery: Delivery) -> None:
    """A station that lost an answer asks again: no second commit, no other bytes."""
    chip = good_chips(floor, delivery)[-3]
    turn = StationTurn(
        "station-1", "R0", "repeated", 0, Line.KEY_REPLACEMENT,
        Opening(chip.card.power_on(), chip.plastic.carton_id, ""),
    )  # fmt: skip
    station = Station(floor)

    async def run() -> None:
        line = floor.replacement
        opened = (await line.turns([turn]))[0]
        assert (await line.turns([turn]))[0] == opened
        answers = station.execute(chip, opened.content)  # type: ignore[arg-type]
        second = StationTurn("station-1", "R0", "repeated", 1, Line.KEY_REPLACEMENT, answers)
        third = (await line.turns([second]))[0]
        assert (await line.turns([second]))[0] == third

    asyncio.run(run())
