"""Files over gRPC: a header, chunks of records, a trailer with count and digest.

The digest is SHA-256 over every record's serialized bytes, each preceded by its length as
4 bytes big endian (proto/card_management.proto).
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from domain.codes import Code
from domain.factory_return import is_id
from gateways.floor import Limits
from stubs.card_management_pb2 import FileHeader, FileTrailer, RecordChunk


class Part(Protocol):
    """`FactoryReturnPart` or `CentreReturnPart`."""

    @property
    def header(self) -> FileHeader: ...
    @property
    def chunk(self) -> RecordChunk: ...
    @property
    def trailer(self) -> FileTrailer: ...


class FrameRefused(Exception):
    """The file as a whole is not in order; `detail` says where, without a value of a record."""

    def __init__(self, code: Code, detail: str) -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail


@dataclass(frozen=True, repr=False)
class Framed:
    """A file whose count and digest are right. `digest` in hex; `corrects` empty if it corrects
    none."""

    file_id: str
    batch_id: str
    digest: str
    records: tuple[bytes, ...]
    corrects: str = ""


class FileDigest:
    """The running digest of a file's records."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, record: bytes) -> None:
        self._hash.update(len(record).to_bytes(4, "big"))
        self._hash.update(record)

    def value(self) -> bytes:
        return self._hash.digest()


class _Reading:
    """A file while it comes in."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._header: FileHeader | None = None
        self._records: list[bytes] = []
        self._digest = FileDigest()
        self.complete = False

    def take(self, kind: str | None, part: Part) -> None:
        """The next part. Raises FrameRefused."""
        if self.complete:
            raise FrameRefused(Code.MALFORMED, "something follows the trailer")
        if (kind == "header") != (self._header is None):
            raise FrameRefused(Code.MALFORMED, "a file begins with one header")
        if kind == "header":
            self._take_header(part.header)
        elif kind == "chunk":
            self._take_chunk(part.chunk)
        elif kind == "trailer":
            self._take_trailer(part.trailer)
        else:
            raise FrameRefused(Code.MALFORMED, "a part is empty")

    def _take_header(self, header: FileHeader) -> None:
        for name, value in (("file_id", header.file_id), ("batch_id", header.batch_id)):
            if not is_id(value):
                raise FrameRefused(Code.MALFORMED, f"header.{name}")
        if header.corrects and not is_id(header.corrects):
            raise FrameRefused(Code.MALFORMED, "header.corrects")
        self._header = header

    def _take_chunk(self, chunk: RecordChunk) -> None:
        if not 1 <= len(chunk.records) <= self._limits.records_per_chunk:
            raise FrameRefused(
                Code.MALFORMED, f"a chunk has 1 to {self._limits.records_per_chunk} records"
            )
        if len(self._records) + len(chunk.records) > self._limits.max_records_per_file:
            raise FrameRefused(
                Code.FILE_TOO_LARGE, f"at most {self._limits.max_records_per_file} records"
            )
        for record in chunk.records:
            self._digest.add(record)
            self._records.append(record)

    def _take_trailer(self, trailer: FileTrailer) -> None:
        if trailer.count != len(self._records):
            raise FrameRefused(
                Code.COUNT_DIFFERS, f"the trailer says {trailer.count}, {len(self._records)} came"
            )
        if trailer.digest != self._digest.value():
            raise FrameRefused(Code.DIGEST_DIFFERS, "trailer.digest")
        if not self._records:
            raise FrameRefused(Code.MALFORMED, "a file without records")
        self.complete = True

    def whole(self) -> Framed:
        if self._header is None or not self.complete:
            raise FrameRefused(Code.TRAILER_MISSING, f"{len(self._records)} records came")
        return Framed(
            self._header.file_id,
            self._header.batch_id,
            self._digest.value().hex(),
            tuple(self._records),
            self._header.corrects,
        )


async def read_frame(parts: AsyncIterator[tuple[str | None, Part]], limits: Limits) -> Framed:
    """The whole file out of (kind of part, part) pairs. Raises FrameRefused: nothing of it may
    take effect."""
    reading = _Reading(limits)
    async for kind, part in parts:
        reading.take(kind, part)
    return reading.whole()
