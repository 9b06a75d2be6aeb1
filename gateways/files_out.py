"""Files that leave the centre: written whole or not at all, readable by their owner only."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

BYTE_ORDER_MARK = "\ufeff"
"""Excel reads a CSV file as UTF-8 only behind it."""


def write_whole(path: Path, text: Iterable[str]) -> None:
    """`write_bytes` for pieces of text, in UTF-8."""
    write_bytes(path, (piece.encode() for piece in text))


def write_bytes(path: Path, pieces: Iterable[bytes]) -> None:
    """Write `pieces` to `path` so that, whenever the process dies, there is the old file or the
    new one; after the return the new one is on disk. Makes the directory."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = path.with_name(f".{path.name}.partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "wb") as file:
        file.writelines(pieces)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """What was renamed or removed in a directory stays so after a power cut."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A CSV file (RFC 4180) that Excel opens with its Chinese."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(header)
    writer.writerows(rows)
    write_whole(path, (BYTE_ORDER_MARK, text.getvalue()))
