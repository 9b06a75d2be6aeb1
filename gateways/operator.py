"""The door of the people of the floor: what the `centre` command asks for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import grpc
import structlog
from structlog.contextvars import bind_contextvars

from domain.codes import Code
from domain.factory_return import index_text, is_id
from domain.lines import BackupMade, Receipt, SignFor
from domain.numbers import kinds_of_number
from gateways.answers import answering, receipt_to_wire, refusal
from gateways.board import Board
from gateways.factory import MAX_CARDS_IN_CARTON
from gateways.floor import Floor
from gateways.packages import close_package, is_package_id, open_packages
from gateways.stock import count_stock
from stubs import common_pb2
from stubs.operator_pb2 import (
    BackupToRecord,
    BackupToRemove,
    CartonCount,
    ClosePackageRequest,
    CountStockRequest,
    FindByNumberRequest,
    FloorState,
    FoundOrders,
    LookAtFloorRequest,
    OpenPackages,
    OpenPackagesRequest,
    OutboxState,
    QueueState,
    ReaderState,
    SignForDeliveryRequest,
    StationState,
)
from stubs.operator_pb2_grpc import OperatorServicer

log = structlog.get_logger()


def sign_for_from_wire(request: SignForDeliveryRequest) -> SignFor | Receipt:
    """The command, or why it is refused. Whether the cartons are the note's, the line knows."""
    if not is_id(request.delivery_id):
        code = Code.BAD_FORMAT if request.delivery_id else Code.FIELD_MISSING
        return refusal(code, "delivery_id")
    counts: dict[str, int] = {}
    for place, line in enumerate(request.counts, start=1):
        if not is_id(line.carton_id):
            return refusal(Code.BAD_FORMAT, f"count {place}, carton_id")
        if line.carton_id in counts:
            return refusal(Code.REPEATED_NUMBER, f"count {place}, carton_id")
        if line.counted > MAX_CARDS_IN_CARTON:
            return refusal(Code.BAD_FORMAT, f"count {place}, counted")
        counts[line.carton_id] = line.counted
    return SignFor(request.delivery_id, counts)


class OperatorDoor(OperatorServicer):
    def __init__(self, floor: Floor, queues: Callable[[], Mapping[str, int]]) -> None:
        """`queues`: turns that wait, by stage."""
        self._floor = floor
        self._queues = queues

    @answering
    async def SignForDelivery(
        self, request: SignForDeliveryRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> common_pb2.Receipt:
        command = sign_for_from_wire(request)
        if isinstance(command, Receipt):
            return receipt_to_wire(command)
        delivery = self._floor.queries.delivery(command.delivery_id) or {"batch_id": ""}
        bind_contextvars(delivery_id=command.delivery_id, batch_id=delivery["batch_id"])
        receipt = await self._floor.inventory.sign_for(command)
        log.info(
            "delivery.signed_for",
            code=receipt.code,
            cartons=len(command.counts),
            repeated=receipt.repeated,
        )
        return receipt_to_wire(receipt)

    @answering
    async def RecountCarton(
        self, request: CartonCount, context: grpc.aio.ServicerContext[Any, Any]
    ) -> common_pb2.Receipt:
        if not is_id(request.carton_id) or request.counted > MAX_CARDS_IN_CARTON:
            field = "counted" if is_id(request.carton_id) else "carton_id"
            return receipt_to_wire(refusal(Code.BAD_FORMAT, field))
        receipt = await self._floor.inventory.recount(request.carton_id, request.counted)
        log.info(
            "carton.recounted",
            carton_id=request.carton_id,
            code=receipt.code,
            repeated=receipt.repeated,
        )
        return receipt_to_wire(receipt)

    @answering
    async def FindByNumber(
        self, request: FindByNumberRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> FoundOrders:
        # Nothing is logged here but the code: not even that a number of this kind was asked for.
        kinds, fault = kinds_of_number(request.number)
        if not kinds:
            return FoundOrders(code=Code.BAD_FORMAT, reason=fault)
        values = await self._floor.provider.index(
            [index_text(kind, request.number) for kind in sorted(kinds)]
        )
        return FoundOrders(
            code=Code.OK, reason=fault, order_ids=self._floor.queries.orders_of_numbers(values)
        )

    @answering
    async def ListOpenPackages(
        self, request: OpenPackagesRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> OpenPackages:
        return open_packages(self._floor.queries, request.package_id)

    @answering
    async def ClosePackage(
        self, request: ClosePackageRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> common_pb2.Receipt:
        if is_package_id(request.package_id):
            bind_contextvars(package_id=request.package_id)
        receipt = await close_package(self._floor, request)
        differs = Counter(r.code for r in receipt.refused)
        level = log.info if receipt.accepted else log.warning
        level(
            "package.counted",
            code=receipt.code,
            cards=receipt.records,
            repeated=receipt.repeated,
            differs=dict(differs),
        )
        return receipt_to_wire(receipt)

    @answering
    async def CountStock(
        self, request: CountStockRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> common_pb2.Receipt:
        receipt = await count_stock(self._floor, request)
        differs = Counter(r.code for r in receipt.refused)
        log.info("stock.counted", code=receipt.code, cards=receipt.records, differs=dict(differs))
        return receipt_to_wire(receipt)

    async def RecordBackup(
        self, request: BackupToRecord, context: grpc.aio.ServicerContext[Any, Any]
    ) -> common_pb2.Receipt:
        made = BackupMade(
            request.backup_id, request.place, tuple(request.holds), request.expires_on
        )
        return receipt_to_wire(await self._floor.inventory.record_backup(made))

    @answering
    async def RemoveBackup(
        self, request: BackupToRemove, context: grpc.aio.ServicerContext[Any, Any]
    ) -> common_pb2.Receipt:
        return receipt_to_wire(await self._floor.inventory.remove_backup(request.backup_id))

    @answering
    async def LookAtFloor(
        self, request: LookAtFloorRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> FloorState:
        limit = self._floor.limits.turns_in_queue
        board = self._floor.board
        return FloorState(
            stations=_stations(board),
            queues=[
                QueueState(stage=stage, turns=turns, limit=limit)
                for stage, turns in self._queues().items()
            ],
            outbox=[
                OutboxState(id=k, code=v.code, seconds_waiting=board.clock() - v.since)
                for k, v in board.outbox.items()
            ],
        )


def _stations(board: Board) -> list[StationState]:
    now = board.clock()
    return [
        StationState(
            station_id=station.station_id,
            seconds_away=0.0 if station.streams else max(now - station.left_at, 0.001),
            readers=[
                ReaderState(
                    reader=r.reader,
                    stage=r.stage,
                    carton_id=r.carton_id,
                    seconds_since_turn=now - r.turn_at,
                    code=r.code,
                    seconds_waiting=now - r.since if r.code else 0.0,
                    cards=r.cards,
                    statistics=r.statistics,
                )
                for r in station.readers.values()
            ],
        )
        for station in board.stations.values()
    ]
