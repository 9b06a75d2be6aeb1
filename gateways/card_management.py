"""The door of card management (卡管系统): the factory return (制卡回盘, article 11(10)), its
corrections, and orders that are cancelled or held before their cards are packed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import structlog
from google.protobuf.message import DecodeError
from structlog.contextvars import bind_contextvars

from domain import lines
from domain.codes import Code
from domain.factory_return import FactoryRecord, is_id
from domain.lines import OrderAct, Receipt
from gateways.answers import abort, answering, receipt_to_wire, refusal
from gateways.factory_returns import FramedReturn, Unread, take_return
from gateways.floor import Floor
from gateways.framing import Framed, FrameRefused, Part, read_frame
from stubs import common_pb2
from stubs.card_management_pb2 import FactoryReturnPart, FactoryReturnRecord, OrdersCommand
from stubs.card_management_pb2_grpc import CardManagementServicer

log = structlog.get_logger()

ORDERS_IN_COMMAND = 1_000


def record_from_wire(raw: bytes) -> FactoryRecord | None:
    """A record of a file; None if the bytes are no `FactoryReturnRecord`."""
    try:
        r = FactoryReturnRecord.FromString(raw)
    except DecodeError:
        return None
    return FactoryRecord(
        order_id=r.order_id,
        bank_code=r.bank_code,
        branch_code=r.branch_code,
        carton_id=r.carton_id,
        identification_code=r.identification_code,
        social_card_number=r.social_card_number,
        bank_card_number=r.bank_card_number,
        identity_number=r.identity_number,
        name=r.name,
        sex=r.sex,
        nation=r.nation,
        birth_place=r.birth_place,
        birth_date=r.birth_date,
        has_temporary_card=r.has_temporary_card,
    )


def command_fault(command: OrdersCommand) -> Receipt | None:
    """Why a command is refused as a whole; None: it is good. An order id that is none of ours is
    refused by its place later."""
    if not is_id(command.command_id):
        code = Code.BAD_FORMAT if command.command_id else Code.FIELD_MISSING
        return refusal(code, "command_id")
    if not command.order_ids:
        return refusal(Code.FIELD_MISSING, "order_ids")
    if len(command.order_ids) > ORDERS_IN_COMMAND:
        return refusal(Code.FILE_TOO_LARGE, "order_ids")
    return None


class CardManagementDoor(CardManagementServicer):
    """Each file is taken once, whole; its faulty records are refused one by one."""

    def __init__(self, floor: Floor) -> None:
        self._floor = floor
        self._files = 0

    @answering
    async def SubmitFactoryReturn(
        self, request_iterator: Any, context: grpc.aio.ServicerContext[Any, Any]
    ) -> common_pb2.Receipt:
        limits = self._floor.limits
        if self._files >= limits.files_at_once:
            await abort(context, Code.BUSY)
        self._files += 1
        try:
            async with asyncio.timeout(limits.file_seconds):
                file = await read_frame(_parts(request_iterator), limits)
            bind_contextvars(file_id=file.file_id, batch_id=file.batch_id)
            receipt = await take_return(
                self._floor,
                FramedReturn(
                    file.file_id, file.batch_id, file.digest, _records(file), file.corrects
                ),
            )
            log.info(
                "factory_return.answered",
                code=receipt.code,
                records=receipt.records,
                taken=receipt.taken,
                refused=len(receipt.refused),
                repeated=receipt.repeated,
            )
        except FrameRefused as e:
            log.warning("factory_return.refused", code=e.code)
            receipt = refusal(e.code, e.detail)
        except TimeoutError:
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "the file came too slowly")
            raise AssertionError("abort raises") from None
        finally:
            self._files -= 1
        return receipt_to_wire(receipt)

    @answering
    async def CancelOrders(
        self, request: OrdersCommand, context: grpc.aio.ServicerContext[Any, Any]
    ) -> common_pb2.Receipt:
        return await self._command(OrderAct.CANCEL, request)

    @answering
    async def HoldOrders(
        self, request: OrdersCommand, context: grpc.aio.ServicerContext[Any, Any]
    ) -> common_pb2.Receipt:
        return await self._command(OrderAct.HOLD, request)

    @answering
    async def ReleaseOrders(
        self, request: OrdersCommand, context: grpc.aio.ServicerContext[Any, Any]
    ) -> common_pb2.Receipt:
        return await self._command(OrderAct.RELEASE, request)

    async def _command(self, act: OrderAct, request: OrdersCommand) -> common_pb2.Receipt:
        receipt = command_fault(request)
        if receipt is None:
            command = lines.OrdersCommand(request.command_id, act, tuple(request.order_ids))
            receipt = await self._floor.sorting.command_orders(command)
        log.info(
            "orders.answered",
            act=act,
            code=receipt.code,
            orders=receipt.records,
            taken=receipt.taken,
            repeated=receipt.repeated,
        )
        return receipt_to_wire(receipt)


def _records(file: Framed) -> Iterator[FactoryRecord | Unread]:
    for raw in file.records:
        yield record_from_wire(raw) or Unread()


async def _parts(
    stream: AsyncIterator[FactoryReturnPart],
) -> AsyncIterator[tuple[str | None, Part]]:
    async for part in stream:
        yield part.WhichOneof("part"), part
