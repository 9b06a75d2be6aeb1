"""Personal data go to the provider and back in portions that stay inside the call's message.

A larger argument or result of a call between processes would lie in a shared object store, and
personal data must not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from domain.lines import KeyProvider

ItemT = TypeVar("ItemT")

LARGEST_PORTION = 64 * 1024
"""Bytes of ids and data in one call; what packing adds stays far below the next 36 KB."""


def in_portions(
    items: Iterable[ItemT], size: Callable[[ItemT], int], limit: int = LARGEST_PORTION
) -> Iterator[list[ItemT]]:
    """`items` in order, in lists whose sizes add up to at most `limit`; an item larger than that
    comes alone."""
    portion: list[ItemT] = []
    total = 0
    for item in items:
        if portion and total + size(item) > limit:
            yield portion
            portion, total = [], 0
        portion.append(item)
        total += size(item)
    if portion:
        yield portion


# A tuple and two objects, as a call packs them.
_PER_RECORD = 24


def record_size(record: tuple[str, bytes]) -> int:
    """Bytes of an (order id, data) pair in a call."""
    return len(record[0].encode()) + len(record[1]) + _PER_RECORD


def _text_size(text: str) -> int:
    return len(text.encode()) + _PER_RECORD


async def seal(
    provider: KeyProvider, batch_id: str, records: Iterable[tuple[str, bytes]]
) -> list[bytes]:
    """`KeyProvider.seal` for any number of records."""
    sealed: list[bytes] = []
    for portion in in_portions(records, record_size):
        sealed += await provider.seal(batch_id, portion)
    return sealed


async def index(provider: KeyProvider, values: Iterable[str]) -> list[str]:
    """`KeyProvider.index` for any number of values. The answers (64 characters each) are larger
    than most numbers, so they count as well."""
    found: list[str] = []
    for portion in in_portions(values, lambda v: max(_text_size(v), 64 + _PER_RECORD)):
        found += await provider.index(portion)
    return found
