"""The door of the card factory (卡厂): its delivery note."""

from __future__ import annotations

import hashlib
from typing import Any

import grpc
import structlog
from structlog.contextvars import bind_contextvars

from domain.codes import Code
from domain.factory_return import is_id
from domain.lines import Note, NoteCarton, Receipt, RefusedRecord
from domain.places import Kind
from domain.registers import load_banks, load_divisions
from domain.words import WORDS
from gateways.answers import answering, receipt_to_wire, refusal
from gateways.floor import Floor
from stubs import common_pb2
from stubs.factory_pb2 import CartonLine, DeliveryNote
from stubs.factory_pb2_grpc import FactoryServicer

log = structlog.get_logger()

MAX_CARDS_IN_CARTON = 10_000


def window(division: str) -> str:
    """The destination of temporary cards: a division's service window (article 31)."""
    return f"window-{division}"


def _carton_fault(carton: CartonLine) -> tuple[str, Code] | None:
    """The field at fault and what is wrong with it."""
    if not is_id(carton.carton_id):
        return "carton_id", Code.BAD_FORMAT if carton.carton_id else Code.FIELD_MISSING
    if carton.bank_code not in load_banks():
        return "bank_code", Code.UNKNOWN_BANK
    if carton.kind not in list(Kind):
        return "kind", Code.BAD_FORMAT
    if not 1 <= carton.count <= MAX_CARDS_IN_CARTON:
        return "count", Code.BAD_FORMAT
    if carton.kind == Kind.TEMPORARY_CARD:
        if not carton.destination:
            return "destination", Code.FIELD_MISSING
        if carton.destination not in load_divisions():
            return "destination", Code.UNKNOWN_BRANCH
    elif carton.destination:
        # Cards with an order go where the order says.
        return "destination", Code.BAD_FORMAT
    return None


def note_fault(note: DeliveryNote, max_cartons: int) -> Receipt | None:
    """Why a note is refused as a whole, with the carton's place and field; None: it is good."""
    for name in ("delivery_id", "batch_id", "factory_id"):
        value = getattr(note, name)
        if not is_id(value):
            return refusal(Code.BAD_FORMAT if value else Code.FIELD_MISSING, name)
    if not note.cartons:
        return refusal(Code.FIELD_MISSING, "cartons")
    if len(note.cartons) > max_cartons:
        return refusal(Code.FILE_TOO_LARGE, "cartons")
    seen: set[str] = set()
    for place, carton in enumerate(note.cartons, start=1):
        fault = _carton_fault(carton)
        if fault is None and carton.carton_id in seen:
            fault = "carton_id", Code.REPEATED_NUMBER
        if fault is not None:
            return _at_carton(place, *fault, records=len(note.cartons))
        seen.add(carton.carton_id)
    return None


def _at_carton(place: int, field: str, code: Code, *, records: int) -> Receipt:
    reason = f"carton {place}, {field}: {WORDS[code].english}"
    at_fault = RefusedRecord(place, "", field, code, reason)
    return Receipt(False, code, reason, records=records, refused=(at_fault,))


def note_from_wire(note: DeliveryNote) -> Note:
    """A good note. The digest is over its deterministic serialization."""
    return Note(
        delivery_id=note.delivery_id,
        batch_id=note.batch_id,
        factory_id=note.factory_id,
        digest=hashlib.sha256(note.SerializeToString(deterministic=True)).hexdigest(),
        cartons=tuple(
            NoteCarton(
                carton_id=c.carton_id,
                bank_code=c.bank_code,
                kind=c.kind,
                count=c.count,
                destination=window(c.destination) if c.destination else "",
            )
            for c in note.cartons
        ),
    )


class FactoryDoor(FactoryServicer):
    """A note is taken once, whole."""

    def __init__(self, floor: Floor) -> None:
        self._floor = floor

    @answering
    async def SubmitDeliveryNote(
        self, request: DeliveryNote, context: grpc.aio.ServicerContext[Any, Any]
    ) -> common_pb2.Receipt:
        receipt = note_fault(request, self._floor.limits.max_cartons_per_note)
        if receipt is None:
            # A delivery may have thousands of cartons: its id stands for them.
            bind_contextvars(delivery_id=request.delivery_id, batch_id=request.batch_id)
            receipt = await self._floor.inventory.accept_note(note_from_wire(request))
            log.info(
                "delivery_note.answered",
                code=receipt.code,
                cartons=len(request.cartons),
                repeated=receipt.repeated,
            )
        else:
            log.warning("delivery_note.refused", code=receipt.code)
        return receipt_to_wire(receipt)
