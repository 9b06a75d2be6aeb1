"""Glyphs for printed lists: a chain of fonts, of which a document gets only what it shows.

A name may hold any character of GB 18030, and no single font draws them all. Each character is
taken from the first font of the chain that draws it; what a document needs is put together into
one small TrueType font (the large ones have outlines of two sorts and 20 to 30 MB).
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from fontTools.fontBuilder import FontBuilder
from fontTools.pens.cu2quPen import Cu2QuPen
from fontTools.pens.recordingPen import DecomposingRecordingPen
from fontTools.pens.transformPen import TransformPen
from fontTools.pens.ttGlyphPen import TTGlyphPen
from fontTools.ttLib import TTFont, TTLibError

GETA = "\u3013"
"""Stands where no font of the chain draws a character: printers' mark for a missing type."""

UNITS = 1_000
_CURVE_ERROR = 1.0
"""How far, in thousandths of the type size, a curve may be off after conversion."""


class FontUnusable(Exception):
    """A font of the chain can't be used; the message names its file and says why."""


@dataclass(frozen=True)
class ListFonts:
    """Chains for text and for headings. Each entry is a file, for collections (.ttc) followed by
    `#` and the family name."""

    text: tuple[str, ...]
    heading: tuple[str, ...]


_NOTO = "/usr/share/fonts/opentype/noto/NotoSansCJK-{}.ttc#Noto Sans CJK SC"
_HANAZONO = tuple(f"/usr/share/fonts/truetype/hanazono/HanaMin{part}.ttf" for part in "AB")

DEBIAN_FONTS = ListFonts(
    text=(_NOTO.format("Regular"), *_HANAZONO), heading=(_NOTO.format("Bold"), *_HANAZONO)
)
"""fonts-noto-cjk and fonts-hanazono: all ideographs up to extension F, but not those that came with
Unicode 13 and later (U+4DB6-4DBF, U+9FF0-9FFF, extensions G and H)."""


@dataclass(frozen=True)
class SmallFont:
    """A TrueType font with what was asked for, and what of it no font of the chain draws."""

    data: bytes
    missing: frozenset[str]


def code_point(character: str) -> str:
    """As in `U+20BB7`."""
    return f"U+{ord(character):04X}"


def check_font(entry: str) -> None:
    """Raises FontUnusable if the entry of a chain has no font behind it."""
    _open(entry).close()


def _open(entry: str) -> TTFont:
    file, _, family = entry.partition("#")
    if not Path(file).is_file():
        raise FontUnusable(f"{file} does not exist")
    known: list[str] = []
    while True:
        try:
            font = _numbered(file, len(known))
        except TTLibError as e:
            # Also raised behind the last font of a collection.
            if known:
                raise FontUnusable(f"{file}: has {', '.join(known)}, not {family}") from None
            raise FontUnusable(f"{file}: {e}") from None
        name = font["name"].getDebugName(1)
        if not family or name == family:
            return font
        known.append(name)
        font.close()


def _numbered(file: str, number: int) -> TTFont:
    stream = Path(file).open("rb")  # noqa: SIM115  # lives as long as the font, which closes it
    try:
        return TTFont(stream, fontNumber=number, lazy=True)
    except BaseException:
        stream.close()
        raise


class _Face:
    """One font of a chain, read as far as it is asked."""

    def __init__(self, entry: str) -> None:
        self.font = _open(entry)
        self._names: dict[int, str] = self.font.getBestCmap()
        self._glyphs = self.font.getGlyphSet()
        self._scale = UNITS / self.font["head"].unitsPerEm
        self._cubic = "glyf" not in self.font

    def draw(self, character: str) -> tuple[Any, int] | None:
        """Outline and advance; None if this font has none. An outline without a stroke, which
        some fonts have in place of a character, is none."""
        name = self._names.get(ord(character))
        if name is None or name == ".notdef":
            return None
        record = DecomposingRecordingPen(self._glyphs)
        self._glyphs[name].draw(record)
        if not record.value and not character.isspace():
            return None
        outline = TTGlyphPen(None)
        # Cubic contours turn the other way round than quadratic ones.
        curves = Cu2QuPen(outline, _CURVE_ERROR, reverse_direction=self._cubic)
        record.replay(TransformPen(curves, (self._scale, 0, 0, self._scale, 0, 0)))
        return outline.glyph(), round(self._glyphs[name].width * self._scale)


class Chain:
    """Fonts in the order in which they are asked. The later ones are opened when a character
    needs them. To be used by one thread at a time, and closed (`with`)."""

    def __init__(self, entries: Sequence[str]) -> None:
        self._entries = tuple(entries)
        self._faces: list[_Face] = []
        self._drawn: dict[str, tuple[Any, int] | None] = {}

    def __enter__(self) -> Chain:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        for face in self._faces:
            face.font.close()

    def _draw(self, character: str) -> tuple[Any, int] | None:
        if character not in self._drawn:
            self._drawn[character] = self._first(character)
        return self._drawn[character]

    def _first(self, character: str) -> tuple[Any, int] | None:
        for number, entry in enumerate(self._entries):
            if number == len(self._faces):
                self._faces.append(_Face(entry))
            drawn = self._faces[number].draw(character)
            if drawn is not None:
                return drawn
        return None

    def small_font(self, characters: Iterable[str], family: str) -> SmallFont:
        """One font for all `characters`. The same characters give the same bytes."""
        wanted = sorted({*characters, GETA, " "})
        drawn = {c: glyph for c in wanted if (glyph := self._draw(c)) is not None}
        missing = frozenset(wanted) - drawn.keys()
        if GETA in missing or " " in missing:
            raise FontUnusable(
                f"{self._entries[0]}: draws neither the blank nor {code_point(GETA)}"
            )
        return SmallFont(_build(drawn, family), missing)


def _build(drawn: dict[str, tuple[Any, int]], family: str) -> bytes:
    names = {c: f"u{ord(c):05X}" for c in drawn}
    nothing = TTGlyphPen(None).glyph()
    builder = FontBuilder(UNITS, isTTF=True)
    builder.setupGlyphOrder([".notdef", *names.values()])
    builder.setupCharacterMap({ord(c): name for c, name in names.items()})
    builder.setupGlyf({".notdef": nothing, **{names[c]: glyph for c, (glyph, _) in drawn.items()}})
    table = builder.font["glyf"]
    metrics = {
        names[c]: (width, getattr(table[names[c]], "xMin", 0)) for c, (_, width) in drawn.items()
    }
    builder.setupHorizontalMetrics({".notdef": (UNITS, 0), **metrics})
    builder.setupHorizontalHeader(ascent=880, descent=-120)
    builder.setupNameTable({"familyName": family, "styleName": "Regular", "psName": family})
    builder.setupOS2(sTypoAscender=880, sTypoDescender=-120, sCapHeight=733)
    builder.setupPost(keepGlyphNames=False)
    # Without the time of making, which would make two equal documents differ.
    builder.updateHead(created=0, modified=0)
    builder.font.recalcTimestamp = False
    out = io.BytesIO()
    builder.save(out)
    return out.getvalue()
