"""Records of the social application: tag (1) ‖ length (1) ‖ value.

AN is GB18030, left aligned, padded with 00; CN is BCD, left aligned, padded with F
(人社信息函[2012]37号, 文件结构和数据项 V2.0; LD/T 32-2015).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


class RecordError(ValueError):
    """A value or a record that does not fit its field. The message never holds the value."""


@dataclass(frozen=True)
class Field:
    """One data item of a file. `length` in bytes; `coding` is AN, CN or B (plain bytes)."""

    name: str
    file: int
    tag: int
    coding: str
    length: int

    def encode(self, text: str) -> bytes:
        """The value of `text` in this field's coding and length."""
        try:
            if self.coding == "AN":
                raw = text.encode("gb18030")
                pad = b"\x00"
            elif self.coding == "CN":
                if text and not (text.isascii() and text.isdigit()):
                    raise RecordError(f"{self.name}: only digits fit a CN field")
                digits = text + "F" * (len(text) % 2)
                raw = bytes.fromhex(digits)
                pad = b"\xff"
            else:
                raw = bytes.fromhex(text)
                pad = b"\x00"
        except (UnicodeEncodeError, ValueError) as e:
            # `from None`: the cause would carry the value.
            raise RecordError(f"{self.name}: cannot be coded as {self.coding}") from (
                e if isinstance(e, RecordError) else None
            )
        if len(raw) > self.length:
            raise RecordError(f"{self.name}: {len(raw)} bytes do not fit {self.length}")
        return raw.ljust(self.length, pad)

    def decode(self, value: bytes) -> str:
        """The text of a value: the inverse of `encode`."""
        if len(value) != self.length:
            raise RecordError(f"{self.name}: {len(value)} bytes instead of {self.length}")
        if self.coding == "AN":
            try:
                return value.rstrip(b"\x00").decode("gb18030")
            except UnicodeDecodeError:
                raise RecordError(f"{self.name}: not GB18030") from None
        text = value.hex().upper()
        if self.coding == "CN":
            text = text.rstrip("F")
            if text and not text.isdigit():
                raise RecordError(f"{self.name}: not BCD")
        return text

    def fit(self, text: str) -> str:
        """The longest prefix of whole characters of `text` that fits this field: a name longer
        than the field is cut between characters, never inside one. RecordError if a character
        cannot be coded."""
        if self.coding != "AN":
            return text[: self.length * 2]
        try:
            size = 0
            for at, character in enumerate(text):
                size += len(character.encode("gb18030"))
                if size > self.length:
                    return text[:at]
        except UnicodeEncodeError:
            raise RecordError(f"{self.name}: cannot be coded as {self.coding}") from None
        return text

    def record(self, text: str) -> bytes:
        """The whole record: tag, length, value."""
        value = self.encode(text)
        return bytes((self.tag, len(value))) + value

    def parse(self, record: bytes) -> bytes:
        """The value out of a record as READ RECORD answers it."""
        if len(record) < 2 or record[0] != self.tag or record[1] != len(record) - 2:
            raise RecordError(f"{self.name}: not a record of tag {self.tag:02X}")
        return record[2:]


def split_tlv(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The tag-length-value items (1-byte tag, 1-byte length) of `data`, in order."""
    at = 0
    while at < len(data):
        if at + 2 > len(data) or at + 2 + data[at + 1] > len(data):
            raise RecordError("a tag-length-value item is cut off")
        yield data[at], data[at + 2 : at + 2 + data[at + 1]]
        at += 2 + data[at + 1]
