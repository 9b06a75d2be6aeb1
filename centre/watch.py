"""`centre watch`: the floor live, and above all what stands still and why.

Bodies come from the ledger, the states of parts from the supervisor, stations and queues from the
running centre's doors. Nothing is remembered between two frames.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table

from centre.config import Config
from centre.running import state_of
from centre.wiring import now as time_now
from domain.codes import WORDS, Code, next_step
from domain.places import Line
from ledger.history import LINES, batch_overview
from ledger.lots import Lot, LotState, lots_of
from ledger.progress import Progress, open_batches, open_outbox, progress_of_lines
from ledger.queries import Queries
from ledger.summary import seconds_between
from stubs.operator_pb2 import FloorState, LookAtFloorRequest, ReaderState, StationState
from stubs.operator_pb2_grpc import OperatorStub

FRAME_SECONDS = 1.0
ASK_SECONDS = 2.0
READERS_SHOWN = 24
"""More readers than this are shown as one line a station."""

# What is shorter than these is the ordinary wait of a turn, a card or a commit.
WAITS_SECONDS = 3.0
QUIET_SECONDS = 20.0
LEAVES_SECONDS = 10.0
IDLE_SECONDS = 30.0


@dataclass(frozen=True)
class Standing:
    """Something that stands still: where, why (a code), for how long (seconds; negative: not
    known), and words beside the code's own."""

    where: str
    code: str
    seconds: float
    note: str = ""


@dataclass(frozen=True)
class Frame:
    """All that one frame shows. `floor` is None when the doors do not answer."""

    home: Path
    at: str
    state: dict[str, Any] | None
    floor: FloorState | None
    lines: Sequence[Progress]
    outbox: Sequence[Any]
    waits: dict[str, list[str]]
    """By open batch, in words."""
    lots: Sequence[Lot] = ()
    """Inspection lots that were refused and wait for people."""


def look(config: Config, queries: Queries) -> Frame:
    """The floor as it is now."""
    at, state = time_now(), state_of(config.home)
    waits = {
        b: list(batch_overview(queries, b).get("waits_for", [])) for b in open_batches(queries)
    }
    return Frame(
        config.home,
        at,
        state,
        ask_floor(state["listen"]) if state else None,
        progress_of_lines(queries, at),
        open_outbox(queries),
        waits,
        [lot for b in waits for lot in lots_of(queries, b) if lot.state is LotState.REFUSED],
    )


def ask_floor(listen: str) -> FloorState | None:
    """What the doors see; None if they do not answer."""
    with grpc.insecure_channel(listen) as channel:
        try:
            state: FloorState = OperatorStub(channel).LookAtFloor(
                LookAtFloorRequest(), timeout=ASK_SECONDS
            )
        except grpc.RpcError:
            return None
    return state


def stands_still(frame: Frame) -> list[Standing]:
    """Everything that does not go on, with its reason, what concerns most first. Nothing that
    waits is left without a line: what has no code of its own is LINE_IDLE or READER_QUIET."""
    if frame.state is None:
        return []
    floor = frame.floor or FloorState()
    busy = {p.line: p.waiting + p.in_work for p in frame.lines}
    # Cards at sorting wait for the rest of their batch; at the stations' stages, for a reader.
    stages = {q.stage for q in floor.queues}
    to_read = any(busy[stage] for stage in stages if stage in busy)
    found = [*_parts(frame), *_stations(floor, to_read=to_read)]
    found += [
        Standing(f"队列 queue {q.stage}", Code.BUSY, -1.0) for q in floor.queues
        if q.turns >= q.limit
    ]  # fmt: skip
    found += _idle_lines(frame, stages, _stages_served(floor), explained=bool(found))
    found += [
        Standing(f"抽检批 lot {lot.lot_id}", Code.LOT_REFUSED, -1.0, f"{lot.size} 张 cards")
        for lot in frame.lots
    ]
    found += _outbox(frame, floor)
    return found


def _parts(frame: Frame) -> Iterator[Standing]:
    for name, health in (frame.state or {}).get("actors", {}).items():
        if health["state"] != "ready":
            seconds = _since(health.get("since", ""), frame.at)
            yield Standing(f"部件 {name}", Code.LINE_AWAY, seconds, str(health.get("note", "")))
    if frame.floor is None:
        yield Standing("接口 doors", Code.UNAVAILABLE, -1.0)


def _stations(floor: FloorState, *, to_read: bool) -> Iterator[Standing]:
    for station in floor.stations:
        if station.seconds_away > WAITS_SECONDS:
            where = f"工位 {station.station_id}"
            yield Standing(where, Code.STATION_AWAY, station.seconds_away)
            continue
        for r in station.readers:
            where = f"{station.station_id} {r.reader}"
            note = f"箱 {r.carton_id}" if r.carton_id else ""
            if r.code == Code.FEEDER_EMPTY and not to_read:
                continue
            if r.code and r.seconds_waiting > WAITS_SECONDS:
                yield Standing(where, r.code, r.seconds_waiting, note)
            elif not r.code and _quiet(r):
                yield Standing(where, Code.READER_QUIET, r.seconds_since_turn, note)


def _stages_served(floor: FloorState) -> set[str]:
    """Stages at which some connected reader had its last turn; all, while one had none yet."""
    here = [r for s in floor.stations if not s.seconds_away for r in s.readers]
    if any(not r.stage for r in here):
        return {q.stage for q in floor.queues}
    return {r.stage for r in here}


