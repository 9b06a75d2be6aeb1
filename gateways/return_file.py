"""The factory return as a file: from bytes to a frame whose count and digest are right, and the
result that answers it. Layouts: `gateways/layouts`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from domain.codes import Code
from domain.factory_return import FactoryRecord, is_id
from domain.lines import Receipt, RefusedRecord
from domain.words import WORDS
from gateways.factory_returns import FramedReturn, Unread
from gateways.framing import FrameRefused
from gateways.layouts import BadLine, load_layout

LAYOUT = load_layout("factory_return")
RESULT = load_layout("factory_return_result")
FORMAT = "FACTORY-RETURN-1"

_IDS = ("file_id", "batch_id", "corrects")
_FLAGS = {"1": True, "0": False}


@dataclass(frozen=True)
class Named:
    """What a file calls itself; empty if its header can't be read."""

    file_id: str = ""
    batch_id: str = ""
    corrects: str = ""


def largest_file(max_records: int) -> int:
    """Bytes that a file of so many records can have."""
    rows = LAYOUT.header.longest + LAYOUT.trailer.longest + max_records * LAYOUT.record.longest
    return rows + 2 * (max_records + 2)


def _lines(data: bytes) -> list[bytes]:
    """Lines with their ends. No character of GB 18030 holds the byte of a line feed; a lone CR,
    at which `splitlines` splits too, ends no line."""
    *lines, rest = data.split(b"\n")
    return [line + b"\n" for line in lines] + ([rest] if rest else [])


def _content(line: bytes) -> bytes:
    return line.removesuffix(b"\n").removesuffix(b"\r")


def names_of(data: bytes) -> Named:
    """The ids of the header, as far as they can be read."""
    try:
        header = LAYOUT.read(LAYOUT.header, _content(data.partition(b"\n")[0]))
    except BadLine as e:
        header = e.read
    return Named(*(v if is_id(v := header.get(n, "")) else "" for n in _IDS))


def read_file(data: bytes, max_records: int) -> FramedReturn:
    """Raises FrameRefused: nothing of the file may take effect."""
    lines = _lines(data)
    named = _header(lines)
    if not LAYOUT.is_row(LAYOUT.trailer, lines[-1]):
        raise FrameRefused(Code.TRAILER_MISSING, f"{len(lines) - 1} records came")
    records = lines[1:-1]
    for number, line in enumerate(records, start=1):
        if LAYOUT.is_row(LAYOUT.trailer, line):
            raise FrameRefused(Code.MALFORMED, f"line {number + 1}: something follows the trailer")
    if len(records) > max_records:
        raise FrameRefused(Code.FILE_TOO_LARGE, f"at most {max_records} records")
    digest = hashlib.sha256(data[: len(data) - len(lines[-1])]).hexdigest()
    _check_trailer(lines[-1], len(records), digest)
    return FramedReturn(named.file_id, named.batch_id, digest, _Records(records), named.corrects)


def _header(lines: Sequence[bytes]) -> Named:
    if not lines or not LAYOUT.is_row(LAYOUT.header, lines[0]):
        raise FrameRefused(Code.MALFORMED, "a file begins with its header")
    try:
        header = LAYOUT.read(LAYOUT.header, _content(lines[0]))
    except BadLine as e:
        raise FrameRefused(Code.MALFORMED, f"header.{e.field}") from None
    if header["format"] != FORMAT:
        raise FrameRefused(Code.MALFORMED, "header.format")
    for name in _IDS:
        if not is_id(header[name]) and (header[name] or name != "corrects"):
            raise FrameRefused(Code.MALFORMED, f"header.{name}")
    return Named(*(header[name] for name in _IDS))


def _check_trailer(line: bytes, records: int, digest: str) -> None:
    try:
        trailer = LAYOUT.read(LAYOUT.trailer, _content(line))
    except BadLine as e:
        raise FrameRefused(Code.MALFORMED, f"trailer.{e.field}") from None
    count = trailer["count"]
    if not (count.isascii() and count.isdigit()):
        raise FrameRefused(Code.MALFORMED, "trailer.count")
    if int(count) != records:
        raise FrameRefused(Code.COUNT_DIFFERS, f"the trailer says {int(count)}, {records} came")
    if trailer["digest"].lower() != digest:
        raise FrameRefused(Code.DIGEST_DIFFERS, "trailer.digest")
    if not records:
        raise FrameRefused(Code.MALFORMED, "a file without records")


class _Records:
    """Records of a file, read one by one."""

    def __init__(self, lines: Sequence[bytes]) -> None:
        self._lines = lines

    def __iter__(self) -> Iterator[FactoryRecord | Unread]:
        return map(read_record, self._lines)


def read_record(line: bytes) -> FactoryRecord | Unread:
    """A line of a file as the record that it stands for."""
    try:
        values = LAYOUT.read(LAYOUT.record, _content(line))
    except BadLine as e:
        return Unread(e.field, e.code, _record(e.read) if e.read else None)
    if values["has_temporary_card"] not in _FLAGS:
        return Unread("has_temporary_card", Code.BAD_FORMAT, _record(values))
    return _record(values)


def _record(values: dict[str, str]) -> FactoryRecord:
    texts = {f.name: values.get(f.name, "") for f in LAYOUT.record.fields}
    flag = texts.pop("has_temporary_card")
    return FactoryRecord(has_temporary_card=_FLAGS.get(flag, False), **texts)


def write_result(receipt: Receipt, named: Named, sha256: str) -> bytes:
    """The result file; the same receipt gives the same bytes."""
    words = WORDS[Code(receipt.code)]
    header = {
        "accepted": str(int(receipt.accepted)),
        "code": receipt.code,
        "words": f"{words.chinese} {'' if receipt.accepted else _plain(receipt.reason)}".strip(),
        "next_step": receipt.next_step,
        "file_id": named.file_id,
        "batch_id": named.batch_id,
        "records": str(receipt.records),
        "taken": str(receipt.taken),
        "repeated": str(int(receipt.repeated)),
        "sha256": sha256,
    }
    lines = [RESULT.write(RESULT.header, header)]
    lines += [RESULT.write(RESULT.record, _refused(r)) for r in receipt.refused]
    lines.append(RESULT.write(RESULT.trailer, {"count": str(len(receipt.refused))}))
    return b"".join(lines)


def _refused(refused: RefusedRecord) -> dict[str, str]:
    return {
        "record_number": str(refused.record_number),
        "order_id": refused.order_id,
        "field": refused.field,
        "code": refused.code,
        "words": f"{WORDS[Code(refused.code)].chinese} {_plain(refused.reason)}",
    }


def _plain(reason: str) -> str:
    return " ".join(reason.replace(RESULT.delimiter, " ").split())[:200]


def answers(result: bytes, sha256: str) -> bool:
    """Whether a result file is whole and answers the file with this digest."""
    first, *rest = _lines(result) or [b""]
    try:
        header = RESULT.read(RESULT.header, _content(first))
    except BadLine:
        return False
    return header["sha256"] == sha256 and bool(rest)
