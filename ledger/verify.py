"""Verification: does the ledger hold together, link by link and card by card?"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path


@dataclass(frozen=True)
class Report:
    """`finding` says in words what does not fit first; empty if everything fits."""

    ok: bool
    commits: int = 0
    events: int = 0
    bodies: int = 0
    unsigned_commits: int = 0
    unsigned_seconds: float = 0.0
    signatures_checked: int = 0
    finding: str = ""


def verify(
    path: Path,
    head_file: Path | None,
    public_key_pem: bytes | None,
    *,
    today: date | None = None,
) -> Report:
    """Verify the ledger at `path`."""
    raise NotImplementedError
