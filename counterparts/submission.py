"""Hand files in at the centre's doors: the factory return, the delivery note.

Each has a plain call that tries once, and `persist`, which tries until the centre answers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import grpc

from counterparts import files
from stubs.card_management_pb2 import (
    FactoryReturnPart,
    FileHeader,
    FileTrailer,
    OrdersCommand,
    RecordChunk,
)
from stubs.card_management_pb2_grpc import CardManagementStub
from stubs.common_pb2 import Receipt
from stubs.factory_pb2_grpc import FactoryStub

CHUNK = 500
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 10.0
CALL_SECONDS = 300.0
_TRY_AGAIN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)

Records = list[bytes]


@dataclass(frozen=True)
class Tampering:
    """How a test sends a file wrongly. By default nothing is wrong."""

    count: int | None = None
    """The trailer's count, instead of the right one."""
    digest: bytes | None = None
    """The trailer's digest, instead of the right one."""
    trailer: bool = True
    """False: the stream ends without a trailer."""
    alter: Callable[[Records], Records] | None = None
    """Other content, before the digest is taken: a well-formed file that says something else."""
    corrupt: Callable[[Records], Records] | None = None
    """Other content on the way, after the digest was taken."""


def submit_factory_return(
    door: str,
    path: Path,
    file_id: str,
    batch_id: str,
    *,
    corrects: str = "",
    chunk: int = CHUNK,
    tampering: Tampering | None = None,
) -> Receipt:
    """Stream a `factory_return.jsonl`, or a correction of the return `corrects`, to the centre at
    `door` (host:port): header, chunks, trailer. Tries once; grpc.RpcError as it comes."""
    records = [files.serialize(files.factory_record(row)) for row in files.read_lines(path)]
    header = FileHeader(file_id=file_id, batch_id=batch_id, corrects=corrects)
    parts = _parts(header, records, chunk, tampering)
    with grpc.insecure_channel(door) as channel:
        receipt: Receipt = CardManagementStub(channel).SubmitFactoryReturn(
            parts, timeout=CALL_SECONDS
        )
    return receipt


def _parts(
    header: FileHeader, records: Records, chunk: int, tampering: Tampering | None
) -> Iterator[FactoryReturnPart]:
    wrong = tampering or Tampering()
    if wrong.alter is not None:
        records = wrong.alter(list(records))
    trailer = FileTrailer(
        count=len(records) if wrong.count is None else wrong.count,
        digest=files.digest(records) if wrong.digest is None else wrong.digest,
    )
    if wrong.corrupt is not None:
        records = wrong.corrupt(list(records))
    yield FactoryReturnPart(header=header)
    for start in range(0, len(records), chunk):
        yield FactoryReturnPart(chunk=RecordChunk(records=records[start : start + chunk]))
    if wrong.trailer:
        yield FactoryReturnPart(trailer=trailer)


def submit_delivery_note(door: str, path: Path) -> Receipt:
    """Hand a `delivery_note.json` to the centre at `door`. Tries once; grpc.RpcError as it
    comes."""
    note = files.delivery_note(json.loads(path.read_text(encoding="utf-8")))
    with grpc.insecure_channel(door) as channel:
        receipt: Receipt = FactoryStub(channel).SubmitDeliveryNote(note, timeout=CALL_SECONDS)
    return receipt


def submit_orders_command(door: str, row: Mapping[str, Any]) -> Receipt:
    """Cancel, hold or release orders at the centre's `door`; `row`: act, command_id, order_ids.
    Tries once; grpc.RpcError as it comes."""
    command = OrdersCommand(command_id=row["command_id"], order_ids=row["order_ids"])
    with grpc.insecure_channel(door) as channel:
        stub = CardManagementStub(channel)
        act = {
            "cancel": stub.CancelOrders,
            "hold": stub.HoldOrders,
            "release": stub.ReleaseOrders,
        }[row["act"]]
        receipt: Receipt = act(command, timeout=CALL_SECONDS)
    return receipt


def persist(
    submit: Callable[[], Receipt],
    stop: Event,
    on_pause: Callable[[grpc.StatusCode, float], None] | None = None,
) -> Receipt | None:
    """Repeat `submit` while the centre is away (UNAVAILABLE) or busy (RESOURCE_EXHAUSTED), with
    pauses that grow from 0.2 to 10 s, or as long as the centre asks for. None if `stop` was set
    before it answered; any other grpc.RpcError is raised."""
    pause = FIRST_PAUSE
    while not stop.is_set():
        try:
            return submit()
        except grpc.RpcError as e:
            # The errors that calls raise are calls too, which their type does not say.
            call: Any = e
            if call.code() not in _TRY_AGAIN:
                raise
            wait = max(pause, _asked_pause(call.trailing_metadata() or ()))
            if on_pause is not None:
                on_pause(call.code(), wait)
        stop.wait(wait)
        pause = min(pause * 2, LONGEST_PAUSE)
    return None


def _asked_pause(metadata: Sequence[tuple[str, str | bytes]]) -> float:
    """Seconds of the server's push-back (gRPC retry design, A6); 0 if it asks for none."""
    for key, value in metadata:
        if key == "grpc-retry-pushback-ms" and isinstance(value, str) and value.isdigit():
            return int(value) / 1_000
    return 0.0
