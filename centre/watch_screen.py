"""`centre watch`: the floor live, and above all what stands still and why.

That comes first, and all fits the terminal: what has no room is counted, not cut off.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table

from centre.config import Config
from centre.watch import (
    Frame,
    Standing,
    line_name,
    look,
    open_lines,
    quiet,
    since,
    stands_still,
)
from domain.codes import Code
from domain.words import WORDS, next_step
from ledger.queries import Queries
from stubs.operator_pb2 import FloorState, ReaderState, StationState

FRAME_SECONDS = 1.0
READERS_SHOWN = 24
"""More readers than this are shown as one line a station."""
WIDE = 120
"""Columns of a terminal that has room for all columns of the tables."""
LEAST_LINES = 4
"""Of a part with rows: title, heads, a row, how many are left out."""


class Column(NamedTuple):
    """A column of a table. `wide`: only of a wide terminal."""

    head: str
    right: bool = False
    wide: bool = False


STANDING = (
    Column("何处 where"), Column("原因 why"), Column("已 for"), Column("下一步 next step"),
)  # fmt: skip
LINES = (
    Column("线 line"), Column("待做 waiting", right=True), Column("在制 in work", right=True),
    Column("张/分 /min", right=True), Column("废卡 rejected", right=True, wide=True),
    Column("暂扣 held", right=True), Column("排队 turns queued", right=True, wide=True),
    Column("上次 last", right=True), Column("机器 machine", wide=True),
)  # fmt: skip
STATIONS = (
    Column("工位 station"), Column("读卡器 reader"), Column("工序 stage", wide=True),
    Column("箱 carton"), Column("卡 cards", right=True, wide=True),
    Column("秒/卡 s p50/p95", right=True, wide=True), Column("故障 faults", right=True, wide=True),
    Column("上次 last", right=True), Column("状态 state"),
)  # fmt: skip
WORKING = "工作 working"


class Page:
    """Parts one under another, on so many lines (None: as many as they take)."""

    def __init__(self, console: Console, lines: int | None) -> None:
        self._console, self._room = console, lines
        self._parts: list[RenderableType] = []

    def add(self, part: RenderableType) -> None:
        self._parts.append(part)
        if self._room is not None:
            self._room -= self._lines(part)

    def add_rows(
        self, title: str, make: Callable[[Sequence[Any]], RenderableType], rows: Sequence[Any],
        keep: int = 0,
    ) -> None:  # fmt: skip
        """As many of `rows` as leave `keep` lines free; the others are counted."""
        if self._room is None:
            self.add(make(rows))
        elif self._room > 0:
            self.add(self._fitting(title, make, rows, self._room - keep))

    def _fitting(
        self, title: str, make: Callable[[Sequence[Any]], RenderableType], rows: Sequence[Any],
        room: int,
    ) -> RenderableType:  # fmt: skip
        for shown in range(min(len(rows), max(room, 0)), 0, -1):
            more = len(rows) - shown
            left_out = [f"  另有 {more} 项未显示 more not shown"] if more else []
            part = Group(make(rows[:shown]), *left_out)
            if self._lines(part) <= room:
                return part
        return f"{title}: {len(rows)} 项未显示 not shown"

    def _lines(self, part: RenderableType) -> int:
        options = self._console.options.update(markup=False, highlight=False)
        return len(self._console.render_lines(part, options, pad=False))

    def whole(self) -> RenderableType:
        return Group(*self._parts)


def render(frame: Frame, console: Console, lines: int | None = None) -> RenderableType:
    """One frame, as wide as the console, on no more than so many lines if they are given."""
    wide = console.width >= WIDE
    page = Page(console, lines)
    page.add(_headline(frame))
    found = stands_still(frame)
    below = LEAST_LINES + len(frame.lines) + 2
    if found:
        title = f"停滞 what stands still: {len(found)}"
        rows = [_standing_row(s) for s in found]
        page.add_rows(title, lambda r: _table(title, STANDING, r, wide, "bold red"), rows, below)
    elif frame.state is not None:
        page.add("无停滞 nothing stands still")
    title_lines, title_stations = "生产线 lines", "工位 stations"
    page.add_rows(
        title_lines, lambda r: _table(title_lines, LINES, r, wide), list(_line_rows(frame))
    )
    waits = [f"批次 batch {b}: 等待 waits: {'; '.join(w) or '-'}" for b, w in frame.waits.items()]
    if waits:
        keep = LEAST_LINES if frame.floor else 0
        page.add_rows("批次 batches", lambda r: Group(*r), waits, keep)
    owed = open_lines(frame)
    if owed:
        said = ", ".join(f"{WORDS[code].chinese} {code} {lines}" for code, lines in owed)
        page.add(f"回盘未定的行 open lines of returns: {said}")
    if frame.floor is not None:
        page.add_rows(
            title_stations,
            lambda r: _table(title_stations, STATIONS, r, wide),
            _station_rows(frame.floor),
        )
    return page.whole()


def _table(
    title: str, columns: Sequence[Column], rows: Sequence[Sequence[str]], wide: bool,
    style: str = "italic",
) -> Table:  # fmt: skip
    table = Table(
        title=title, title_justify="left", title_style=style, box=None, pad_edge=False,
        padding=(0, 2 if wide else 1, 0, 0),
    )  # fmt: skip
    at = [n for n, column in enumerate(columns) if wide or not column.wide]
    for column in (columns[n] for n in at):
        table.add_column(column.head, justify="right" if column.right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(row[n] for n in at))
    return table


def _headline(frame: Frame) -> str:
    if frame.state is None:
        return f"{frame.at}  未启动 the centre is not up: centre up --home {frame.home}"
    ready = sum(h["state"] == "ready" for h in frame.state["actors"].values())
    return (
        f"{frame.at}  {frame.state['listen']}  "
        f"部件就绪 parts ready {ready}/{len(frame.state['actors'])}"
    )


def _standing_row(s: Standing) -> tuple[str, ...]:
    words = " · ".join(w for w in (_short(s.code), s.note) if w)
    return s.where, words, _span(s.seconds), next_step(s.code)


def _line_rows(frame: Frame) -> Iterator[tuple[str, ...]]:
    parts = (frame.state or {}).get("actors", {})
    queued = {q.stage: str(q.turns) for q in frame.floor.queues} if frame.floor else {}
    for p in frame.lines:
        yield (
            line_name(p.line), str(p.waiting), str(p.in_work), f"{p.per_minute:.0f}",
            str(p.rejected), str(p.held), queued.get(p.line, ""), _span(since(p.last_at, frame.at)),
            parts.get(p.line, {}).get("machine", ""),
        )  # fmt: skip


def _station_rows(floor: FloorState) -> list[tuple[str, ...]]:
    """What does not work comes first."""
    many = sum(len(s.readers) for s in floor.stations) > READERS_SHOWN
    rows = [
        (station.station_id, *row)
        for station in sorted(floor.stations, key=lambda s: s.station_id)
        for row in ([_station_row(station)] if many else _reader_rows(station))
    ]
    rows.sort(key=lambda row: row[-1] == WORKING)
    return rows or [("无工位 none", *[""] * (len(STATIONS) - 1))]


def _reader_rows(station: StationState) -> Iterator[tuple[str, ...]]:
    for r in station.readers:
        code = Code.STATION_AWAY if station.seconds_away else r.code
        code = code or (Code.READER_QUIET if quiet(r) else "")
        yield (
            r.reader, r.stage, r.carton_id, str(r.cards), *_counted([r]),
            _span(r.seconds_since_turn), _short(code) or WORKING,
        )  # fmt: skip


def _counted(readers: Sequence[ReaderState]) -> tuple[str, str]:
    """Seconds a card, and faults, of one reader or of the slowest of several and all together."""
    counted = [r.statistics for r in readers]
    p50 = max((s.seconds_p50 for s in counted), default=0.0)
    p95 = max((s.seconds_p95 for s in counted), default=0.0)
    faults = sum(s.power_on_failures + s.broken for s in counted)
    return f"{p50:.1f}/{p95:.1f}" if p95 else "", str(faults or "")


def _station_row(station: StationState) -> tuple[str, ...]:
    working = sum(not r.code for r in station.readers)
    codes = sorted({r.code for r in station.readers} - {""})
    if station.seconds_away:
        codes = [Code.STATION_AWAY]
    last = min((r.seconds_since_turn for r in station.readers), default=-1.0)
    return (
        f"{working}/{len(station.readers)}",
        " ".join(sorted({r.stage for r in station.readers} - {""})),
        "",
        str(sum(r.cards for r in station.readers)),
        *_counted(station.readers),
        _span(last),
        ", ".join(_short(c) for c in codes) or WORKING,
    )


def _span(seconds: float) -> str:
    """A time that has passed, in the largest unit that says enough."""
    if seconds < 0:
        return "-"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7_200 else f"{seconds / 3600:.0f} h"


def _short(code: str) -> str:
    """A code in a cell: Chinese, and the code itself."""
    return f"{WORDS[Code(code)].chinese} {code}" if code in Code.__members__ else code


def watch(config: Config, queries: Queries) -> None:
    """Frames, once a second, until Ctrl-C."""
    console = Console(markup=False, highlight=False)
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            shown = render(look(config, queries), console, console.height)
            live.update(shown, refresh=True)
            time.sleep(FRAME_SECONDS)


def once(config: Config, queries: Queries, console: Console) -> bool:
    """One frame, whole; whether the centre is up."""
    frame = look(config, queries)
    console.print(render(frame, console), highlight=False, markup=False)
    return frame.state is not None
