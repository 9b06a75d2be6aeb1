"""How sorting and packing lists look on paper: for the person who stands at the table with them.

Chinese first. Each package's sorting list begins on a page of its own, since it goes into the
package; what must be scanned or seen first is large.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from domain.registers import branch_name, is_branch, load_divisions
from gateways.pages import FOOT, MARGIN, RIGHT, Bars, Box, Mark, Page, Text

WINDOW = "window-"


@dataclass(frozen=True, repr=False)
class CardLine:
    """A card of a package. No repr: it would hold the person. Without order, the last three are
    empty."""

    position: int
    social_card_number: str
    name: str
    order_id: str


@dataclass(frozen=True, repr=False)
class PackageSheet:
    """A package as both lists show it; `kind` in words."""

    package_id: str
    kind: str
    count: int
    has_temporary: bool
    cards: Sequence[CardLine] = ()
    is_open: bool = False
    """Its cards were not counted yet."""


def destination_name(destination: str) -> str:
    """In words, as on a parcel: a county branch of a bank, or a division's service window."""
    if is_branch(destination):
        return branch_name(destination)
    division = load_divisions().get(destination.removeprefix(WINDOW))
    if destination.startswith(WINDOW) and division:
        return f"{division.place_name}社会保障卡服务窗口"
    return destination


def _head(title: str, english: str, batch_id: str, destination: str) -> Iterator[Mark]:
    yield Text(MARGIN, 20, title, 20, heading=True, width=70)
    yield Text(MARGIN, 25.5, english, 8, grey=0.4, width=70)
    yield Text(RIGHT, 19, destination_name(destination), 14, heading=True, align="right", width=112)
    yield Text(RIGHT, 25.5, f"网点 branch {destination}　批次 batch {batch_id}", 8, align="right",
               grey=0.4, width=112)  # fmt: skip
    yield Box(MARGIN, 28, RIGHT - MARGIN, 0.6, fill=0)


TEMPORARY = "持有临时卡人员　单独包装"
"""On everything about a package whose holders have a temporary card: it is packed apart."""

COUNTED_ONLY = "仅清点 counted only"
"""In the row of a card that has no number, name or order."""


def _label(x: float, y: float, width: float, text: str, size: float) -> Iterator[Mark]:
    """White on black: seen from across the table, also on a poor printer."""
    yield Box(x, y, width, size * 0.62, fill=0)
    yield Text(x + width / 2, y + size * 0.46, text, size, heading=True, align="centre",
               width=width - 3, grey=1)  # fmt: skip


# Sorting list

_ROW, _BLOCKS, _GAP = 5.6, 2, 4.0
_TABLE = 60.0
_ROWS = int((FOOT - 5 - _TABLE) / _ROW)
_BLOCK = (RIGHT - MARGIN - _GAP) / _BLOCKS
# Column: where it begins in a block, how wide it is.
_COLUMNS = ((0.0, 9.0), (11.0, 22.0), (35.0, 17.0), (53.0, 31.0))
_HEADS = ("序号", "社会保障卡号", "姓名", "制卡单号")
_TICK = 3.4


