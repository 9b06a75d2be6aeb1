"""Sorting and packing lists of a batch, one pair per county branch or service window: as PDF for
the people at the tables and in the branch, as CSV for a branch's own programs.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import structlog

from domain.lines import KeyProvider
from domain.places import Kind
from gateways.files_out import write_bytes, write_table
from gateways.fonts import Chain, ListFonts
from gateways.holders import Holder, open_holders
from gateways.list_pages import CardLine, PackageSheet, packing_pages, sorting_pages
from gateways.pages import Page, to_pdf
from ledger.queries import Queries

log = structlog.get_logger()

SORTING_HEADER = (
    "包号 package", "序号 position", "社会保障卡号 social card number", "姓名 name",
    "制卡单号 order id",
)  # fmt: skip
PACKING_HEADER = ("包号 package", "数量 count", "卡种 kind", "状态 state")

KIND_NAMES = {
    Kind.SOCIAL_SECURITY_CARD: "社会保障卡",
    Kind.TEMPORARY_CARD: "临时卡",
    Kind.WHITE_CARD: "白卡",
    Kind.INSTANT_BLANK: "即制卡空白卡",
    Kind.SAMPLE_CARD: "样卡",
    Kind.TEST_CARD: "测试卡",
}

Rows = list[dict[str, Any]]


async def write_lists(
    queries: Queries, provider: KeyProvider, batch_id: str, directory: Path, fonts: ListFonts
) -> int:
    """Write the lists of all packages of a batch, open ones and closed ones; answers how many
    files. Writing them again gives the same files, but for packages that were closed meanwhile.
    They go to a folder of the batch, since a branch gets many batches.

    Raises FontUnusable. A character that no font draws shows as U+3013, and its code point stands
    in the list's foot and in the log.
    """
    packages = await asyncio.to_thread(queries.packages, "p.batch_id = ?", batch_id)
    files = 0
    with Chain(fonts.text) as text, Chain(fonts.heading) as heading:
        for destination, group in groupby(packages, key=lambda p: str(p["destination"])):
            of_destination = list(group)
            cards, holders = await _cards(queries, provider, batch_id, destination)
            sheets = _sheets(of_destination, cards, holders)
            lists = _Lists(directory / batch_id, batch_id, destination, of_destination, sheets)
            files += await asyncio.to_thread(lists.write, text, heading)
    return files


async def _cards(
    queries: Queries, provider: KeyProvider, batch_id: str, destination: str
) -> tuple[Rows, dict[str, Holder]]:
    cards = await asyncio.to_thread(
        queries.rows,
        "select package_id, body_id, order_id from body where batch_id = ? and destination = ?"
        " and package_id <> '' order by package_id, body_id",
        batch_id,
        destination,
    )
    orders = [c["order_id"] for c in cards if c["order_id"]]
    return cards, await open_holders(queries, provider, orders)


def _sheets(packages: Rows, cards: Rows, holders: dict[str, Holder]) -> list[PackageSheet]:
    """Cards without order (temporary ones) have neither number nor name."""
    lines: dict[str, list[CardLine]] = {}
    for package_id, group in groupby(cards, key=lambda c: str(c["package_id"])):
        lines[package_id] = []
        for position, card in enumerate(group, start=1):
            holder = holders.get(card["order_id"])
            number, name = (holder.social_card_number, holder.masked_name) if holder else ("", "")
            lines[package_id].append(CardLine(position, number, name, card["order_id"]))
    return [
        PackageSheet(
            p["package_id"],
            KIND_NAMES[Kind(p["kind"])],
            p["count"],
            bool(p["has_temporary"]),
            lines.get(p["package_id"], []),
            p["state"] == "open",
        )
        for p in packages
    ]


@dataclass(frozen=True, repr=False)
class _Lists:
    """The lists of one destination."""

    directory: Path
    batch_id: str
    destination: str
    packages: Rows
    sheets: list[PackageSheet]

    def write(self, text: Chain, heading: Chain) -> int:
        """Answers how many files."""
        sorting = [
            (s.package_id, c.position, c.social_card_number, c.name, c.order_id)
            for s in self.sheets
            for c in s.cards
        ]
        packing = [(p["package_id"], p["count"], _kind(p), _state(p)) for p in self.packages]
        write_table(self._path("sorting.csv"), SORTING_HEADER, sorting)
        write_table(self._path("packing.csv"), PACKING_HEADER, packing)
        for name, lay_out in (("sorting", sorting_pages), ("packing", packing_pages)):
            pages = lay_out(self.batch_id, self.destination, self.sheets)
            self._print(name, pages, text, heading)
        return 4

    def _path(self, name: str) -> Path:
        return self.directory / f"{self.destination}-{name}"

    def _print(self, name: str, pages: list[Page], text: Chain, heading: Chain) -> None:
        title = f"{self.batch_id} {self.destination} {name}"
        printed = to_pdf(title, pages, text, heading)
        if printed.missing:
            log.warning(
                "lists.not_drawn",
                batch_id=self.batch_id,
                destination=self.destination,
                list=name,
                # How many: rare characters of a name are near to the name.
                characters=len(printed.missing),
            )
        write_bytes(self._path(f"{name}.pdf"), [printed.pdf])


def _state(package: dict[str, Any]) -> str:
    return "未封 open" if package["state"] == "open" else "已封 closed"


def _kind(package: dict[str, Any]) -> str:
    name = f"{KIND_NAMES[Kind(package['kind'])]} {package['kind']}"
    return f"{name}（持有临时卡 holder has a temporary card）" if package["has_temporary"] else name