def _idle_lines(
    frame: Frame, stages: Iterable[str], served: set[str], *, explained: bool
) -> Iterator[Standing]:
    for p in frame.lines:
        cards = p.waiting + (p.in_work if p.line in stages else 0)
        idle = _since(p.last_at, frame.at)
        # The vault waits for a return or a count: the batch says so.
        if not cards or p.line == Line.INVENTORY or 0 <= idle < IDLE_SECONDS:
            continue
        note = f"{cards} 张 cards"
        if p.line in stages and not served:
            yield Standing(_name(p.line), Code.STATION_MISSING, idle, note)
        elif not explained:
            yield Standing(_name(p.line), Code.LINE_IDLE, idle, note)


def _outbox(frame: Frame, floor: FloorState) -> Iterator[Standing]:
    tried = {row.id: row.code for row in floor.outbox}
    for row in frame.outbox:
        seconds = _since(row["at"], frame.at)
        if not 0 <= seconds < LEAVES_SECONDS:
            code = tried.get(row["id"], Code.UNAVAILABLE)
            yield Standing(f"发件 outbox {row['id']}", code, seconds)


def _since(at: str, now: str) -> float:
    """Seconds from `at` to `now`, negative if there is no `at`. What was written while the frame
    was being taken is of now."""
    return max(0.0, seconds_between(at, now)) if at else -1.0


def _name(line: str) -> str:
    chinese, english = LINES.get(line, (line, line))
    return f"{chinese} {english}"


# What is shown.


def _span(seconds: float) -> str:
    """A time that has passed, in the largest unit that says enough."""
    if seconds < 0:
        return "-"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7_200 else f"{seconds / 3600:.0f} h"


def render(frame: Frame) -> RenderableType:
    """One frame."""
    parts: list[RenderableType] = [_headline(frame), _lines_table(frame)]
    if frame.floor is not None:
        parts.append(_stations_table(frame.floor))
    parts += [f"批次 batch {b}: 等待 waits: {'; '.join(w) or '-'}" for b, w in frame.waits.items()]
    found = stands_still(frame)
    if found:
        parts.append(_standing_table(found))
    elif frame.state is not None:
        parts.append("无停滞 nothing stands still")
    return Group(*parts)


def _headline(frame: Frame) -> str:
    if frame.state is None:
        return f"{frame.at}  未启动 the centre is not up: centre up --home {frame.home}"
    ready = sum(h["state"] == "ready" for h in frame.state["actors"].values())
    return (
        f"{frame.at}  {frame.state['listen']}  "
        f"部件就绪 parts ready {ready}/{len(frame.state['actors'])}"
    )


def _lines_table(frame: Frame) -> Table:
    table = Table(title="生产线 lines", title_justify="left")
    table.add_column("线 line")
    for name in ("待做 waiting", "在制 in work", "张/分 a minute", "废卡 rejected", "暂扣 held",
                 "排队 turns queued", "上次记账 last commit"):  # fmt: skip
        table.add_column(name, justify="right")
    queued = {q.stage: str(q.turns) for q in frame.floor.queues} if frame.floor else {}
    for p in frame.lines:
        since = _since(p.last_at, frame.at)
        table.add_row(
            _name(p.line), str(p.waiting), str(p.in_work), f"{p.per_minute:.0f}",
            str(p.rejected), str(p.held), queued.get(p.line, ""), _span(since),
        )  # fmt: skip
    return table


def _stations_table(floor: FloorState) -> Table:
    many = sum(len(s.readers) for s in floor.stations) > READERS_SHOWN
    table = Table(title="工位 stations", title_justify="left")
    for name in ("工位 station", "读卡器 reader", "工序 stage", "箱 carton", "卡 cards",
                 "上次 last turn", "状态 state"):  # fmt: skip
        table.add_column(name, justify="right" if name[0] in "卡上" else "left")
    for station in sorted(floor.stations, key=lambda s: s.station_id):
        for row in [_station_row(station)] if many else _reader_rows(station):
            table.add_row(station.station_id, *row)
    if not floor.stations:
        table.add_row("无工位 none", "", "", "", "", "", "")
    return table


def _reader_rows(station: StationState) -> Iterator[tuple[str, ...]]:
    for r in station.readers:
        code = Code.STATION_AWAY if station.seconds_away else r.code
        yield (
            r.reader, r.stage, r.carton_id, str(r.cards), _span(r.seconds_since_turn),
            _short(code or _quiet(r)) or "工作 working",
        )  # fmt: skip


def _quiet(reader: ReaderState) -> str:
    return Code.READER_QUIET if reader.seconds_since_turn > QUIET_SECONDS else ""


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
        _span(last),
        ", ".join(_short(c) for c in codes) or "工作 working",
    )


def _standing_table(found: Sequence[Standing]) -> Table:
    table = Table(title="停滞 what stands still", title_justify="left", title_style="bold red")
    for name in ("何处 where", "原因 why", "已 for", "下一步 next step"):
        table.add_column(name)
    for s in found:
        words = " · ".join(w for w in (_short(s.code), s.note) if w)
        table.add_row(s.where, words, _span(s.seconds), next_step(s.code))
    return table


def _short(code: str) -> str:
    """A code in a cell: Chinese, and the code itself."""
    return f"{WORDS[Code(code)].chinese} {code}" if code in Code.__members__ else code


def watch(config: Config, queries: Queries) -> None:
    """Frames, once a second, until Ctrl-C."""
    with Live(screen=True, auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            live.update(render(look(config, queries)), refresh=True)
            time.sleep(FRAME_SECONDS)


def once(config: Config, queries: Queries, console: Console) -> bool:
    """One frame; whether the centre is up."""
    frame = look(config, queries)
    console.print(render(frame), highlight=False, markup=False)
    return frame.state is not None
