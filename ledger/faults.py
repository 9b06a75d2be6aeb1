"""What verification says when something does not fit."""

from __future__ import annotations

_LONGEST = 80


class Fault(Exception):
    """One thing that does not fit, where it stands, in words. Ids only: a value that differs is
    never quoted, since it may be somebody's."""

    def __init__(
        self,
        chinese: str,
        english: str,
        *,
        table: str = "",
        line: str = "",
        number: int | None = None,
        subject: str = "",
    ) -> None:
        super().__init__(english)
        self.chinese = chinese
        self.english = english
        self.table = table
        self.line = line
        self.number = number
        self.subject = subject

    def __str__(self) -> str:
        where = [f"表 table {self.table}"] if self.table else []
        if self.line:
            where.append(f"生产线 line {shown(self.line)}")
        if self.number is not None:
            where.append(f"提交 commit {self.number}")
        if self.subject:
            where.append(shown(self.subject))
        place = f"（{'，'.join(where)}）" if where else ""
        return f"{self.chinese} · {self.english}{place}"


def shown(text: str) -> str:
    """`text` fit for a screen: what was tampered with may hold anything, of any length."""
    clean = "".join(c if c.isprintable() else "?" for c in text)
    return clean if len(clean) <= _LONGEST else clean[: _LONGEST - 1] + "…"
