"""A factory return as card management's older systems hand it over: a GB 18030 file, written under
another name and renamed when it is whole (docs/files.md, "Factory return as a file").
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from stubs.card_management_pb2 import FactoryReturnRecord

# Written after the document, not after the centre's code: so that each checks the other.
_BEFORE_FLAG = (
    "order_id", "bank_code", "branch_code", "carton_id", "identification_code",
    "social_card_number", "bank_card_number",
)  # fmt: skip
_AFTER_FLAG = ("identity_number", "sex", "nation", "birth_place", "birth_date", "name")


def record_line(record: FactoryReturnRecord) -> bytes:
    """A record without its line end."""
    values = [getattr(record, name) for name in _BEFORE_FLAG]
    values.append("1" if record.has_temporary_card else "0")
    values += [getattr(record, name) for name in _AFTER_FLAG]
    return "|".join(("D", *values)).encode("gb18030")


def file_bytes(file_id: str, batch_id: str, lines: Iterable[bytes], *, corrects: str = "") -> bytes:
    """A whole file out of record lines (which a demo may have spoilt before). `corrects`: the id
    of the return whose refused records it sends again."""
    records = list(lines)
    head = f"H|FACTORY-RETURN-1|{file_id}|{batch_id}|{corrects}".encode("ascii")
    body = b"".join(line + b"\n" for line in (head, *records))
    digest = hashlib.sha256(body).hexdigest()
    return body + f"T|{len(records)}|{digest}\n".encode("ascii")


CORRECTION = "correction.txt"
"""In the `sent` of a delivery: the file that follows its factory return."""


def drop(inbox: Path, name: str, content: bytes) -> None:
    """Hand the file over: the centre sees it whole or not at all."""
    partial = inbox / f"{name}.part"
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(inbox / name)
