"""What `centre watch` knows: the floor as it is now, and what stands still and why.

Bodies come from the ledger, the states of parts from the supervisor, stations and queues from the
running centre's doors. Nothing is remembered between two frames.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import grpc

from centre.config import Config
from centre.running import state_of
from centre.wiring import now as time_now
from domain.codes import Code
from domain.places import Line
from ledger.history import LINES, batch_overview
from ledger.keeping import Kept, overdue
from ledger.leases import Doubts, doubts
from ledger.lots import Lot, LotState, lots_of
from ledger.progress import (
    Progress,
    Unscanned,
    open_batches,
    open_outbox,
    progress_of_lines,
    unscanned_packages,
)
from ledger.queries import Queries
from ledger.returns import interim_lines
from ledger.summary import seconds_between
from scheduler.clocks import CHINA
from stubs.operator_pb2 import FloorState, LookAtFloorRequest, ReaderState
from stubs.operator_pb2_grpc import OperatorStub

ASK_SECONDS = 2.0

# What is shorter than these is the ordinary wait of a turn, a card or a commit.
WAITS_SECONDS = 3.0
QUIET_SECONDS = 20.0
LEAVES_SECONDS = 10.0
IDLE_SECONDS = 30.0
SCAN_SECONDS = 60.0


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
    unscanned: Sequence[Unscanned] = ()
    interim: Sequence[Mapping[str, Any]] = ()
    """Lines of returns that are open (`ledger.returns.interim_lines`)."""
    overdue: Sequence[Kept] = ()
    """Batches whose personal data should be gone."""
    doubts: Doubts | None = None
    """Cards that may have been written and were not seen since."""


def look(config: Config, queries: Queries) -> Frame:
    """The floor as it is now."""
    at, state = time_now(), state_of(config.home)
    waits = {
        b: list(batch_overview(queries, b).get("waits_for", [])) for b in open_batches(queries)
    }
    interim = interim_lines(queries)
    return Frame(
        config.home,
        at,
        state,
        ask_floor(state["listen"]) if state else None,
        progress_of_lines(queries, at),
        open_outbox(queries),
        waits,
        [
            lot
            for b in sorted({*waits, *(r["batch_id"] for r in interim)})
            for lot in lots_of(queries, b)
            if lot.state is LotState.REFUSED
        ],
        unscanned_packages(queries),
        interim,
        overdue(queries, datetime.now(CHINA).date()),
        doubts(queries),
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
    waits is left without a line: what has no code of its own is LINE_IDLE or READER_QUIET. Of a
    centre that is not up only what it would not mend by coming up."""
    if frame.state is None:
        return [*_doubts(frame), *_lots(frame), *_overdue(frame)]
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
    found += [*_doubts(frame), *_lots(frame), *_packages(frame), *_outbox(frame, floor)]
    found += _overdue(frame)
    return found


def _doubts(frame: Frame) -> Iterator[Standing]:
    if frame.doubts is not None:
        d = frame.doubts
        note = f"{d.cards} 张 cards, 最久 oldest {d.oldest}"
        where = "存疑的卡 cards in doubt"
        yield Standing(where, Code.IN_DOUBT, since(d.since, frame.at), note)


def _lots(frame: Frame) -> Iterator[Standing]:
    for lot in frame.lots:
        where, note = f"抽检批 lot {lot.lot_id}", f"{lot.size} 张 cards"
        yield Standing(where, Code.LOT_REFUSED, -1.0, note)


def open_lines(frame: Frame) -> list[tuple[Code, int]]:
    """What the returns that are out still owe, in lines by reason. They wait for somebody outside
    and nothing here stands still for them. (Refused lots and cards in doubt
    wait for people here.)"""
    owed: Counter[Code] = Counter()
    for row in frame.interim:
        owed[Code(row["reason"])] += row["lines"]
    del owed[Code.LOT_REFUSED], owed[Code.IN_DOUBT]
    return sorted(owed.items(), key=lambda item: (-item[1], item[0]))


def _overdue(frame: Frame) -> Iterator[Standing]:
    for kept in frame.overdue:
        note = f"{kept.orders} 单 orders, {kept.expires_on}"
        if kept.open is not None:
            code = Code.PERSONAL_DATA_OVERDUE
            yield Standing(f"批次 batch {kept.batch_id}", code, -1.0, note)


def _packages(frame: Frame) -> Iterator[Standing]:
    for u in frame.unscanned:
        seconds = since(u.at, frame.at)
        if not 0 <= seconds < SCAN_SECONDS:
            note = f"{u.packages} 包 packages: {u.first}" + (" …" if u.packages > 1 else "")
            yield Standing(f"批次 batch {u.batch_id}", Code.PACKAGE_UNSCANNED, seconds, note)


def _parts(frame: Frame) -> Iterator[Standing]:
    for name, health in (frame.state or {}).get("actors", {}).items():
        if health["state"] != "ready":
            seconds = since(health.get("since", ""), frame.at)
            code = health.get("code", Code.LINE_AWAY)
            yield Standing(f"部件 {name}", code, seconds, str(health.get("note", "")))
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
            elif not r.code and quiet(r):
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
        idle = since(p.last_at, frame.at)
        # The vault waits for a return or a count: the batch says so.
        if not cards or p.line == Line.INVENTORY or 0 <= idle < IDLE_SECONDS:
            continue
        note = f"{cards} 张 cards"
        if p.line in stages and not served:
            yield Standing(line_name(p.line), Code.STATION_MISSING, idle, note)
        elif not explained:
            yield Standing(line_name(p.line), Code.LINE_IDLE, idle, note)


def _outbox(frame: Frame, floor: FloorState) -> Iterator[Standing]:
    tried = {row.id: row.code for row in floor.outbox}
    for row in frame.outbox:
        seconds = since(row["at"], frame.at)
        if not 0 <= seconds < LEAVES_SECONDS:
            code = tried.get(row["id"], Code.UNAVAILABLE)
            yield Standing(f"发件 outbox {row['id']}", code, seconds)


def quiet(reader: ReaderState) -> bool:
    """Whether a reader says nothing though nothing keeps it waiting."""
    return reader.seconds_since_turn > QUIET_SECONDS


def since(at: str, now: str) -> float:
    """Seconds from `at` to `now`, negative if there is no `at`. What was written while the frame
    was being taken is of now."""
    return max(0.0, seconds_between(at, now)) if at else -1.0


def line_name(line: str) -> str:
    """A line for people."""
    chinese, english = LINES.get(line, (line, line))
    return f"{chinese} {english}"
