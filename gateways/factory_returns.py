"""Taking a factory return (制卡回盘) whose frame is in order, by whichever door it came: each
record is checked, the good ones are sealed, and inventory takes the whole in one commit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from domain.codes import Code
from domain.factory_return import (
    INDEXED,
    FactoryRecord,
    RecordChecker,
    index_text,
    plaintext,
    refuse,
)
from domain.lines import FactoryReturn, Receipt, RefusedRecord, SealedRecord
from gateways import portions
from gateways.answers import refusal
from gateways.floor import Floor
from ledger.keeping import destroyed_batches

CHECKED_AT_ONCE = 1_000
"""Records that are checked before the event loop has its turn."""


@dataclass(frozen=True, repr=False)
class Unread:
    """A record that could not be read: at which field ("" for the whole), why, and what else of
    it could be."""

    field: str = ""
    code: Code = Code.BAD_FORMAT
    rest: FactoryRecord | None = None


@dataclass(frozen=True, repr=False)
class FramedReturn:
    """A factory return whose count and digest are right. `digest` in hex; `records` in their
    order, read when they are asked for; `corrects`: of a correction, the return's id."""

    file_id: str
    batch_id: str
    digest: str
    records: Iterable[FactoryRecord | Unread]
    corrects: str = ""


Good = list[tuple[int, FactoryRecord]]
"""Good records with their places in the file."""


async def take_return(floor: Floor, file: FramedReturn) -> Receipt:
    """Take it once; again, it is answered with the first receipt. Raises what lines and provider
    raise: nothing took effect then, or all did, and the same file may be given again."""
    known = floor.queries.file_in(file.file_id)
    if known is not None and known["batch_id"] != file.batch_id:
        return refusal(Code.ID_REUSED, "file_id")
    if known is not None or destroyed_batches(floor.queries, [file.batch_id]):
        # The line answers with the first receipt, or refuses other content and destroyed batches:
        # none of it needs the records, and sealing would make a destroyed batch a key again.
        return await _hand_over(floor, file, (), ())
    good, refused = await _check(floor, file.records)
    return await _hand_over(floor, file, await _seal(floor, file.batch_id, good), refused)


async def _check(
    floor: Floor, records: Iterable[FactoryRecord | Unread]
) -> tuple[Good, list[RefusedRecord]]:
    checker = RecordChecker(floor.profile)
    good: Good = []
    refused: list[RefusedRecord] = []
    for number, record in enumerate(records, start=1):
        if isinstance(record, Unread):
            refused.append(refuse(number, record.field, record.code, record.rest))
        elif fault := checker.check(number, record):
            refused.append(fault)
        else:
            good.append((number, record))
        if number % CHECKED_AT_ONCE == 0:
            await asyncio.sleep(0)
    return good, refused


async def _seal(floor: Floor, batch_id: str, good: Good) -> list[SealedRecord]:
    provider = floor.provider
    records = [r for _, r in good]
    sealed = await portions.seal(provider, batch_id, ((r.order_id, plaintext(r)) for r in records))
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
    floor: Floor,
    file: FramedReturn,
    records: Sequence[SealedRecord],
    refused: Sequence[RefusedRecord],
) -> Receipt:
    days = floor.limits.personal_data_days
    inventory = floor.inventory
    accept = inventory.accept_correction if file.corrects else inventory.accept_return
    return await accept(
        FactoryReturn(
            file_id=file.file_id,
            batch_id=file.batch_id,
            digest=file.digest,
            records=tuple(records),
            refused=tuple(refused),
            expires_on=(floor.today() + timedelta(days=days)).isoformat(),
            corrects=file.corrects,
        )
    )
