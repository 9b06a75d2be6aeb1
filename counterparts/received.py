"""Where card management keeps the centre's returns: each once, whole, and of a batch one revision
after the other, none of which changes what was final."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from counterparts import files
from domain.codes import Code
from domain.words import WORDS
from stubs.card_management_pb2 import CentreReturnPart, CentreReturnRecord, FileHeader
from stubs.card_management_pb2_grpc import (
    CentreReturnsServicer,
    add_CentreReturnsServicer_to_server,
)
from stubs.common_pb2 import Receipt

MOST_RECORDS = 1_000_000
_FILE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)


class _Refused(Exception):
    def __init__(self, code: Code) -> None:
        super().__init__(code)
        self.code = code


class _Batch:
    """What the returns of a batch said so far: how many there were, how many lines, and which of
    these may still be superseded."""

    def __init__(self) -> None:
        self.revisions = 0
        self.lines = 0
        self.open: set[int] = set()

    def why_not(self, revision: int, records: Sequence[CentreReturnRecord]) -> Code | None:
        """Why a revision can't be the next; None if it can."""
        named = [position for r in records for position in r.supersedes]
        lines = [r.line for r in records]
        follow = list(range(self.lines + 1, self.lines + 1 + len(records)))
        if revision != self.revisions or lines != follow:
            return Code.REVISION_ORDER
        if len(set(named)) != len(named) or not self.open.issuperset(named):
            return Code.RETURN_FINAL
        return None

    def take(self, records: Sequence[CentreReturnRecord]) -> None:
        self.revisions += 1
        self.lines += len(records)
        self.open -= {position for r in records for position in r.supersedes}
        self.open |= {r.line for r in records if not r.final}


class _CentreReturns(CentreReturnsServicer):
    """Takes a file when its count and digest are right and its revision is the next; the same again
    is acknowledged, other content under a used id is refused. `register`: which files were taken,
    in their order, with batch and revision; a file without its line there was not taken."""

    def __init__(self, directory: Path, register: Path) -> None:
        self._directory, self._register = directory, register
        self._lock = Lock()
        self._batches: defaultdict[str, _Batch] = defaultdict(_Batch)
        self._taken: list[dict[str, Any]] = []
        for row in files.read_lines(register) if register.exists() else ():
            self._taken.append(row)
            rows = files.read_lines(directory / f"{row['file_id']}.jsonl")
            self._batches[row["batch_id"]].take([files.centre_record(r) for r in rows])

    def SubmitCentreReturn(
        self, request_iterator: Iterator[CentreReturnPart], context: grpc.ServicerContext
    ) -> Receipt:
        try:
            return self._keep(*_collect(request_iterator))
        except _Refused as e:
            words = WORDS[e.code]
            return Receipt(code=e.code, reason=words.english, next_step=words.next_step)

    def _keep(self, header: FileHeader, records: list[CentreReturnRecord]) -> Receipt:
        lines = "".join(f"{files.to_json(files.centre_row(r))}\n" for r in records)
        path = self._directory / f"{header.file_id}.jsonl"
        row = {
            "file_id": header.file_id, "batch_id": header.batch_id, "revision": header.revision
        }  # fmt: skip
        with self._lock:
            known = [taken for taken in self._taken if taken["file_id"] == header.file_id]
            repeated = bool(known)
            if known and (known != [row] or path.read_text(encoding="utf-8") != lines):
                raise _Refused(Code.ID_REUSED)
            if not repeated:
                batch = self._batches[header.batch_id]
                code = batch.why_not(header.revision, records)
                if code is not None:
                    raise _Refused(code)
                files.write_whole(path, lines)
                files.write_lines(self._register, [*self._taken, row])
                self._taken.append(row)
                batch.take(records)
        return Receipt(
            accepted=True,
            code=Code.OK,
            records=len(records),
            taken=len(records),
            repeated=repeated,
        )


def _collect(parts: Iterator[CentreReturnPart]) -> tuple[FileHeader, list[CentreReturnRecord]]:
    """The header and records of a stream whose trailer fits. The trailer is its last part."""
    header = FileHeader()
    raw: list[bytes] = []
    complete = False
    for part in parts:
        kind = part.WhichOneof("part")
        if complete or kind is None or (kind == "header") == bool(header.file_id):
            raise _Refused(Code.MALFORMED)
        if kind == "header":
            header = part.header
            if not _FILE_ID.fullmatch(header.file_id):
                raise _Refused(Code.BAD_FORMAT)
        elif kind == "chunk":
            raw.extend(part.chunk.records)
            if len(raw) > MOST_RECORDS:
                raise _Refused(Code.FILE_TOO_LARGE)
        else:
            if part.trailer.count != len(raw):
                raise _Refused(Code.COUNT_DIFFERS)
            if part.trailer.digest != files.digest(raw):
                raise _Refused(Code.DIGEST_DIFFERS)
            complete = True
    if not complete:
        raise _Refused(Code.TRAILER_MISSING)
    try:
        return header, [CentreReturnRecord.FromString(r) for r in raw]
    except DecodeError:
        raise _Refused(Code.MALFORMED) from None


class Serving:
    """A running server. `address` is host:port with the real port; a context manager."""

    def __init__(self, server: grpc.Server, address: str) -> None:
        self._server = server
        self.address = address

    def stop(self, grace: float = 1.0) -> None:
        """End after calls in flight, or after `grace` seconds."""
        self._server.stop(grace).wait()

    def __enter__(self) -> Serving:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def serve(listen: str, directory: Path) -> Serving:
    """Serve CentreReturns on `listen` (host:port; port 0: a free one); returns are kept under
    `directory`/received, their order in `directory`/received.jsonl. OSError if the port is
    taken."""
    received = directory / "received"
    received.mkdir(parents=True, exist_ok=True)
    # Without SO_REUSEPORT a second server on the port fails instead of sharing it unseen.
    server = grpc.server(ThreadPoolExecutor(max_workers=4), options=[("grpc.so_reuseport", 0)])
    add_CentreReturnsServicer_to_server(
        _CentreReturns(received, directory / "received.jsonl"), server
    )
    try:
        port = server.add_insecure_port(listen)
    except RuntimeError as e:
        raise OSError(f"cannot listen on {listen}") from e
    if not port:
        raise OSError(f"cannot listen on {listen}")
    server.start()
    return Serving(server, f"{listen.rpartition(':')[0]}:{port}")
