"""Signed heads: what the newest commit of each line was, signed by the HSM and kept outside too.

The order is: sign, `append_head_file`, then `Ledger.record_heads`. So the file holds every head
that the database holds, and a ledger that was cut off or computed anew contradicts the file.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature

from domain.changes import Row, canonical_json
from ledger.queries import Queries

FIELDS = ("line", "number", "hash", "at", "signature")
TAIL_BYTES = 2**20
_HALF = 32  # bytes of r and of s on P-256


class HeadFileDamaged(Exception):
    """A line of the head file is not a head; the message says which."""


def head_digest(line: str, number: int, hash: str, at: str) -> bytes:
    """What is signed: SHA-256 (32 bytes) over line, number and hash of a link, and its time."""
    return hashlib.sha256(canonical_json([line, number, hash, at])).digest()


def signed_head(link: Row, signature: bytes) -> dict[str, Any]:
    """The head of `link` (line, number, hash, at) with its `signature` (r ‖ s), as it is kept in
    the table `head` and in the head file."""
    return {
        "line": link["line"],
        "number": link["number"],
        "hash": link["hash"],
        "at": link["at"],
        "signature": signature.hex(),
    }


def latest_links(queries: Queries) -> list[dict[str, Any]]:
    """The newest link (line, number, hash, at) of each line that has one, by line."""
    return queries.rows(
        # A cross join, so that SQLite begins with the few lines, not with all commits.
        "select c.line, c.number, c.hash, c.at from epoch e cross join commit_link c"
        " where c.line = e.line and c.number ="
        "  (select max(n.number) from commit_link n where n.line = e.line) order by e.line"
    )


def unsigned_heads(queries: Queries) -> list[dict[str, Any]]:
    """Those of `latest_links` that no recorded head covers yet."""
    covered = {
        r["line"]: r["number"]
        for r in queries.rows(
            "select e.line, coalesce((select max(h.number) from head h where h.line = e.line), 0)"
            " as number from epoch e"
        )
    }
    return [link for link in latest_links(queries) if link["number"] > covered.get(link["line"], 0)]


def append_head_file(path: Path, heads: Sequence[Row]) -> None:
    """Append signed heads, one JSON object a line, in one write, and wait until they are on the
    disk. After a crash the file ends with the old heads or with some of the new ones, perhaps
    with a torn line, which the next append cuts away (it was never recorded)."""
    if not heads:
        return
    text = head_lines(heads)
    new = not path.exists()
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        _cut_torn_line(descriptor)
        written = os.write(descriptor, text)
        if written != len(text):
            raise OSError(f"{path}: {written} of {len(text)} bytes were written")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if new:
        _sync_folder(path.parent)


def _cut_torn_line(descriptor: int) -> None:
    end = os.fstat(descriptor).st_size
    at = end
    while at > 0:
        start = max(0, at - 4096)
        found = os.pread(descriptor, at - start, start).rfind(b"\n")
        if found >= 0:
            at = start + found + 1
            break
        at = start
    if at < end:
        os.ftruncate(descriptor, at)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_head_file(path: Path) -> list[dict[str, Any]]:
    """All heads of the file, oldest first; a torn last line is left out. Raises HeadFileDamaged
    for any other line that is not a head, FileNotFoundError if there is no file."""
    return list(heads_in(path))


def heads_in(path: Path, size: int | None = None) -> Iterator[dict[str, Any]]:
    """As `read_head_file`, one at a time; with `size` those of the first so many bytes."""
    with path.open("rb") as file:
        lines = iter(file) if size is None else _up_to(file, size)
        yield from _heads(lines, path.name)


def _up_to(lines: Iterable[bytes], size: int) -> Iterator[bytes]:
    end = 0
    for raw in lines:
        end += len(raw)
        if end > size:
            return
        yield raw


def head_lines(heads: Iterable[Row]) -> bytes:
    """Heads as the file has them."""
    return b"".join(canonical_json({f: head[f] for f in FIELDS}) + b"\n" for head in heads)


def _heads(lines: Iterable[bytes], name: str) -> Iterator[dict[str, Any]]:
    for at, raw in enumerate(lines, start=1):
        if not raw.endswith(b"\n"):
            return
        try:
            head = json.loads(raw)
        except (ValueError, RecursionError):
            head = None
        if not is_head(head):
            raise HeadFileDamaged(f"{name}: line {at} is not a head")
        yield head


def newest_heads(path: Path) -> dict[str, dict[str, Any]]:
    """By line the newest head among the last ones of the file (TAIL_BYTES of it); none if there is
    no file. Raises HeadFileDamaged."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            start = max(0, size - TAIL_BYTES)
            file.seek(start)
            tail = file.read(size - start)
    except FileNotFoundError:
        return {}
    if start:
        tail = tail.partition(b"\n")[2]
    newest: dict[str, dict[str, Any]] = {}
    for head in _heads(BytesIO(tail), path.name):
        newest[head["line"]] = max(head, newest.get(head["line"], head), key=_number)
    return newest


def _number(head: Row) -> int:
    return int(head["number"])


def beyond(heads: Iterable[Row], links: Iterable[Row]) -> list[Row]:
    """Those heads whose commits come after the newest of a ledger (`links`: of each line)."""
    newest = {link["line"]: link["number"] for link in links}
    return [head for head in heads if head["number"] > newest.get(head["line"], 0)]


def is_head(head: Any) -> bool:
    """Whether `head` has the fields of a head, each of its type."""
    return (
        isinstance(head, dict)
        and set(head) == set(FIELDS)
        and type(head["number"]) is int
        and all(isinstance(head[f], str) for f in FIELDS if f != "number")
    )


def load_public_key(pem: bytes) -> ec.EllipticCurvePublicKey:
    """The head key's public half. Raises ValueError unless it is a P-256 key in PEM."""
    key = serialization.load_pem_public_key(pem)
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError("the head key is not a P-256 public key")
    return key


def is_signed(head: Row, key: ec.EllipticCurvePublicKey) -> bool:
    """Whether the signature of `head` (hex of r ‖ s over `head_digest`) is right."""
    try:
        raw = bytes.fromhex(head["signature"])
    except ValueError:
        return False
    if len(raw) != 2 * _HALF or head["signature"] != raw.hex():
        return False
    r, s = int.from_bytes(raw[:_HALF], "big"), int.from_bytes(raw[_HALF:], "big")
    digest = head_digest(head["line"], head["number"], head["hash"], head["at"])
    try:
        key.verify(encode_dss_signature(r, s), digest, ec.ECDSA(Prehashed(hashes.SHA256())))
    except InvalidSignature:
        return False
    return True