def sorting_pages(batch_id: str, destination: str, packages: Sequence[PackageSheet]) -> list[Page]:
    """The sorting list (分拣清单): the cards of each package in their order, to be ticked off."""
    pages = []
    for package in packages:
        per_page = _ROWS * _BLOCKS
        sheets = max(1, -(-len(package.cards) // per_page))
        for sheet in range(sheets):
            cards = package.cards[sheet * per_page : (sheet + 1) * per_page]
            page = Page(f"包 package {package.package_id}　第 {sheet + 1} 张 / 共 {sheets} 张")
            page.marks += _head("分拣清单", "SORTING LIST", batch_id, destination)
            page.marks += _package_head(package)
            for block in range(-(-len(cards) // _ROWS)):
                x = MARGIN + block * (_BLOCK + _GAP)
                page.marks += _cards(x, cards[block * _ROWS : (block + 1) * _ROWS])
            pages.append(page)
    return pages


def _package_head(package: PackageSheet) -> Iterator[Mark]:
    yield Text(MARGIN, 36, "包号 package", 8, grey=0.4)
    yield Text(MARGIN, 43.5, package.package_id, 18, heading=True, width=72)
    yield Text(MARGIN, 50, package.kind, 11, width=72)
    yield Text(88, 36, "数量 count", 8, grey=0.4)
    yield Text(88, 46, str(package.count), 26, heading=True, width=22)
    yield Bars(114, 32, package.package_id, 13, RIGHT - 114)
    if package.has_temporary:
        yield from _label(114, 46.8, RIGHT - 114, TEMPORARY, 11)


def _cards(x: float, cards: Sequence[CardLine]) -> Iterator[Mark]:
    top = _TABLE - _ROW
    yield Box(x, top, _BLOCK, _ROW, fill=0.85)
    for (at, width), head in zip(_COLUMNS, _HEADS, strict=True):
        yield Text(x + at + 1, top + 4, head, 8, heading=True, width=width)
    yield Text(x + _BLOCK - 4.2, top + 4, "核", 8, heading=True, align="centre", width=6)
    for row, card in enumerate(cards):
        y = _TABLE + row * _ROW
        # Every fifth line is marked: rows are counted by fives.
        if card.position % 5 == 0:
            yield Box(x, y, _BLOCK, _ROW, fill=0.94)
        cells = (str(card.position), card.social_card_number, card.name, card.order_id)
        for (at, width), cell, size in zip(_COLUMNS, cells, (9, 10, 11, 8), strict=True):
            if cell:
                yield Text(x + at + 1, y + 4.1, cell, size, width=width)
        if not any(cells[1:]):
            yield Text(x + _COLUMNS[1][0] + 1, y + 4.1, COUNTED_ONLY, 9, width=60)
        yield Box(x + _BLOCK - 4.2 - _TICK / 2, y + (_ROW - _TICK) / 2, _TICK, _TICK)


# Packing list

_PACK_ROW, _PACK_TOP = 19.0, 46.0
_SIGN = 26.0
_PACK_ROWS = int((FOOT - _SIGN - _PACK_TOP) / _PACK_ROW)


def packing_pages(batch_id: str, destination: str, packages: Sequence[PackageSheet]) -> list[Page]:
    """The packing list (装箱清单): the packages of a destination, to be scanned into its box."""
    pages = []
    total = sum(p.count for p in packages)
    for first in range(0, len(packages), _PACK_ROWS):
        page = Page(f"{destination_name(destination)}　批次 {batch_id}")
        page.marks += _head("装箱清单", "PACKING LIST", batch_id, destination)
        page.marks.append(
            Text(MARGIN, 36.5, f"共 {len(packages)} 包　{total} 张", 14, heading=True, width=120)
        )
        page.marks.append(
            Text(RIGHT, 36.5, f"packages {len(packages)}, cards {total}", 8, align="right",
                 grey=0.4, width=60)
        )  # fmt: skip
        page.marks += _packing_heads()
        for row, package in enumerate(packages[first : first + _PACK_ROWS]):
            page.marks += _packing_row(_PACK_TOP + row * _PACK_ROW, package)
        page.marks += _signatures()
        pages.append(page)
    return pages


def _packing_heads() -> Iterator[Mark]:
    yield Box(MARGIN, _PACK_TOP - 6, RIGHT - MARGIN, 6, fill=0.85)
    heads = (
        (MARGIN + 2, "包号 package"),
        (MARGIN + 114, "卡种 kind"),
        (MARGIN + 151, "数量 count"),
    )
    for x, head in heads:
        yield Text(x, _PACK_TOP - 1.8, head, 8.5, heading=True, width=60)
    yield Text(RIGHT - 6, _PACK_TOP - 1.8, "复核", 8.5, heading=True, align="centre", width=12)


def _packing_row(y: float, package: PackageSheet) -> Iterator[Mark]:
    yield Bars(MARGIN, y + 2.2, package.package_id, 9.5, 110)
    yield Text(MARGIN + 4, y + 16, package.package_id, 11, heading=True, width=106)
    yield Text(MARGIN + 114, y + 8, package.kind, 10.5, width=36)
    if package.has_temporary:
        yield from _label(MARGIN + 114, y + 10.5, 36, TEMPORARY, 8)
    if package.is_open:
        yield Text(MARGIN + 114, y + 16, "未封 open", 8, grey=0.4, width=36)
    yield Text(
        MARGIN + 166, y + 11.5, str(package.count), 18, heading=True, align="right", width=15
    )
    yield Box(RIGHT - 9, y + 6, 6, 6, line=0.4)
    yield Box(MARGIN, y + _PACK_ROW, RIGHT - MARGIN, 0.2, fill=0.6)


def _signatures() -> Iterator[Mark]:
    y = FOOT - 9
    for number, words in enumerate(("装箱人 packed by", "复核人 checked by", "日期 date")):
        x = MARGIN + number * 64
        yield Text(x, y + 4.5, words, 8, grey=0.4, width=56)
        yield Box(x, y, 56, 0.3, fill=0)
