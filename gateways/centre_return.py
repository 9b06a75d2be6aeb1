"""The centre return (制卡中心回盘): out of the ledger into a file, and from the file to card
management (articles 11(10), 28(7)).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import grpc

from domain.lines import KeyProvider
from gateways.centre_return_file import write_lines
from gateways.files_out import write_bytes, write_whole
from gateways.framing import FileDigest
from gateways.holders import Holder, open_holders
from ledger.queries import Queries
from ledger.returns import revision_of, superseded_by
from stubs import common_pb2
from stubs.card_management_pb2 import (
    CentreReturnPart,
    CentreReturnRecord,
    FileHeader,
    FileTrailer,
    RecordChunk,
)
from stubs.card_management_pb2_grpc import CentreReturnsStub

RECORDS_PER_CHUNK = 500
LINES_AT_ONCE = 1_000
CALL_SECONDS = 60.0


async def write_return(
    queries: Queries, provider: KeyProvider, file_id: str, batch_id: str, path: Path
) -> int:
    """Write the return `file_id` to `path`, one JSON object a line, and in GB 18030 beside it
    (`.txt`); answers how many lines. Writing it again gives the same files. Where `path` is, the
    other is too."""
    lines: list[dict[str, Any]] = []
    revision = await asyncio.to_thread(revision_of, queries, file_id)
    superseded = await asyncio.to_thread(superseded_by, queries, batch_id, file_id)
    last = 0
    while True:
        rows = await asyncio.to_thread(
            queries.rows,
            "select * from return_line where file_id = ? and position > ?"
            " order by position limit ?",
            file_id,
            last,
            LINES_AT_ONCE,
        )
        if not rows:
            break
        ours = [r["order_id"] for r in rows if _is_ours(r)]
        holders = await open_holders(queries, provider, ours)
        lines += [line_of(r, holders, superseded.get(r["position"], [])) for r in rows]
        last = rows[-1]["position"]
    coded = write_lines(file_id, batch_id, revision, lines)
    await asyncio.to_thread(write_bytes, path.with_suffix(".txt"), coded)
    await asyncio.to_thread(write_whole, path, map(_to_json, lines))
    return len(lines)


def _is_ours(row: dict[str, Any]) -> bool:
    # The order id of a surplus body stands in a refused record, and may be another order's.
    return bool(row["order_id"]) and row["result"] != "surplus"


def line_of(
    row: dict[str, Any], holders: dict[str, Holder], supersedes: list[int]
) -> dict[str, Any]:
    """A row of `return_line` as a line of the file: an order's, or a body's without order."""
    result = {
        "line": row["position"],
        "supersedes": supersedes,
        "result": row["result"],
        "reason": row["reason"],
        "final": bool(row["final"]),
        "bank": row["bank"],
        "branch": row["branch"],
        "package": row["package_id"],
    }
    if not row["order_id"]:
        return {"body_id": row["body_id"], "kind": row["kind"], **result}
    holder = holders.get(row["order_id"]) if _is_ours(row) else None
    number = holder.social_card_number if holder else ""
    return {"order_id": row["order_id"], "social_card_number": number, **result}


def _to_json(line: dict[str, Any]) -> str:
    return json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n"


def record_of(line: dict[str, Any]) -> CentreReturnRecord:
    """A line of the file as it goes over the wire."""
    return CentreReturnRecord(
        order_id=line.get("order_id", ""),
        social_card_number=line.get("social_card_number", ""),
        result=line["result"],
        reason=line["reason"],
        final=line["final"],
        bank_code=line["bank"],
        branch_code=line["branch"],
        package_id=line["package"],
        body_id=line.get("body_id", ""),
        kind=line.get("kind", ""),
        line=line["line"],
        supersedes=line["supersedes"],
    )


async def send_return(
    address: str, file_id: str, batch_id: str, revision: int, path: Path
) -> common_pb2.Receipt:
    """Stream a written return to card management at `address`. Tries once; grpc.RpcError as it
    comes."""
    header = FileHeader(file_id=file_id, batch_id=batch_id, revision=revision)
    async with grpc.aio.insecure_channel(address) as channel:
        receipt: common_pb2.Receipt = await CentreReturnsStub(channel).SubmitCentreReturn(
            _parts(header, path), timeout=CALL_SECONDS
        )
        return receipt


async def _parts(header: FileHeader, path: Path) -> AsyncIterator[CentreReturnPart]:
    digest, count = FileDigest(), 0
    yield CentreReturnPart(header=header)
    chunks = _chunks(path)
    while chunk := await asyncio.to_thread(next, chunks, None):
        for record in chunk:
            digest.add(record)
        count += len(chunk)
        yield CentreReturnPart(chunk=RecordChunk(records=chunk))
    yield CentreReturnPart(trailer=FileTrailer(count=count, digest=digest.value()))


def _chunks(path: Path) -> Iterator[list[bytes]]:
    with path.open(encoding="utf-8") as file:
        while lines := list(islice(file, RECORDS_PER_CHUNK)):
            yield [
                record_of(json.loads(line)).SerializeToString(deterministic=True) for line in lines
            ]
