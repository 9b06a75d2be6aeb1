"""Labels of keys in the token, and what they say."""

from __future__ import annotations

import re
from typing import NamedTuple

TRANSPORT = "transport"
INDEX = "index"
HEAD = "head"
WRAP = "wrap"
"""AES-256; seals SM4 masters, which the token has no keys for."""

FORMAL = "formal:"
"""How labels of the province's masters begin."""
FIRST_VERSION = 1
"""Of the province's formal keys."""

LONGEST_BATCH_ID = 64
# A batch id may hold colons: usage and version are the last two parts.
_MASTER = re.compile(r"(formal|temporary:.+|bank:[^:]+):([^:]+):v(\d+)")


class BatchIdError(ValueError):
    """A batch id that cannot stand in a label."""


def checked_batch(batch_id: str) -> str:
    """`batch_id` itself, if it has 1 to 64 printable characters. Raises BatchIdError."""
    if not 0 < len(batch_id) <= LONGEST_BATCH_ID or not batch_id.isprintable():
        raise BatchIdError(f"a batch id has 1 to {LONGEST_BATCH_ID} printable characters")
    return batch_id


def formal(usage: str, version: int) -> str:
    """A master of the province."""
    return f"formal:{usage}:v{version}"


def temporary(batch_id: str, usage: str, version: int) -> str:
    """A master of the factory, for one batch."""
    return f"temporary:{checked_batch(batch_id)}:{usage}:v{version}"


def kmc(bank: str, version: int) -> str:
    """The master of a bank from which its chips' keys are made (EMV CPS: KMC)."""
    return f"bank:{bank}:kmc:v{version}"


def data(batch_id: str) -> str:
    """The data key that seals the personal data of one batch."""
    return f"data:{checked_batch(batch_id)}"


class Meaning(NamedTuple):
    usage: str
    version: int


def meaning(label: str) -> Meaning:
    """The usage and version that a label names; other keys than masters have version 0."""
    match = _MASTER.fullmatch(label)
    if match:
        return Meaning(match[2], int(match[3]))
    return Meaning(label.partition(":")[0], 0)
