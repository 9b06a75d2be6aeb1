"""What the doctor says of one part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from domain.provider import Operation


class State(StrEnum):
    """Only MEND makes the doctor answer that something is to be mended."""

    OK = "ok"
    NOTICE = "notice"
    DOWN = "down"
    ABSENT = "absent"
    MEND = "mend"


@dataclass(frozen=True)
class Finding:
    """One part. `present`, `configured`, `reachable`, `software_assisted`: None where the
    question makes no sense or could not be asked."""

    part: str
    words: str
    state: State
    note: str = ""
    mend: str = ""
    present: bool | None = None
    configured: bool | None = None
    reachable: bool | None = None
    software_assisted: bool | None = None
    operations: Sequence[Operation] = ()
    """Of a key provider: what it does with keys, and where."""
