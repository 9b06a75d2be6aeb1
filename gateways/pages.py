"""A4 pages out of marks, printed as PDF with only the glyphs that they show.

Lengths in millimetres from the top left corner, sizes of type in points. What is laid out says
nothing about fonts; `to_pdf` gives each page its number, and its foot names what no font draws.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from reportlab.graphics.barcode.code128 import Code128
from reportlab.lib.units import mm
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas

from gateways.fonts import GETA, Chain, SmallFont, code_point

WIDTH, HEIGHT, MARGIN = 210.0, 297.0, 12.0
RIGHT = WIDTH - MARGIN
FOOT = HEIGHT - 14.0
"""Where the foot begins; what is laid out ends above it."""

WIDEST_MODULE, NARROWEST_MODULE = 0.33, 0.19
"""Width of the thinnest bar of a barcode. Below 0.19 mm hand scanners begin to fail."""
QUIET = 10
"""Modules of white on each side of a Code 128 symbol (ISO/IEC 15417, 4.4)."""

Align = Literal["left", "centre", "right"]


@dataclass(frozen=True)
class Text:
    """`y` is the base line. Type is made smaller, or narrower in the end, to fit `width`."""

    x: float
    y: float
    text: str
    size: float = 9.0
    heading: bool = False
    align: Align = "left"
    width: float = RIGHT - MARGIN
    grey: float = 0.0


@dataclass(frozen=True)
class Box:
    """A rectangle: `fill` from 0 (black) to 1 (white), None for a frame of thickness `line`."""

    x: float
    y: float
    width: float
    height: float
    fill: float | None = None
    line: float = 0.25


@dataclass(frozen=True)
class Bars:
    """A Code 128 barcode that starts at `x` and takes at most `width`, without text. If it does
    not fit, words in its place say so."""

    x: float
    y: float
    value: str
    height: float
    width: float


Mark = Text | Box | Bars


@dataclass
class Page:
    """`note` stands in the middle of the foot."""

    note: str = ""
    marks: list[Mark] = field(default_factory=list)

    @property
    def texts(self) -> Iterable[Text]:
        return (m for m in self.marks if isinstance(m, Text))


@dataclass(frozen=True)
class Printed:
    """A PDF, and the code points (`U+…`) in whose place it shows U+3013."""

    pdf: bytes
    missing: tuple[str, ...]


class _UnicodeFont(TTFont):  # type: ignore[misc]  # reportlab has no types
    """Tells a reader of the PDF which character a glyph is, also outside the basic plane: there
    the map holds UTF-16 (ISO 32000-1, 9.10.3), where reportlab writes five hex digits."""

    def addObjects(self, doc: Any) -> None:
        super().addObjects(doc)
        for name, thing in doc.idToObject.items():
            if name.startswith("toUnicodeCMap:"):
                thing.content = re.sub(r"<([0-9A-F]{5,6})>", _surrogates, thing.content)


def _surrogates(found: re.Match[str]) -> str:
    return f"<{chr(int(found[1], 16)).encode('utf-16-be').hex().upper()}>"


_TOO_LONG = "条码放不下 too long for a barcode"
_OWN_WORDS = _TOO_LONG + "第页/共字库缺字 no font draws：、0123456789ABCDEFU+"
_FAMILY = "CentreText", "CentreHeading"


def to_pdf(title: str, pages: Sequence[Page], text: Chain, heading: Chain) -> Printed:
    """Print `pages`. The same pages and fonts give the same bytes."""
    shown: tuple[set[str], set[str]] = (set(_OWN_WORDS), set())
    for page in pages:
        shown[0].update(page.note)
        for t in page.texts:
            shown[t.heading].update(t.text)
    small = (
        text.small_font(shown[False], _FAMILY[False]),
        heading.small_font(shown[True], _FAMILY[True]),
    )
    out = io.BytesIO()
    canvas = Canvas(out, pagesize=(WIDTH * mm, HEIGHT * mm), invariant=1, pageCompression=1)
    canvas.setTitle(title)
    printer = _Printer(canvas, small)
    for number, page in enumerate(pages, start=1):
        printer.print(page, f"第 {number} 页 / 共 {len(pages)} 页")
    canvas.save()
    return Printed(out.getvalue(), tuple(sorted(printer.missing)))


class _Printer:
    def __init__(self, canvas: Any, small: tuple[SmallFont, SmallFont]) -> None:
        self._canvas = canvas
        self._small = small
        # Made for this document only: reportlab's register of fonts is the whole process's.
        self._fonts = [
            _UnicodeFont(name, io.BytesIO(font.data))
            for name, font in zip(_FAMILY, small, strict=True)
        ]
        self.missing: set[str] = set()

    def print(self, page: Page, number: str) -> None:
        for mark in page.marks:
            if isinstance(mark, Box):
                self._box(mark)
            elif isinstance(mark, Bars):
                self._bars(mark)
            else:
                self._text(mark)
        lacking = sorted({code_point(c) for t in page.texts for c in self._lacking(t)})
        self.missing.update(lacking)
        self._foot(page.note, number, lacking)
        self._canvas.showPage()

    def _foot(self, note: str, number: str, lacking: Sequence[str]) -> None:
        self._box(Box(MARGIN, FOOT, RIGHT - MARGIN, 0.2, fill=0.6))
        self._text(Text(MARGIN, FOOT + 5, note, 8, width=130, grey=0.35))
        self._text(Text(RIGHT, FOOT + 5, number, 8, align="right", width=50))
        if lacking:
            words = f"{GETA} 字库缺字 no font draws： {'、'.join(lacking)}"
            self._text(Text(MARGIN, FOOT + 9.5, words, 8))

    def _lacking(self, mark: Text) -> frozenset[str]:
        missing = self._small[mark.heading].missing
        return missing.intersection(mark.text) if missing else missing

    def _text(self, mark: Text) -> None:
        shown = mark.text
        for character in self._lacking(mark):
            shown = shown.replace(character, GETA)
        font = self._fonts[mark.heading]
        size, limit = mark.size, mark.width * mm
        width = font.stringWidth(shown, size)
        squeeze = 100.0
        if width > limit:
            size = max(mark.size * limit / width, mark.size * 0.7)
            width = font.stringWidth(shown, size)
            squeeze = min(100.0, 100.0 * limit / width)
        back = {"left": 0.0, "centre": 0.5, "right": 1.0}[mark.align] * width * squeeze / 100
        x, y = mark.x * mm - back, self._up(mark.y)
        # The canvas knows fonts only by reportlab's register, which is the whole process's: these
        # belong to one document, so their operators are written here (ISO 32000-1, 9.4).
        document = self._canvas._doc
        words = [f"BT {mark.grey:.2f} g {squeeze:.1f} Tz 1 0 0 1 {x:.2f} {y:.2f} Tm"]
        for subset, codes in font.splitString(shown, document):
            name = font.getSubsetInternalName(subset, document)
            words.append(f"{name} {size:.2f} Tf <{codes.hex()}> Tj")
        self._canvas.addLiteral(" ".join([*words, "ET"]))

    def _box(self, box: Box) -> None:
        c = self._canvas
        at = (box.x * mm, self._up(box.y + box.height), box.width * mm, box.height * mm)
        if box.fill is None:
            c.setLineWidth(box.line * mm)
            c.rect(*at, stroke=1, fill=0)
        else:
            c.setFillGray(box.fill)
            c.rect(*at, stroke=0, fill=1)

    def _bars(self, bars: Bars) -> None:
        modules = Code128(bars.value, barWidth=1, quiet=0).width + 2 * QUIET
        module = min(WIDEST_MODULE, bars.width / modules)
        if module < NARROWEST_MODULE:
            # A symbol that no scanner reads would only look like one.
            self._text(Text(bars.x, bars.y + bars.height / 2, _TOO_LONG, 8, width=bars.width))
            return
        code = Code128(bars.value, barWidth=module * mm, barHeight=bars.height * mm, quiet=0)
        self._canvas.setFillGray(0)
        code.drawOn(self._canvas, (bars.x + QUIET * module) * mm, self._up(bars.y + bars.height))

    def _up(self, y: float) -> float:
        """`y` as PDF counts: points from the lower edge."""
        return float((HEIGHT - y) * mm)
