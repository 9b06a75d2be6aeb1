"""The doors of stock-takes and scraps: numbers become look-up values there, and go no further."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from domain.codes import Code
from domain.custody import Answered, Proposal
from domain.factory_return import FACE, index_text
from domain.lines import Receipt, StockCount
from domain.places import DRAWN, Line, held
from gateways.custody import CustodyDoor
from gateways.stock import MOST_SCANS, count_stock
from stubs import custody_pb2 as pb
from stubs.operator_pb2 import CountStockRequest
from tests.gateways.surroundings import index_of

AT_KEYS = held(Line.KEY_REPLACEMENT)


class Counting:
    def __init__(self) -> None:
        self.asked: list[StockCount] = []

    async def count_stock(self, command: StockCount) -> Receipt:
        self.asked.append(command)
        return Receipt(True, reason="N1")


class Known:
    """The order of one face."""

    def orders_by_number(self, kind: str, values: list[str]) -> Mapping[str, Any]:
        value = index_of(index_text(FACE, "123456789"))
        return {value: SimpleNamespace(order_id="O1")} if value in values else {}


async def index(texts: Any) -> list[str]:
    return [index_of(t) for t in texts]


def test_a_count_reaches_the_owner_of_the_place_as_orders() -> None:
    """The drawn cards are sampling's. In the order of the scans; a number that nobody has is an
    empty order. Places that are not counted, and too many scans, go no further."""
    line = Counting()
    drawn = Counting()
    floor: Any = SimpleNamespace(
        counted={Line.KEY_REPLACEMENT: line, Line.SAMPLING: drawn}, queries=Known(),
        provider=SimpleNamespace(index=index),
    )  # fmt: skip
    ask = CountStockRequest(command_id="c1", place=AT_KEYS)
    ask.social_card_numbers.extend(["no number", "123456789"])
    assert asyncio.run(count_stock(floor, ask)).reason == "N1"
    assert [c.order_ids for c in line.asked] == [("", "O1")]
    ask.place = DRAWN
    assert asyncio.run(count_stock(floor, ask)).accepted
    assert [c.place for c in drawn.asked] == [DRAWN]
    wrong = CountStockRequest(command_id="c2", place="sorting/packed")
    assert asyncio.run(count_stock(floor, wrong)).code == Code.PLACE_UNKNOWN
    ask.social_card_numbers.extend(["1"] * MOST_SCANS)
    assert asyncio.run(count_stock(floor, ask)).code == Code.FILE_TOO_LARGE
    assert len(line.asked) == 1


def test_a_scanned_face_comes_to_the_line_as_its_look_up_value(tmp_path: Path) -> None:
    """What is no number (a ticket, a body id) as it was typed."""
    asked: list[Proposal] = []

    class Line_:
        async def propose(self, token: str, proposal: Proposal) -> Answered:
            asked.append(proposal)
            return Answered(Receipt(True))

    door = CustodyDoor(Line_(), index)  # type: ignore[arg-type]
    for scanned in (_face(), "C1.0001"):
        asyncio.run(door._propose("", pb.Proposal(kind="card.scrap", scanned=scanned)))
    assert [p.card for p in asked] == [index_of(index_text(FACE, _face())), "C1.0001"]
    assert _face() not in repr(asked)


def _face() -> str:
    from domain.numbers import is_social_card_number

    digits = (f"{n:08d}" for n in range(100))
    return next(
        text
        for d in digits
        for text in (d + c for c in "0123456789X")
        if is_social_card_number(text)
    )
