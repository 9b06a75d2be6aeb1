"""The station's own record of what changed chips: one JSON object a line.

    {"at": unix seconds, "released": [presentation, stage, number], "steps": [names]}
    {"at": unix seconds, "finished": [presentation, stage, number], "status_words": [hex, ...],
     "broken": text}

A writing segment is released before its first command and finished after its last: a release
without a finish is a chip that was left in the middle. Never a data byte: cryptograms and
personal data stay out.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, Final

MAX_BYTES: Final = 4 * 1024 * 1024
KEPT: Final = 4


class Journal:
    """Appends to `path`, each entry by one `write`. When it would grow over `max_bytes` it
    becomes `path`.1, that one `path`.2, and so on; `kept` of those stay. Threads may share it.

    Raises OSError if an entry can't be written whole: then the segment must not be run.
    """

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES, kept: int = KEPT) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._kept = kept
        self._lock = Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._open()

    def _open(self) -> None:
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._file).st_size
        if self._size and os.pread(self._file, 1, self._size - 1) != b"\n":
            # Ends the line that was torn by an accident, so that the next one stands alone.
            self._size += os.write(self._file, b"\n")

    def released(self, presentation: str, stage: str, number: int, steps: Sequence[str]) -> None:
        """The writing segment of that turn is about to be sent to the chip."""
        self._append({"released": [presentation, stage, number], "steps": list(steps)})

    def finished(
        self,
        presentation: str,
        stage: str,
        number: int,
        status_words: Sequence[int],
        broken: str = "",
    ) -> None:
        """What the chip answered, as many steps as were sent."""
        words = [f"{word:04X}" for word in status_words]
        entry = {"finished": [presentation, stage, number], "status_words": words}
        self._append({**entry, "broken": broken})

    def _append(self, entry: dict[str, Any]) -> None:
        row = {"at": round(time.time(), 3), **entry}
        data = json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        with self._lock:
            if self._size and self._size + len(data) > self._max_bytes:
                self._rotate()
            written = os.write(self._file, data)
            self._size += written
            if written != len(data):
                self._size += os.write(self._file, b"\n")
                raise OSError(f"the journal took {written} of {len(data)} bytes")

    def _rotate(self) -> None:
        os.close(self._file)
        try:
            for number in range(self._kept - 1, 0, -1):
                older = _numbered(self._path, number)
                if older.exists():
                    older.rename(_numbered(self._path, number + 1))
            self._path.rename(_numbered(self._path, 1))
        finally:
            self._open()

    def close(self) -> None:
        with self._lock:
            os.close(self._file)


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


def read_journal(path: Path, kept: int = KEPT) -> Iterator[dict[str, Any]]:
    """All entries that are kept, oldest first, without lines torn by an accident."""
    files = [_numbered(path, n) for n in range(kept, 0, -1)] + [path]
    for file in files:
        if not file.exists():
            continue
        for line in file.read_bytes().split(b"\n"):
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict):
                yield entry
