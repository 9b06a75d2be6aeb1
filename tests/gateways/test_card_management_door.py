"""The factory return at a real door: a fault of the frame refuses the whole before anything takes
effect, a fault of a record refuses that record, and the same file takes effect once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from counterparts import files
from counterparts.submission import Tampering, submit_factory_return
from domain.changes import Away
from domain.codes import Code
from gateways.floor import Limits
from gateways.portions import LARGEST_PORTION
from stubs.card_management_pb2 import (
    FactoryReturnPart,
    FactoryReturnRecord,
    FileHeader,
    FileTrailer,
    OrdersCommand,
    RecordChunk,
)
from stubs.card_management_pb2_grpc import CardManagementStub
from stubs.common_pb2 import Receipt
from tests.gateways.surroundings import BATCH, good_records, index_of, open_hall

Parts = list[FactoryReturnPart]


def serialized(records: list[FactoryReturnRecord]) -> list[bytes]:
    return [r.SerializeToString(deterministic=True) for r in records]


def file_of(
    records: list[bytes],
    *,
    file_id: str = "F1",
    batch_id: str = BATCH,
    corrects: str = "",
    chunk: int = 100,
) -> Parts:
    """A file as the contract says."""
    header = FileHeader(file_id=file_id, batch_id=batch_id, corrects=corrects)
    return [
        FactoryReturnPart(header=header),
        *(
            FactoryReturnPart(chunk=RecordChunk(records=records[at : at + chunk]))
            for at in range(0, len(records), chunk)
        ),
        FactoryReturnPart(trailer=FileTrailer(count=len(records), digest=files.digest(records))),
    ]


async def send(channel: grpc.aio.Channel, parts: Parts) -> Receipt:
    async def stream() -> AsyncIterator[FactoryReturnPart]:
        for part in parts:
            yield part

    return await CardManagementStub(channel).SubmitFactoryReturn(stream(), timeout=20)


def pause_of(error: grpc.aio.AioRpcError) -> str:
    """Milliseconds that the door asks the sender to wait."""
    metadata: Any = error.trailing_metadata()
    return str(dict(metadata)["grpc-retry-pushback-ms"])


RECORDS = serialized(good_records(30))
WHOLE = file_of(RECORDS)
HEADER, CHUNK, TRAILER = WHOLE


def trailer(count: int, digest: bytes) -> FactoryReturnPart:
    return FactoryReturnPart(trailer=FileTrailer(count=count, digest=digest))


FRAME_FAULTS: list[tuple[str, Parts, Code]] = [
    ("nothing at all", [], Code.TRAILER_MISSING),
    ("no header", [CHUNK, TRAILER], Code.MALFORMED),
    ("two headers", [HEADER, *WHOLE], Code.MALFORMED),
    ("an empty part", [HEADER, FactoryReturnPart(), CHUNK, TRAILER], Code.MALFORMED),
    ("an empty chunk", [HEADER, FactoryReturnPart(chunk=RecordChunk()), TRAILER], Code.MALFORMED),
    ("a path as file id", file_of(RECORDS, file_id="../F1"), Code.MALFORMED),
    ("a path as what it corrects", file_of(RECORDS, corrects="../F0"), Code.MALFORMED),
    ("no batch id", file_of(RECORDS, batch_id=""), Code.MALFORMED),
    ("a chunk after the trailer", [*WHOLE, CHUNK], Code.MALFORMED),
    ("a chunk too large", file_of(RECORDS * 2, chunk=60), Code.MALFORMED),
    ("no records", file_of([]), Code.MALFORMED),
    ("no trailer", [HEADER, CHUNK], Code.TRAILER_MISSING),
    ("a chunk lost", [*file_of(RECORDS, chunk=10)[:2], TRAILER], Code.COUNT_DIFFERS),
    ("a wrong count", [HEADER, CHUNK, trailer(29, files.digest(RECORDS))], Code.COUNT_DIFFERS),
    ("a wrong digest", [HEADER, CHUNK, trailer(30, bytes(32))], Code.DIGEST_DIFFERS),
    ("other order", [HEADER, CHUNK, trailer(30, files.digest(RECORDS[::-1]))],
     Code.DIGEST_DIFFERS),
    ("too many records", file_of(RECORDS * 4, chunk=50), Code.FILE_TOO_LARGE),
]  # fmt: skip


def test_a_fault_of_the_frame_refuses_the_whole(tmp_path: Path) -> None:
    """Each with its code and what to do next; provider and line hear nothing of it."""

    async def run() -> None:
        limits = Limits(max_records_per_file=100, records_per_chunk=50)
        async with open_hall(tmp_path, limits=limits) as (hall, channel):
            for name, parts, code in FRAME_FAULTS:
                receipt = await send(channel, parts)
                assert (receipt.accepted, receipt.code) == (False, code), name
                assert receipt.next_step
            assert (hall.inventory.returns, hall.provider.calls) == ([], [])
            assert (await send(channel, WHOLE)).taken == 30

    asyncio.run(run())


def test_a_faulty_record_is_refused_by_itself(tmp_path: Path) -> None:
    """Place, field and code of each in the receipt; the good rest goes on, and the line is told
    what could be read of the bodies that will come without a record."""

    async def run() -> None:
        records = good_records(12)
        records[2].bank_code = "999"
        records[4].identity_number = records[4].identity_number[:-1] + "?"
        records[6].identity_number = records[0].identity_number
        records[8].name = ""
        raw = serialized(records)
        raw[10] = b"\xff\xff no record"
        async with open_hall(tmp_path) as (hall, channel):
            receipt = await send(channel, file_of(raw))
            (taken,) = hall.inventory.returns
        assert (receipt.accepted, receipt.records, receipt.taken) == (True, 12, 7)
        assert [(r.record_number, r.order_id, r.field, r.code) for r in receipt.refused] == [
            (3, records[2].order_id, "bank_code", Code.UNKNOWN_BANK),
            (5, records[4].order_id, "identity_number", Code.BAD_FORMAT),
            (7, records[6].order_id, "identity_number", Code.REPEATED_NUMBER),
            (9, records[8].order_id, "name", Code.FIELD_MISSING),
            (11, "", "", Code.BAD_FORMAT),
        ]
        bad = taken.refused[0]
        assert (bad.bank_code, bad.carton_id, bad.identification_code) == (
            "999", records[2].carton_id, records[2].identification_code,
        )  # fmt: skip

    asyncio.run(run())


def test_what_the_line_gets_is_sealed_and_indexed(tmp_path: Path) -> None:
    """Each sealed record is its own order's, each index value of its own kind, and no call to
    the provider carries more than one portion."""

    async def run() -> None:
        records = good_records(900)
        async with open_hall(tmp_path) as (hall, channel):
            await send(channel, file_of(serialized(records), chunk=500))
            (taken,) = hall.inventory.returns
        assert hall.provider.calls.count("seal") > 2
        assert 0 < hall.provider.largest_call <= LARGEST_PORTION
        assert len(taken.records) == 900
        for number, (record, sealed) in enumerate(zip(records, taken.records, strict=True), 1):
            head, order_id, plain = sealed.sealed.split(b"|", 2)
            assert (head.decode(), order_id.decode()) == (BATCH, record.order_id)
            assert sealed.record_number == number
            opened: dict[str, Any] = json.loads(plain)
            assert opened == {name: getattr(record, name) for name in opened}
            assert len(opened) == 8
            assert dict(sealed.numbers) == {
                kind: index_of(f"{kind}:{getattr(record, kind)}")
                for kind in ("social_card_number", "bank_card_number", "identity_number")
            }

    asyncio.run(run())


def test_a_file_takes_effect_once_in_the_ledger(tmp_path: Path) -> None:
    """With the real line: rows and receipt agree; the same file again gets the first receipt
    without sealing anything; other content, or another batch, under the id is refused."""

    async def run() -> None:
        records = good_records(20)
        records[5].bank_code = "999"
        raw = serialized(records)
        async with open_hall(tmp_path, real_inventory=True) as (hall, channel):
            first = await send(channel, file_of(raw))
            calls = len(hall.provider.calls)
            again = await send(channel, file_of(raw))
            assert len(hall.provider.calls) == calls
            other = await send(channel, file_of(raw[:-1]))
            moved = await send(channel, file_of(raw, batch_id="B2"))
            second = await send(channel, file_of(raw, file_id="F2"))
            q = hall.place.queries
            orders = q.rows("select order_id from orders order by order_id")
            refused = q.rows("select record_number, bank, code from refused_record")
            sealed = q.rows("select count(*) as n from personal")
            found = q.orders_by_number(
                "social_card_number",
                [index_of(f"social_card_number:{records[0].social_card_number}")],
            )
        assert (first.accepted, first.records, first.taken, first.repeated) == (True, 20, 19, False)
        expected = Receipt()
        expected.CopyFrom(first)
        expected.repeated = True
        assert again == expected
        assert (other.accepted, other.code) == (False, Code.ID_REUSED)
        assert (moved.accepted, moved.code) == (False, Code.ID_REUSED)
        assert (second.accepted, second.code) == (False, Code.BATCH_TAKEN)
        assert [r["order_id"] for r in orders] == sorted(
            r.order_id for n, r in enumerate(records) if n != 5
        )
        assert refused == [{"record_number": 6, "bank": "999", "code": "UNKNOWN_BANK"}]
        assert sealed == [{"n": 19}]
        assert [i.order_id for i in found.values()] == [records[0].order_id]

    asyncio.run(run())


def test_when_the_centre_is_away_the_sender_comes_again(tmp_path: Path) -> None:
    """UNAVAILABLE with a pause, whether the line or the provider is away; the next try takes."""

    async def run() -> None:
        async with open_hall(tmp_path) as (hall, channel):
            hall.inventory.fault = Away("inventory loads")
            with pytest.raises(grpc.aio.AioRpcError) as first:
                await send(channel, WHOLE)
            hall.inventory.fault = None
            hall.provider.fault = Away("provider restarts")
            with pytest.raises(grpc.aio.AioRpcError) as second:
                await send(channel, WHOLE)
            hall.provider.fault = None
            assert (await send(channel, WHOLE)).accepted
        for away in (first, second):
            assert away.value.code() is grpc.StatusCode.UNAVAILABLE
            assert pause_of(away.value) == "500"

    asyncio.run(run())


def test_the_text_of_an_error_stays_inside(tmp_path: Path) -> None:
    """An unforeseen error may quote what was sent: the sender sees its status only."""

    async def run() -> None:
        async with open_hall(tmp_path) as (hall, channel):
            hall.provider.fault = ValueError("张三 430102199001011234")
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await send(channel, WHOLE)
        assert failed.value.code() is grpc.StatusCode.INTERNAL
        assert "张三" not in str(failed.value.details())

    asyncio.run(run())


def test_a_full_hall_says_so(tmp_path: Path) -> None:
    """One file too many at a time is told RESOURCE_EXHAUSTED, and taken once there is room."""

    async def run() -> None:
        async with open_hall(tmp_path, limits=Limits(files_at_once=1)) as (hall, channel):
            hall.inventory.gate.clear()
            first = asyncio.create_task(send(channel, WHOLE))
            await hall.inventory.entered.wait()
            second = file_of(RECORDS, file_id="F2")
            code = grpc.StatusCode.INTERNAL
            while code is grpc.StatusCode.INTERNAL:
                # So grpc.aio calls an answer that comes while it still writes the request.
                with pytest.raises(grpc.aio.AioRpcError) as full:
                    await send(channel, second)
                code = full.value.code()
            hall.inventory.gate.set()
            assert (await first).accepted
            assert (await send(channel, second)).accepted
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert pause_of(full.value) == "500"

    asyncio.run(run())


def test_the_stand_in_of_card_management_is_understood(tmp_path: Path) -> None:
    """Its blocking client, from outside: a good file is taken, a spoilt one refused, and one that
    is refused before its end gets its receipt all the same."""
    path = tmp_path / "factory_return.jsonl"
    files.write_lines(path, (files.factory_row(r) for r in good_records(300)))

    async def run() -> None:
        async with open_hall(tmp_path, limits=Limits(max_records_per_file=300)) as (hall, _):

            async def submit(chunk: int, tampering: Tampering | None = None) -> Receipt:
                return await asyncio.to_thread(
                    submit_factory_return,
                    hall.address, path, "F1", BATCH, chunk=chunk, tampering=tampering,
                )  # fmt: skip

            large = await submit(10, Tampering(alter=lambda records: records * 40))
            cut = await submit(100, Tampering(trailer=False))
            spoilt = await submit(100, Tampering(corrupt=lambda records: records[::-1]))
            assert hall.inventory.returns == []
            good = await submit(100)
        assert (large.accepted, large.code) == (False, Code.FILE_TOO_LARGE)
        assert (cut.code, spoilt.code) == (Code.TRAILER_MISSING, Code.DIGEST_DIFFERS)
        assert (good.accepted, good.taken, good.reason) == (True, 300, "")

    asyncio.run(run())


def test_orders_are_stopped_order_by_order(tmp_path: Path) -> None:
    """A good command reaches sorting, which answers each order by its place; a repeat has the
    same answer. A command without id, without orders or with too many is refused whole."""

    async def run() -> None:
        async with open_hall(tmp_path, real_inventory=True) as (_, channel):
            assert (await send(channel, WHOLE)).accepted
            stub = CardManagementStub(channel)
            first = f"{BATCH}-000001"
            command = OrdersCommand(command_id="K1", order_ids=[first, "nobody"])
            held = await stub.HoldOrders(command, timeout=10)
            again = await stub.HoldOrders(command, timeout=10)
            other = await stub.CancelOrders(command, timeout=10)
            released = await stub.ReleaseOrders(
                OrdersCommand(command_id="K2", order_ids=[first]), timeout=10
            )
            for bad, code in (
                (OrdersCommand(order_ids=[first]), Code.FIELD_MISSING),
                (OrdersCommand(command_id="K 3", order_ids=[first]), Code.BAD_FORMAT),
                (OrdersCommand(command_id="K3"), Code.FIELD_MISSING),
                (OrdersCommand(command_id="K3", order_ids=["o"] * 1_001), Code.FILE_TOO_LARGE),
                (OrdersCommand(command_id="K3", order_ids=["o"]), Code.NOTHING_TAKEN),
            ):
                refused = await stub.CancelOrders(bad, timeout=10)
                assert (refused.accepted, refused.code) == (False, code)
        assert (held.accepted, held.records, held.taken, held.repeated) == (True, 2, 1, False)
        assert [(r.record_number, r.order_id, r.code) for r in held.refused] == [
            (2, "nobody", Code.ORDER_UNKNOWN)
        ]
        assert (again.repeated, again.taken) == (True, 1)
        assert (other.accepted, other.code) == (False, Code.ID_REUSED)
        assert released.taken == 1

    asyncio.run(run())
