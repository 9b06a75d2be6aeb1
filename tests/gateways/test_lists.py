"""Printed lists: every character of a name is drawn or named, every package can be scanned, and
what goes to a table is complete."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path

import pypdf
import pytest
from fontTools.ttLib import TTFont

from gateways.fonts import DEBIAN_FONTS, GETA, Chain, FontUnusable, check_font
from gateways.list_pages import CardLine, PackageSheet, packing_pages, sorting_pages
from gateways.pages import Bars, Box, Page, Printed, Text, to_pdf

BASIC, EXTENSION_B, EXTENSION_D, UNDRAWN = "社", "\U00020bb7", "\U0002b740", "\U00031350"
BRANCH = "102-430102"


@pytest.fixture(scope="module")
def chains() -> Iterator[tuple[Chain, Chain]]:
    with Chain(DEBIAN_FONTS.text) as text, Chain(DEBIAN_FONTS.heading) as heading:
        yield text, heading


def printed(pages: list[Page], chains: tuple[Chain, Chain]) -> Printed:
    return to_pdf("test", pages, *chains)


def texts(pdf: bytes) -> list[str]:
    return [page.extract_text() for page in pypdf.PdfReader(io.BytesIO(pdf)).pages]


def package(cards: int, name: str = "张*", *, temporary: bool = False, n: int = 1) -> PackageSheet:
    lines = [CardLine(i, f"A{i:08d}", name, f"B1-{i:06d}") for i in range(1, cards + 1)]
    return PackageSheet(f"B1-P{n:04d}", "社会保障卡", cards, temporary, lines)


def test_characters_come_from_the_first_font_that_draws_them(chains: tuple[Chain, Chain]) -> None:
    """Also those outside the basic plane, each with an outline; what no font draws is told apart,
    and nothing else is in the font."""
    font = chains[0].small_font(BASIC + EXTENSION_B + EXTENSION_D + UNDRAWN, "T")
    assert font.missing == {UNDRAWN}
    tables = TTFont(io.BytesIO(font.data))
    names = tables.getBestCmap()
    assert {chr(c) for c in names} == {BASIC, EXTENSION_B, EXTENSION_D, GETA, " "}
    outlined = {chr(c) for c, name in names.items() if tables["glyf"][name].numberOfContours}
    assert outlined == {BASIC, EXTENSION_B, EXTENSION_D, GETA}
    assert font == chains[0].small_font(BASIC + EXTENSION_B + EXTENSION_D + UNDRAWN, "T")


RARE = "㐱䶮鿦𬱖𠀀𪛖𪜀𫜴𫝀𫠝𫠠𬺡𬺰𮯠"
"""Of real names, and the first and last of extensions B to F."""


def test_rare_characters_of_names_are_drawn_in_the_file(chains: tuple[Chain, Chain]) -> None:
    """Each is read back from the printed list, and the font in the file has an outline for it."""
    cards = [CardLine(n, f"A{n:08d}", f"{c}*", f"B1-{n:06d}") for n, c in enumerate(RARE, 1)]
    sheet = PackageSheet("B1-P0001", "社会保障卡", len(cards), False, cards)
    result = printed(sorting_pages("B1", BRANCH, [sheet]), chains)
    assert result.missing == ()
    (page,) = pypdf.PdfReader(io.BytesIO(result.pdf)).pages
    text = page.extract_text()
    assert [c for c in RARE if f"{c}*" not in text] == []
    assert set(RARE) <= drawn_by(page)


def drawn_by(page: pypdf.PageObject) -> set[str]:
    """The characters of which the fonts of a page have an outline."""
    drawn = set()
    for reference in page["/Resources"]["/Font"].values():  # type: ignore[index]
        font = reference.get_object()
        if "/ToUnicode" not in font:
            continue
        meant = re.findall(r"<(\w\w)> <(\w+)>\n", font["/ToUnicode"].get_data().decode("ascii"))
        tables = TTFont(io.BytesIO(font["/FontDescriptor"]["/FontFile2"].get_data()))
        glyphs = tables["cmap"].tables[0].cmap
        for code, text in meant:
            name = glyphs.get(int(code, 16))
            if name and tables["glyf"][name].numberOfContours:
                drawn.add(bytes.fromhex(text).decode("utf-16-be"))
    return drawn


def test_what_no_font_draws_is_marked_and_named(chains: tuple[Chain, Chain]) -> None:
    """〓 in its place, the code point in the foot of that page and in what is answered; the rest
    can be read back from the file, rare characters as what they are."""
    good = printed(sorting_pages("B1", BRANCH, [package(1, EXTENSION_B + "*")]), chains)
    (text,) = texts(good.pdf)
    assert good.missing == ()
    assert EXTENSION_B + "*" in text
    assert "字库缺字" not in text
    bad = printed(sorting_pages("B1", BRANCH, [package(1, UNDRAWN + "*"), package(1)]), chains)
    first, second = texts(bad.pdf)
    assert bad.missing == ("U+31350",)
    assert GETA + "*" in first
    assert "U+31350" in first
    assert UNDRAWN not in first
    assert "U+31350" not in second


def test_a_sorting_list_holds_every_card_of_a_package_once(chains: tuple[Chain, Chain]) -> None:
    """On as few pages as it takes, each package from a page of its own, with its barcode on each;
    holders of a temporary card stand out. Pages are numbered and small."""
    pages = sorting_pages("B1", BRANCH, [package(200, temporary=True), package(3, n=2)])
    assert len(pages) == 4
    shown = [[m.text for m in p.texts] for p in pages]
    for number in range(1, 201):
        assert sum(words.count(f"A{number:08d}") for words in shown[:3]) == 1
    codes = [[m.value for m in p.marks if isinstance(m, Bars)] for p in pages]
    assert codes == [["B1-P0001"]] * 3 + [["B1-P0002"]]
    assert [any("临时卡" in words for words in page) for page in shown] == [True] * 3 + [False]
    result = printed(pages, chains)
    assert [f"第 {n} 页 / 共 4 页" in text for n, text in enumerate(texts(result.pdf), 1)] == [
        True
    ] * 4
    assert len(result.pdf) < 100_000
    assert result == printed(pages, chains)


def test_a_card_without_number_has_a_row_that_says_so(chains: tuple[Chain, Chain]) -> None:
    """Who ticks off temporary cards sees that they are counted, not that print is missing."""
    sheet = PackageSheet("B1-P0001", "临时卡", 2, False, [CardLine(n, "", "", "") for n in (1, 2)])
    (text,) = texts(printed(sorting_pages("B1", "window-430103", [sheet]), chains).pdf)
    assert text.count("仅清点 counted only") == 2


def test_a_packing_list_holds_every_package(chains: tuple[Chain, Chain]) -> None:
    """With its barcode, count and mark; totals and the branch's name in words on each page."""
    packages = [package(10, n=n, temporary=n == 2) for n in range(1, 31)]
    pages = packing_pages("B1", BRANCH, packages)
    codes = [m.value for p in pages for m in p.marks if isinstance(m, Bars)]
    assert codes == [p.package_id for p in packages]
    for text in texts(printed(pages, chains).pdf):
        assert "共 30 包" in text
        assert "300 张" in text
        assert "工商银行长沙市芙蓉区支行" in text


