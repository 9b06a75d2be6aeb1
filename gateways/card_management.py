"""The door of card management (卡管系统): the factory return (制卡回盘, article 11(10)), and orders
that are cancelled or held before their cards are packed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any

import grpc
import structlog
from google.protobuf.message import DecodeError

from domain import lines
from domain.codes import Code
from domain.factory_return import (
    INDEXED,
    FactoryRecord,
    RecordChecker,
    index_text,
    is_id,
    plaintext,
)
from domain.lines import FactoryReturn, OrderAct, Receipt, RefusedRecord, SealedRecord
from gateways import portions
from gateways.answers import abort, answering, receipt_to_wire, refusal
from gateways.floor import Floor
from gateways.framing import Framed, FrameRefused, Part, read_frame
from stubs import common_pb2
from stubs.card_management_pb2 import FactoryReturnPart, FactoryReturnRecord, OrdersCommand
from stubs.card_management_pb2_grpc import CardManagementServicer

log = structlog.get_logger()

CHECKED_AT_ONCE = 1_000
"""Records that are checked before the event loop has its turn."""

ORDERS_IN_COMMAND = 1_000

Good = list[tuple[int, FactoryRecord]]
"""Good records with their places in the file."""


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
            receipt = await self._take(file)
            log.info(
                "factory_return.answered",
                file_id=file.file_id,
                batch_id=file.batch_id,
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

    async def _take(self, file: Framed) -> Receipt:
        known = self._floor.queries.file_in(file.file_id)
        if known is not None and known["batch_id"] != file.batch_id:
            return refusal(Code.ID_REUSED, "file_id")
        if known is not None:
            # The line answers with the first receipt, or refuses other content: neither needs
            # the records.
            return await self._hand_over(file, (), ())
        good, refused = await self._check(file)
        return await self._hand_over(file, await self._seal(file.batch_id, good), refused)

    async def _check(self, file: Framed) -> tuple[Good, list[RefusedRecord]]:
        checker = RecordChecker(self._floor.profile)
        good: Good = []
        refused: list[RefusedRecord] = []
        for number, raw in enumerate(file.records, start=1):
            record = record_from_wire(raw)
            fault = checker.check(number, record)
            if fault is not None:
                refused.append(fault)
            elif record is not None:
                good.append((number, record))
            if number % CHECKED_AT_ONCE == 0:
                await asyncio.sleep(0)
        return good, refused

    async def _seal(self, batch_id: str, good: Good) -> list[SealedRecord]:
        provider = self._floor.provider
        records = [r for _, r in good]
        sealed = await portions.seal(
            provider, batch_id, ((r.order_id, plaintext(r)) for r in records)
        )
        columns = [
            await portions.index(provider, (index_text(kind, getattr(r, kind)) for r in records))
            for kind in INDEXED
        ]
        return [
            SealedRecord(
                record_number=number,
                order_id=r.order_id,
                bank_code=r.bank_code,
                branch_code=r.branch_code,
                carton_id=r.carton_id,
                identification_code=r.identification_code,
                has_temporary_card=r.has_temporary_card,
                sealed=of_record,
                numbers=tuple(zip(INDEXED, values, strict=True)),
            )
            for (number, r), of_record, *values in zip(good, sealed, *columns, strict=True)
        ]

    async def _hand_over(
        self, file: Framed, records: Sequence[SealedRecord], refused: Sequence[RefusedRecord]
    ) -> Receipt:
        days = self._floor.limits.personal_data_days
        return await self._floor.inventory.accept_return(
            FactoryReturn(
                file_id=file.file_id,
                batch_id=file.batch_id,
                digest=file.digest,
                records=tuple(records),
                refused=tuple(refused),
                expires_on=(self._floor.today() + timedelta(days=days)).isoformat(),
            )
        )


async def _parts(
    stream: AsyncIterator[FactoryReturnPart],
) -> AsyncIterator[tuple[str | None, Part]]:
    async for part in stream:
        yield part.WhichOneof("part"), part
