"""Reading and writing lines by a layout."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from domain.codes import Code


class BadLine(Exception):
    """A line that does not follow its layout: the field at fault ("" for the whole line), a code,
    and the fields that could be read. Its text holds no value."""

    def __init__(self, field: str, code: Code, read: Mapping[str, str]) -> None:
        super().__init__(field, code)
        self.field = field
        self.code = code
        self.read = dict(read)


@dataclass(frozen=True)
class Field:
    """`longest` in bytes as coded."""

    name: str
    chinese: str
    longest: int
    note: str = ""


@dataclass(frozen=True)
class Row:
    """A sort of line."""

    mark: str
    fields: tuple[Field, ...]

    @property
    def longest(self) -> int:
        """Bytes of the longest line, without its end."""
        return len(self.mark) + sum(1 + f.longest for f in self.fields)


@dataclass(frozen=True)
class Layout:
    """The lines of a file: one header, records, one trailer."""

    title: str
    coding: str
    delimiter: str
    header: Row
    record: Row
    trailer: Row

    def is_row(self, row: Row, line: bytes) -> bool:
        """Whether a line has the mark of `row`."""
        return line.startswith((row.mark + self.delimiter).encode("ascii"))

    def read(self, row: Row, line: bytes) -> dict[str, str]:
        """The fields of a line without its end. Raises BadLine."""
        if len(line) > row.longest:
            raise BadLine("", Code.BAD_FORMAT, {})
        try:
            text = line.decode(self.coding)
        except UnicodeDecodeError as e:
            # Whatever follows bad bytes may be read out of step: only what stands before counts.
            before = line[: e.start].decode(self.coding).split(self.delimiter)
            read = self._named(row, before[:-1])
            raise BadLine(self._name(row, len(before) - 1), Code.BAD_CODING, read) from None
        mark, *values = text.split(self.delimiter)
        if mark != row.mark or len(values) != len(row.fields):
            raise BadLine("", Code.BAD_FORMAT, {})
        read = self._named(row, [mark, *values])
        for field in row.fields:
            if len(read[field.name].encode(self.coding)) > field.longest:
                raise BadLine(field.name, Code.BAD_FORMAT, read)
        return read

    def _named(self, row: Row, parts: list[str]) -> dict[str, str]:
        return {f.name: value for f, value in zip(row.fields, parts[1:], strict=False)}

    def _name(self, row: Row, part: int) -> str:
        return row.fields[part - 1].name if 1 <= part <= len(row.fields) else ""

    def write(self, row: Row, values: Mapping[str, str]) -> bytes:
        """A line with its end. Raises BadLine for a value that the layout can't carry."""
        parts = [row.mark]
        for field in row.fields:
            value = values[field.name]
            try:
                fits = len(value.encode(self.coding)) <= field.longest
            except UnicodeEncodeError:
                raise BadLine(field.name, Code.BAD_CODING, {}) from None
            if not fits or any(c in value for c in (self.delimiter, "\n", "\r")):
                raise BadLine(field.name, Code.BAD_FORMAT, {})
            parts.append(value)
        return (self.delimiter.join(parts) + "\n").encode(self.coding)

    def as_markdown(self) -> str:
        """The layout as it stands in docs/files.md."""
        lines = [
            f"{self.title}. Coding {self.coding.upper()}, delimiter `{self.delimiter}`, lines end "
            "with LF (CR LF is read too).",
            "",
            "| line | field | 字段 | bytes at most | |",
            "|---|---|---|---|---|",
        ]
        for name, row in (
            ("header", self.header),
            ("record", self.record),
            ("trailer", self.trailer),
        ):
            lines.append(f"| {name} | `{row.mark}` | | {len(row.mark)} | mark of the line |")
            lines += [
                f"| | `{f.name}` | {f.chinese} | {f.longest} | {f.note} |" for f in row.fields
            ]
        return "\n".join(lines) + "\n"


@cache
def load_layout(name: str) -> Layout:
    """The layout `name`.toml of this folder."""
    file = Path(__file__).with_name(f"{name}.toml")
    table = tomllib.loads(file.read_text(encoding="utf-8"))
    rows = {
        part: Row(table[part]["mark"], tuple(Field(**f) for f in table[part]["fields"]))
        for part in ("header", "record", "trailer")
    }
    return Layout(table["title"], table["coding"], table["delimiter"], **rows)
