"""BER-TLV objects of payment applications (EMV book 3, annex B; ISO/IEC 8825-1)."""

from __future__ import annotations

from collections.abc import Iterator

_CONSTRUCTED = 0x20


class BerError(ValueError):
    """Bytes that are no whole objects. The message never holds a value."""


def objects(data: bytes) -> Iterator[tuple[int, bytes]]:
    """All objects of `data` as (tag, value), those inside others too, in order. Zero bytes between
    objects are padding. Raises BerError at the first byte that does not fit."""
    at = 0
    while at < len(data):
        if data[at] == 0:
            at += 1
            continue
        first = data[at]
        tag, at = _tag(data, at)
        length, at = _length(data, at)
        if at + length > len(data):
            raise BerError("an object is cut off")
        value = data[at : at + length]
        yield tag, value
        if first & _CONSTRUCTED:
            yield from objects(value)
        at += length


def _tag(data: bytes, at: int) -> tuple[int, int]:
    end = at + 1
    if data[at] & 0x1F == 0x1F:
        while end < len(data) and data[end] & 0x80:
            end += 1
        end += 1
    if end > len(data):
        raise BerError("a tag is cut off")
    return int.from_bytes(data[at:end], "big"), end


def _length(data: bytes, at: int) -> tuple[int, int]:
    if at >= len(data):
        raise BerError("a length is cut off")
    if data[at] < 0x80:
        return data[at], at + 1
    end = at + 1 + (data[at] & 0x7F)
    if end == at + 1 or end > len(data):
        raise BerError("a length is cut off")
    return int.from_bytes(data[at + 1 : end], "big"), end
