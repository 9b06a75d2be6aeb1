"""Sorting and packing lists of a batch, one pair per county branch or service window."""

from __future__ import annotations

import asyncio
from itertools import groupby
from pathlib import Path
from typing import Any

from domain.lines import KeyProvider
from domain.places import Kind
from gateways.files_out import write_table
from gateways.holders import Holder, open_holders
from ledger.queries import Queries

SORTING_HEADER = (
    "包号 package", "序号 position", "社会保障卡号 social card number", "姓名 name",
    "制卡单号 order id",
)  # fmt: skip
PACKING_HEADER = ("包号 package", "数量 count", "卡种 kind")

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
    queries: Queries, provider: KeyProvider, batch_id: str, directory: Path
) -> int:
    """Write the lists of all packages of a batch; answers how many files. Writing them again
    gives the same files. They go to a folder of the batch, since a branch gets many batches."""
    packages = await asyncio.to_thread(
        queries.rows,
        "select package_id, destination, kind, has_temporary, count from package"
        " where batch_id = ? order by destination, package_id",
        batch_id,
    )
    files = 0
    for destination, group in groupby(packages, key=lambda p: str(p["destination"])):
        of_destination = list(group)
        cards, holders = await _cards(queries, provider, batch_id, destination)
        await asyncio.to_thread(
            _write, directory / batch_id, destination, of_destination, _sorting_rows(cards, holders)
        )
        files += 2
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


def _sorting_rows(cards: Rows, holders: dict[str, Holder]) -> list[tuple[object, ...]]:
    """Cards without order (temporary ones) have neither number nor name."""
    rows: list[tuple[object, ...]] = []
    for package_id, group in groupby(cards, key=lambda c: str(c["package_id"])):
        for position, card in enumerate(group, start=1):
            holder = holders.get(card["order_id"])
            number, name = (holder.social_card_number, holder.masked_name) if holder else ("", "")
            rows.append((package_id, position, number, name, card["order_id"]))
    return rows


def _write(
    directory: Path, destination: str, packages: Rows, sorting: list[tuple[object, ...]]
) -> None:
    write_table(directory / f"{destination}-sorting.csv", SORTING_HEADER, sorting)
    packing = [(p["package_id"], p["count"], _kind(p)) for p in packages]
    write_table(directory / f"{destination}-packing.csv", PACKING_HEADER, packing)


def _kind(package: dict[str, Any]) -> str:
    name = f"{KIND_NAMES[Kind(package['kind'])]} {package['kind']}"
    return f"{name}（持有临时卡 holder has a temporary card）" if package["has_temporary"] else name
