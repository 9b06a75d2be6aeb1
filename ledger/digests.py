"""What an event keeps of rows that are not for its eyes, or too many: their digest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

from domain.changes import canonical_json


def digest_of(rows: Iterable[Any]) -> str:
    """SHA-256 (hex) over the canonical JSON of each row, one a line."""
    hasher = hashlib.sha256()
    for row in rows:
        hasher.update(canonical_json(row) + b"\n")
    return hasher.hexdigest()
