"""Load the registers."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True)
class Bank:
    """A cooperating bank. `code` is the 3-digit bank code (the head of the interbank line
    number); `card_prefix` and `card_length` shape the numbers of its cards."""

    code: str
    name: str
    full_name: str
    hotline: str
    card_prefix: str
    card_length: int


@dataclass(frozen=True)
class Division:
    """A county-level division (GB/T 2260) and the prefecture that it belongs to."""

    code: str
    name: str
    prefecture_code: str
    prefecture: str

    @property
    def place_name(self) -> str:
        """The name that stands alone: a district (区) with its prefecture, a county without."""
        return f"{self.prefecture}{self.name}" if self.name.endswith("区") else self.name


def _read(name: str) -> dict[str, Any]:
    return tomllib.loads(resources.files(__package__).joinpath(name).read_text(encoding="utf-8"))


@cache
def load_banks() -> Mapping[str, Bank]:
    """All registered banks by code."""
    return MappingProxyType({row["code"]: Bank(**row) for row in _read("banks.toml")["banks"]})


@cache
def load_divisions() -> Mapping[str, Division]:
    """All county-level divisions by code."""
    return MappingProxyType(
        {
            code: Division(code, name, prefecture["code"], prefecture["name"])
            for prefecture in _read("hunan_divisions.toml")["prefectures"]
            for code, name in prefecture["counties"].items()
        }
    )
