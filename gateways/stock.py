"""What the door of the people of the floor does for a stock-take: numbers become orders here, all
in one call; the line sees no number."""

from __future__ import annotations

from domain.codes import Code
from domain.factory_return import is_id
from domain.lines import Receipt, StockCount
from domain.places import STOCKED, owner
from gateways.answers import refusal
from gateways.floor import Floor
from gateways.scans import orders_of_scans
from stubs.operator_pb2 import CountStockRequest

MOST_SCANS = 5_000
"""Of one count. More are refused (FILE_TOO_LARGE): count carton by carton."""


async def count_stock(floor: Floor, request: CountStockRequest) -> Receipt:
    if request.place not in STOCKED:
        return refusal(Code.PLACE_UNKNOWN, ", ".join(sorted(STOCKED)))
    if not is_id(request.command_id) or (request.carton_id and not is_id(request.carton_id)):
        return refusal(Code.BAD_FORMAT, "command_id, carton_id")
    numbers = list(request.social_card_numbers)
    if max(len(numbers), request.counted_without_number) > MOST_SCANS:
        return refusal(Code.FILE_TOO_LARGE, "social_card_numbers")
    orders = await orders_of_scans(floor, numbers)
    command = StockCount(
        request.command_id, request.place, request.carton_id, orders,
        request.counted_without_number,
    )  # fmt: skip
    return await floor.counted[owner(request.place)].count_stock(command)
