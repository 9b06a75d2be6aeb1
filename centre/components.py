"""Components of keys in the process of their custodian: made or read here, shown here once, and
sealed before they leave. Nobody else ever sees one."""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from actors.hsm.components import seal_part
from actors.hsm.suites import SUITES
from centre.desk import ask_hidden
from stubs import custody_pb2 as pb


@dataclass(frozen=True)
class Wanted:
    """The key to which a custodian brings component `number` (1 or 2)."""

    label: str
    usage: str
    suite: str
    number: int

    @property
    def lengths(self) -> tuple[int, ...]:
        return SUITES[self.suite].key_lengths


@dataclass(frozen=True)
class Component:
    wanted: Wanted
    value: bytes

    def __repr__(self) -> str:
        return f"Component({self.wanted.label})"

    @property
    def check_value(self) -> str:
        """Hex, 3 bytes, as of a key of its suite."""
        return SUITES[self.wanted.suite].check_value(self.value).hex().upper()


def make(wanted: Iterable[Wanted]) -> list[Component]:
    """Random components, as long as their keys."""
    return [Component(w, secrets.token_bytes(w.lengths[-1])) for w in wanted]


def read(wanted: Iterable[Wanted], file: Path | None) -> list[Component]:
    """Components that came on paper: typed hidden (or read from a pipe) in hex, one for each key,
    or out of the file of a key printer. Raises click.UsageError."""
    known = _from_file(file) if file else {}
    return [_read(w, known) for w in wanted]


def _from_file(file: Path) -> dict[str, str]:
    try:
        return {row["label"]: row["component"] for row in json.loads(file.read_text("ascii"))}
    except (OSError, ValueError, KeyError, TypeError):
        raise click.UsageError(f"{file}: not a file of components (docs/files.md)") from None


def _read(w: Wanted, known: Mapping[str, str]) -> Component:
    text = known.get(w.label) or ask_hidden(f"{w.label} 分量 component {w.number}")
    try:
        value = bytes.fromhex(text)
    except ValueError:
        value = b""
    if len(value) not in w.lengths:
        wanted = " / ".join(str(2 * n) for n in w.lengths)
        raise click.UsageError(f"{w.label}: 须为十六进制 {wanted} 位 hex digits are needed")
    component = Component(w, value)
    click.echo(f"  {w.label} 校验值 check value {component.check_value}", err=True)
    return component


def hand_over(components: list[Component], file: Path | None) -> None:
    """Show components to their custodian once, or write them into a 0600 `file` that is new.
    Raises click.UsageError where neither can be."""
    if file is not None:
        _write(components, file)
        return
    if not (sys.stdout.isatty() and sys.stdin.isatty()):
        raise click.UsageError("分量只在终端显示 shown on a terminal only: --component-file FILE")
    for c in components:
        click.echo(f"  {c.wanted.label}  {c.value.hex(' ', 2).upper()}  {c.check_value}")
    click.pause("请抄录并封存，按任意键清屏 write them down and seal them; any key clears this")
    click.clear()
    click.echo("\x1b[3J", nl=False)  # also what has scrolled out of sight (ECMA-48 ED, as xterm)


def _write(components: list[Component], file: Path) -> None:
    rows = [
        {"label": c.wanted.label, "number": c.wanted.number, "component": c.value.hex().upper(),
         "check_value": c.check_value}
        for c in components
    ]  # fmt: skip
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise click.UsageError(f"{file} 已存在 is there already") from None
    with os.fdopen(descriptor, "w", encoding="ascii") as f:
        json.dump(rows, f, indent=1)
        f.flush()
        os.fsync(f.fileno())


def sealed(components: list[Component], transport_public_key: bytes) -> list[pb.Part]:
    """As they travel: under the centre's transport key, each good for its place in one key."""
    return [
        pb.Part(
            usage=c.wanted.usage,
            sealed=seal_part(transport_public_key, c.wanted.label, c.wanted.number, c.value),
        )
        for c in components
    ]


def differing(components: list[Component], values: Mapping[str, Any]) -> list[str]:
    """Labels whose component the provider read with another check value than we computed."""
    return [c.wanted.label for c in components if values.get(c.wanted.usage) != c.check_value]
