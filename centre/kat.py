"""`centre kat FILE`: a laboratory's known answers against this centre's code (docs/kat.md)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from centre.kat_operations import OPERATIONS, Bench, Given, Value, as_bytes, perform

FORMAT = 1
OK, DIFFERS, REFUSED, UNKNOWN = "ok", "differs", "refused", "unknown"


class FileMalformed(ValueError):
    """The file as a whole cannot be read."""


@dataclass(frozen=True)
class Difference:
    """`got` is empty if the operation has no such answer."""

    name: str
    expected: str
    got: str


@dataclass(frozen=True)
class Outcome:
    """What came of one case; `reason` says why it was refused."""

    id: str
    op: str
    result: str
    differences: tuple[Difference, ...] = ()
    reason: str = ""

    def __str__(self) -> str:
        if self.result == DIFFERS:
            parts = (f"{d.name} expected {d.expected} got {d.got or '-'}" for d in self.differences)
            return f"{self.id} differs {'; '.join(parts)}"
        if self.result == REFUSED:
            return f"{self.id} refused {self.reason}"
        return f"{self.id} {'unknown op' if self.result == UNKNOWN else self.result}"


def read(file: Path) -> list[Any]:
    """The cases of a known-answer file. Raises FileMalformed, which says where."""
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as e:
        raise FileMalformed(f"{file} is not JSON: {e}") from e
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise FileMalformed(f'{file} is no object with "format": {FORMAT}')
    cases = content.get("cases")
    if not isinstance(cases, list) or not cases:
        raise FileMalformed(f'{file}: "cases" is no list with at least one case')
    return cases


def run(cases: list[Any], place: Bench) -> Iterator[Outcome]:
    """One outcome for each case, in order, as it is known."""
    for at, case in enumerate(cases, start=1):
        yield _outcome(at, case, place)


def totals(outcomes: list[Outcome]) -> dict[str, int]:
    """How many held, differ, were refused, were unknown."""
    counted = Counter(outcome.result for outcome in outcomes)
    names = {"held": OK, "differ": DIFFERS, "refused": REFUSED, "unknown": UNKNOWN}
    return {name: counted[result] for name, result in names.items()}


def _outcome(at: int, case: Any, place: Bench) -> Outcome:
    if not isinstance(case, dict):
        return Outcome(f"case {at}", "", REFUSED, reason="is no object")
    case_id, op = case.get("id"), case.get("op")
    name = _printable(case_id) if isinstance(case_id, str) and case_id else f"case {at}"
    if not isinstance(op, str):
        return Outcome(name, "", REFUSED, reason="op is missing")
    if op not in OPERATIONS:
        return Outcome(name, _printable(op), UNKNOWN)
    given, out = case.get("in"), case.get("out")
    try:
        if not isinstance(case_id, str) or not case_id:
            raise ValueError("id is missing")
        if not isinstance(given, dict):
            raise ValueError("in is no object")
        if not isinstance(out, dict) or not out:
            raise ValueError("out names nothing to compare")
        expected = {field: _expected(field, value) for field, value in out.items()}
        differences = tuple(_compare(expected, perform(op, Given(given), place)))
    except ValueError as e:
        return Outcome(name, op, REFUSED, reason=str(e))
    return Outcome(name, op, DIFFERS if differences else OK, differences)


def _printable(text: str) -> str:
    """One line, whatever the file says."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _expected(field: str, value: Any) -> Value:
    if field == "error" and isinstance(value, str):
        return value
    if isinstance(value, list):
        return [as_bytes(f"out.{field}[{at}]", one) for at, one in enumerate(value)]
    return as_bytes(f"out.{field}", value)


def _compare(expected: Mapping[str, Value], got: Mapping[str, Value]) -> Iterator[Difference]:
    """Everything that `out` names; an answer that failed says so for each of them."""
    error = f"error {got['error']!s}" if "error" in got else ""
    for name, value in expected.items():
        if name not in got or got[name] != value:
            yield Difference(_printable(name), _shown(value), _shown(got.get(name, error)))


def _shown(value: Value) -> str:
    if isinstance(value, list):
        return "[" + " ".join(one.hex().upper() for one in value) + "]"
    return value.hex().upper() if isinstance(value, bytes) else _printable(value)
