"""Where card management keeps the centre's returns: each once, whole."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

import grpc
from google.protobuf.message import DecodeError

from counterparts import files
from domain.codes import Code
from domain.words import WORDS
from stubs.card_management_pb2 import CentreReturnPart, CentreReturnRecord
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


class _CentreReturns(CentreReturnsServicer):
    """Takes a file when its count and digest are right; the same again is acknowledged, other
    content under a used id is refused."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = Lock()

    def SubmitCentreReturn(
        self, request_iterator: Iterator[CentreReturnPart], context: grpc.ServicerContext
    ) -> Receipt:
        try:
            file_id, records = _collect(request_iterator)
            return self._keep(file_id, records)
        except _Refused as e:
            words = WORDS[e.code]
            return Receipt(code=e.code, reason=words.english, next_step=words.next_step)

    def _keep(self, file_id: str, records: list[CentreReturnRecord]) -> Receipt:
        lines = "".join(f"{files.to_json(files.centre_row(r))}\n" for r in records)
        path = self._directory / f"{file_id}.jsonl"
        with self._lock:
            repeated = path.exists()
            if repeated and path.read_text(encoding="utf-8") != lines:
                raise _Refused(Code.ID_REUSED)
            if not repeated:
                files.write_whole(path, lines)
        return Receipt(
            accepted=True,
            code=Code.OK,
            records=len(records),
            taken=len(records),
            repeated=repeated,
        )


def _collect(parts: Iterator[CentreReturnPart]) -> tuple[str, list[CentreReturnRecord]]:
    """The file id and records of a stream whose trailer fits. The trailer is its last part."""
    file_id = ""
    raw: list[bytes] = []
    complete = False
    for part in parts:
        kind = part.WhichOneof("part")
        if complete or kind is None or (kind == "header") == bool(file_id):
            raise _Refused(Code.MALFORMED)
        if kind == "header":
            file_id = part.header.file_id
            if not _FILE_ID.fullmatch(file_id):
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
        return file_id, [CentreReturnRecord.FromString(r) for r in raw]
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
    `directory`/received. OSError if the port is taken."""
    received = directory / "received"
    received.mkdir(parents=True, exist_ok=True)
    # Without SO_REUSEPORT a second server on the port fails instead of sharing it unseen.
    server = grpc.server(ThreadPoolExecutor(max_workers=4), options=[("grpc.so_reuseport", 0)])
    add_CentreReturnsServicer_to_server(_CentreReturns(received), server)
    try:
        port = server.add_insecure_port(listen)
    except RuntimeError as e:
        raise OSError(f"cannot listen on {listen}") from e
    if not port:
        raise OSError(f"cannot listen on {listen}")
    server.start()
    return Serving(server, f"{listen.rpartition(':')[0]}:{port}")
