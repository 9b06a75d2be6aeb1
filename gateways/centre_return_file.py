"""The centre return as a GB 18030 file, by `gateways/layouts/centre_return.toml`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

from domain.codes import Code
from domain.words import WORDS
from gateways.layouts import load_layout

LAYOUT = load_layout("centre_return")
FORMAT = "CENTRE-RETURN-2"

RESULT_WORDS = {
    "shipped": "已发运",
    "rejected": "废卡",
    "destroyed": "销毁",
    "missing": "未到",
    "held": "暂扣",
    "cancelled": "撤销",
    "surplus": "多卡",
}


def write_lines(
    file_id: str, batch_id: str, revision: int, lines: Iterable[dict[str, Any]]
) -> Iterator[bytes]:
    """The file line by line, out of the objects of return/*.jsonl. The same objects give the same
    bytes."""
    digest, count = hashlib.sha256(), 0
    header = {
        "format": FORMAT, "file_id": file_id, "batch_id": batch_id, "revision": str(revision)
    }  # fmt: skip
    written = LAYOUT.write(LAYOUT.header, header)
    digest.update(written)
    yield written
    for line in lines:
        written = LAYOUT.write(LAYOUT.record, _values(line))
        digest.update(written)
        count += 1
        yield written
    yield LAYOUT.write(LAYOUT.trailer, {"count": str(count), "digest": digest.hexdigest()})


def _values(line: dict[str, Any]) -> dict[str, str]:
    texts = {f.name: str(line.get(f.name, "")) for f in LAYOUT.record.fields}
    superseded = ",".join(str(position) for position in line["supersedes"])
    return texts | {
        "final": str(int(line["final"])), "words": _words(line), "supersedes": superseded
    }  # fmt: skip


def _words(line: dict[str, Any]) -> str:
    result, reason = line["result"], line["reason"]
    words = RESULT_WORDS.get(result, result)
    return f"{words}：{WORDS[Code(reason)].chinese}" if reason in Code.__members__ else words
