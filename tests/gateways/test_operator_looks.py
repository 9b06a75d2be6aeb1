"""What people ask the doors: the order behind a number, and what the floor does at this moment."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from domain.card.segment import Answers
from domain.changes import Changes, Insert
from domain.codes import Code
from domain.factory_return import index_text
from domain.numbers import is_bank_card_number
from domain.turns import CentreTurn, NoAnswer, Restart, StationTurn, Verdict, Wait
from gateways.board import MOST_READERS, Board
from stubs import station_pb2 as pb
from stubs.common_pb2 import ReaderStatistics
from stubs.operator_pb2 import FindByNumberRequest, FloorState, LookAtFloorRequest
from stubs.operator_pb2_grpc import OperatorStub
from stubs.station_pb2_grpc import StationStub
from tests.gateways.surroundings import good_records, index_of, open_hall

KINDS = ("identity_number", "social_card_number", "bank_card_number")


def test_an_order_is_found_by_each_of_its_numbers(tmp_path: Path) -> None:
    """By identity, social card and bank card number, and by no other order's; a remade card's
    orders are all named. The provider sees the number, the ledger its look-up value only."""
    first, second, third = good_records(3)

    async def run() -> None:
        async with open_hall(tmp_path) as (hall, channel):
            known = [(r.order_id, kind, r) for r in (first, second) for kind in KINDS]
            known.append(("remade", KINDS[0], first))
            rows = [
                {"kind": kind, "value": index_of(index_text(kind, getattr(r, kind))),
                 "order_id": order_id}
                for order_id, kind, r in known
            ]  # fmt: skip
            ledger = hall.place.ledger
            changes = Changes("inventory", "numbers", inserts=[Insert("number_index", rows)])
            ledger.commit(changes, ledger.open_epoch("inventory"))
            ask = OperatorStub(channel).FindByNumber
            for record in (first, second):
                for kind in KINDS:
                    found = await ask(FindByNumberRequest(number=getattr(record, kind)))
                    remade = record is first and kind == KINDS[0]
                    assert found.code == Code.OK
                    assert set(found.order_ids) == {record.order_id, *["remade"] * remade}
            unknown = await ask(FindByNumberRequest(number=third.social_card_number))
            assert (unknown.code, list(unknown.order_ids)) == (Code.OK, [])

    asyncio.run(run())


def test_a_number_with_a_wrong_digit_is_refused_without_being_repeated(tmp_path: Path) -> None:
    """The answer says which check failed; the provider is not asked."""
    (record,) = good_records(1)
    identity, card = record.identity_number, record.bank_card_number
    other = next(
        n
        for n in (identity[:-1] + digit for digit in "0123456789")
        if n != identity and not is_bank_card_number(n)
    )
    wrong = {
        other: "GB 11643",
        card[:-1] + str((int(card[-1]) + 1) % 10): "Luhn",
        identity[:6]: "6",
        "": "0",
    }

    async def run() -> None:
        async with open_hall(tmp_path) as (hall, channel):
            for number, words in wrong.items():
                found = await OperatorStub(channel).FindByNumber(FindByNumberRequest(number=number))
                assert found.code == Code.BAD_FORMAT
                assert words in found.reason
                assert not number or number not in found.reason
            assert hall.provider.calls == []

    asyncio.run(run())


def test_the_floor_is_seen_through_the_doors(tmp_path: Path) -> None:
    """A station that speaks is there, with each reader's stage, carton and cards; what a reader
    says of its machines stands until its next turn, what it has counted is shown; a station whose
    stream ended is away."""

    async def look(channel: grpc.aio.Channel, holds: Callable[[FloorState], bool]) -> FloorState:
        async with asyncio.timeout(10):
            ask = OperatorStub(channel).LookAtFloor
            while not holds(state := await ask(LookAtFloorRequest())):  # noqa: ASYNC110
                await asyncio.sleep(0.005)  # another process's view, as `centre watch` has it
            return state

    async def run() -> None:
        async with open_hall(tmp_path, stages=["inspection"]) as (_, channel):
            call: Any = StationStub(channel).Work()  # type: ignore[call-arg]
            turn = pb.StationTurn(
                station_id="S1", reader="R1", presentation="p", stage="inspection",
                opening=pb.Opening(carton_id="C1"),
            )  # fmt: skip
            empty = pb.ReaderNews(station_id="S1", reader="R2", code=Code.FEEDER_EMPTY)
            counted = ReaderStatistics(
                station_id="S1", reader="R2", cards=7, seconds_p95=1.5, hangs=1
            )
            told = pb.StationTurns(turns=[turn], readers=[empty], statistics=[counted])
            await call.write(told)
            await call.read()
            state = await look(channel, lambda s: len(s.stations) == 1)
            (station,) = state.stations
            one, two = station.readers
            assert (one.stage, one.carton_id, one.code, one.cards) == ("inspection", "C1", "", 1)
            assert (two.code, two.stage) == (Code.FEEDER_EMPTY, "")
            assert two.statistics == counted
            assert [(q.stage, q.turns) for q in state.queues] == [("inspection", 0)]
            await call.write(pb.StationTurns(turns=[_of_reader(turn, "R2", "q")]))
            await call.read()
            await look(channel, lambda s: all(not r.code for r in s.stations[0].readers))
            call.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await call.read()
            await look(channel, lambda s: s.stations[0].seconds_away > 0)

    asyncio.run(run())


def _of_reader(turn: pb.StationTurn, reader: str, presentation: str) -> pb.StationTurn:
    other = pb.StationTurn()
    other.CopyFrom(turn)
    other.reader, other.presentation = reader, presentation
    return other


@pytest.fixture
def clock() -> list[float]:
    return [100.0]


def test_a_reader_waits_since_its_first_answer_of_a_kind(clock: list[float]) -> None:
    """The same code again does not begin anew, another one does; a restart stands until a verdict
    although segments come between; a reader beyond the limit changes nothing."""
    board = Board(lambda: clock[0])
    turn = StationTurn("S", "R", "p", 0, "inspection", NoAnswer("C1", ""))

    def answer(content: Wait | Restart | Verdict) -> tuple[str, float]:
        clock[0] += 1
        board.asked(turn)
        board.answered(turn, CentreTurn("p", 0, "inspection", content))
        seen = board.stations["S"].readers["R"]
        return seen.code, seen.since

    assert answer(Wait(300, Code.KEY_UNKNOWN)) == (Code.KEY_UNKNOWN, 101.0)
    assert answer(Wait(300, Code.KEY_UNKNOWN)) == (Code.KEY_UNKNOWN, 101.0)
    assert answer(Wait(300, Code.UNAVAILABLE)) == (Code.UNAVAILABLE, 103.0)
    assert answer(Restart(Code.SESSION_UNKNOWN)) == (Code.SESSION_UNKNOWN, 104.0)
    assert answer(Restart(Code.SESSION_UNKNOWN)) == (Code.SESSION_UNKNOWN, 104.0)
    assert answer(Verdict("inspection", "", "OK"))[0] == ""
    assert board.stations["S"].readers["R"].cards == 0
    for number in range(2 * MOST_READERS):
        board.news("S", f"R{number}", Code.FEEDER_EMPTY)
    assert len(board.stations["S"].readers) == MOST_READERS


def test_what_a_machine_does_outlasts_the_answer_to_a_turn_before_it(clock: list[float]) -> None:
    """A reader hangs: its turn that broke off and the news come together, and the answer to the
    turn comes later. The reader stays in quarantine until its next turn."""
    board = Board(lambda: clock[0])
    turn = StationTurn("S", "R", "p", 1, "inspection", Answers((), "unknown"))
    board.asked(turn)
    board.news("S", "R", Code.READER_QUARANTINED)
    board.answered(turn, CentreTurn("p", 1, "inspection", Restart(Code.OK)))
    assert board.stations["S"].readers["R"].code == Code.READER_QUARANTINED
    board.asked(turn)
    assert board.stations["S"].readers["R"].code == ""


def test_what_left_the_outbox_is_not_waited_for(clock: list[float]) -> None:
    """A row waits since its first failed try, under its last reason, until it is acknowledged."""
    board = Board(lambda: clock[0])
    board.not_left("F1", "UNAVAILABLE")
    clock[0] += 5
    board.not_left("F1", "DIGEST_DIFFERS")
    assert (board.outbox["F1"].code, board.outbox["F1"].since) == ("DIGEST_DIFFERS", 100.0)
    board.open_in_outbox([])
    assert board.outbox == {}