def test_nothing_is_laid_out_beyond_its_page() -> None:
    """Whatever the counts, marks end above the foot and inside the margins."""
    for count in (0, 1, 37, 38, 39, 76, 77, 200):
        pages = sorting_pages("B1", BRANCH, [package(count)])
        pages += packing_pages("B1", "window-430103", [package(count)] * (count or 1))
        for mark in (m for p in pages for m in p.marks):
            if isinstance(mark, Text):
                assert mark.y < 283
            elif isinstance(mark, Box):
                assert mark.x + mark.width <= 198.01
                assert mark.y + mark.height < 283


def test_a_barcode_that_no_scanner_would_read_is_words(chains: tuple[Chain, Chain]) -> None:
    """A package id may be 46 characters long; where its bars would get too thin they are left
    out, visibly."""
    page = Page(marks=[Bars(12, 20, "A-b" * 16, 10, 60), Bars(12, 60, "B1-P0001", 10, 60)])
    (text,) = texts(printed([page], chains).pdf)
    assert text.count("条码放不下") == 1


def test_a_font_that_is_not_there_is_named(tmp_path: Path) -> None:
    """By its file, and for a collection with the families that it has."""
    with pytest.raises(FontUnusable, match="does not exist"):
        check_font(str(tmp_path / "none.ttf"))
    collection = DEBIAN_FONTS.text[0].partition("#")[0]
    with pytest.raises(FontUnusable, match="Noto Sans CJK SC"):
        check_font(f"{collection}#Noto Sans CJK XX")
    (tmp_path / "no.ttf").write_bytes(b"nothing of a font")
    with pytest.raises(FontUnusable):
        check_font(str(tmp_path / "no.ttf"))
