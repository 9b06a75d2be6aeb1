"""Labels of keys in the token, and what they say."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import NamedTuple

TRANSPORT = "transport"
INDEX = "index"
HEAD = "head"
WRAP = "wrap"
"""AES-256; seals SM4 masters, which the token has no keys for."""

LONGEST_BATCH_ID = 64


class BatchIdError(ValueError):
    """A batch id that cannot stand in a label."""


class LabelError(ValueError):
    """A label that no key bears."""


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


def kek(version: int) -> str:
    """A key encrypting key: what leaves, leaves under it."""
    return f"kek:v{version}"


class Kind(StrEnum):
    """What a key is for. OWN: the centre's own (index, head, transport, wrap)."""

    FORMAL = "formal"
    TEMPORARY = "temporary"
    BANK = "bank"
    KEK = "kek"
    DATA = "data"
    OWN = "own"


class Meaning(NamedTuple):
    """What a label says. Of the versions of one `family` (`formal`, `temporary:<batch>`,
    `bank:<code>:kmc`, `kek`) one is active at a time. Keys that have none are version 0."""

    kind: Kind
    family: str
    usage: str
    version: int


_MASTERS = (
    # A batch id may hold colons: usage and version are the last two parts.
    (Kind.FORMAL, re.compile(r"(formal):([^:]+):v([1-9]\d{0,2})")),
    (Kind.TEMPORARY, re.compile(r"(temporary:.+):([^:]+):v(\d{1,3})", re.DOTALL)),
    (Kind.BANK, re.compile(r"(bank:[0-9A-Za-z]{1,16}:(kmc|transport)):v([1-9]\d{0,2})")),
    (Kind.KEK, re.compile(r"((kek)):v([1-9]\d{0,2})")),
)
OWN = (INDEX, HEAD, TRANSPORT, WRAP)


def kind_of(label: str) -> Kind | None:
    """What a key called `label` is for; None for one that is not ours."""
    try:
        return meaning(label).kind
    except LabelError:
        return None


def meaning(label: str) -> Meaning:
    """What `label` says. Raises LabelError for one that no key of ours bears."""
    for kind, pattern in _MASTERS:
        match = pattern.fullmatch(label)
        if match:
            return Meaning(kind, match[1], match[2], int(match[3]))
    if label in OWN:
        return Meaning(Kind.OWN, label, label, 0)
    if label.startswith("data:"):
        return Meaning(Kind.DATA, label, "data", 0)
    raise LabelError(f"no key is called {label!r}"[:100])
