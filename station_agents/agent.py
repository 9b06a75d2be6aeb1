"""The station agent: `python -m station_agents --station ID --door HOST:PORT ...`.

One thread and one PC/SC context a reader, since a PC/SC call blocks and may hang; one stream to the
centre for all of them, in the main thread's event loop, which also notices readers that hang.
SIGTERM or SIGINT: the segments in hand are finished, their answers
sent, the chips stay where they lie, exit 0.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import re
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event, Thread
from typing import Final, TextIO

import structlog
from structlog.typing import EventDict

from station_agents import metrics
from station_agents.door import Door
from station_agents.feeder import TrayFeeder
from station_agents.journal import Journal
from station_agents.pcsc import service_socket
from station_agents.quarantine import Quarantine, Rule
from station_agents.reader import Patience, Reader
from station_agents.session import Session, Station, nothing
from telemetry.endpoint import open_endpoint, withdraw

STAGES: Final = ("key_replacement", "inspection", "sampling")
# For a segment in hand: 20 commands of a slow chip.
_FINISH_SECONDS: Final = 20.0
_SEND_SECONDS: Final = 2.0
_HANG_SECONDS: Final = 30.0
_COUNT_SECONDS: Final = 5.0

log = structlog.get_logger()


def _reader(text: str) -> tuple[str, int]:
    name, equals, number = text.rpartition("=")
    if not equals or not name or not re.fullmatch(r"[0-9]{1,3}", number):
        raise argparse.ArgumentTypeError('"READER NAME=INDEX IN THE TRAY" is wanted')
    return name, int(number)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 86_400:
        raise argparse.ArgumentTypeError("seconds are wanted, more than 0")
    return seconds


def _part(text: str) -> tuple[int, int]:
    if not re.fullmatch(r"[0-9]{1,4}/[0-9]{1,4}", text):
        raise argparse.ArgumentTypeError("N/M is wanted, as in 6/20")
    some, of = map(int, text.split("/"))
    if some > of or not of:
        raise argparse.ArgumentTypeError("N/M with N up to M is wanted")
    return some, of


def _door(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not re.fullmatch(r"[0-9]{1,5}", port):
        raise argparse.ArgumentTypeError("HOST:PORT is wanted")
    return text


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m station_agents",
        description="工位代理 (the program beside a station's machines)",
        epilog="PCSCLITE_CSOCK_NAME names the socket of the PC/SC service, if it is not the "
        "machine's own. Example: --station S1 --door 127.0.0.1:7001 --control /run/tray.sock "
        '--readers "R00 00 00=0" "R01 00 00=1" --journal S1.jsonl',
    )
    parser.add_argument("--station", required=True, metavar="ID", help="工位编号")
    parser.add_argument("--door", required=True, type=_door, metavar="HOST:PORT", help="中心地址")
    parser.add_argument("--control", required=True, type=Path, metavar="SOCKET",
                        help="送卡机控制套接字 (the feeder's control socket)")  # fmt: skip
    parser.add_argument("--readers", required=True, nargs="+", type=_reader, metavar="NAME=INDEX",
                        help="读卡器及其在送卡机中的序号")  # fmt: skip
    parser.add_argument("--journal", required=True, type=Path, metavar="FILE", help="本地日志")
    parser.add_argument("--stages", nargs="+", default=list(STAGES), metavar="STAGE", help="工序")
    parser.add_argument("--log-file", type=Path, metavar="FILE", help="默认 stderr")
    parser.add_argument("--log-format", choices=("json", "people"), default="json", help="日志格式")
    parser.add_argument("--metrics", type=Path, metavar="DIR",
                        help="监控目标目录 (HOME/prometheus/targets of the centre)")  # fmt: skip
    parser.add_argument("--card-seconds", type=_seconds, default=Patience.seconds, metavar="S",
                        help="等待卡片上电 (until a card shows itself; %(default)s)")  # fmt: skip
    parser.add_argument("--hang-seconds", type=_seconds, default=_HANG_SECONDS, metavar="S",
                        help="无应答多久即隔离 (hangs so long; %(default)s)")  # fmt: skip
    parser.add_argument("--quarantine-silent", type=int, default=Rule.silent, metavar="N",
                        help="隔离：连续无应答芯片 (silent in a row; 3, 0: off)")  # fmt: skip
    parser.add_argument("--quarantine-failures", type=_part, metavar="N/M",
                        default=(Rule.failures, Rule.of),
                        help="隔离：最近 M 张失败 N 张 (failed; 6/20, 0/1: off)")  # fmt: skip
    arguments = parser.parse_args(argv)
    for what, values in (
        ("reader", [name for name, _ in arguments.readers]),
        ("tray index", [index for _, index in arguments.readers]),
        ("stage", arguments.stages),
    ):
        if len(set(values)) != len(values):
            parser.error(f"重复 (a {what} is given twice)")
    return arguments


def configure_logs(file: TextIO, style: str, station: str) -> None:
    """JSON lines, or lines for people: event, level, time, and ids. `station` is on every one,
    whichever thread says it."""
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if style == "json"
        else structlog.dev.ConsoleRenderer(colors=False)
    )

    def at_station(_logger: object, _method: str, event: EventDict) -> EventDict:
        return {"station": station, **event}

    structlog.configure(
        processors=[
            # What a reader's thread has bound: the carton of the card that lies there.
            structlog.contextvars.merge_contextvars,
            at_station,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(file),
        cache_logger_on_first_use=True,
    )


async def work(arguments: argparse.Namespace, at: Callable[[str], None] = nothing) -> bool:
    """Run the station until SIGTERM or SIGINT; whether every reader came to rest in time."""
    stopping = Event()
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    door = Door(arguments.door)
    rule = Rule(arguments.quarantine_silent, *arguments.quarantine_failures)
    with contextlib.closing(Journal(arguments.journal)) as journal:
        station = Station(
            arguments.station, arguments.stages, door, journal, stopping, at, Quarantine(rule)
        )
        feeders = [TrayFeeder(arguments.control, i, stopping) for _, i in arguments.readers]
        patience = Patience(seconds=arguments.card_seconds)
        sessions = [
            Session(station, Reader(name, stopping, patience), feeder)
            for (name, _), feeder in zip(arguments.readers, feeders, strict=True)
        ]
        # A call that hangs can't be ended; it must not hold the exit up.
        threads = [Thread(target=session.run, daemon=True) for session in sessions]
        stream = asyncio.create_task(door.run())
        watching = asyncio.create_task(_watch(sessions, station, door, arguments.hang_seconds))
        for thread in threads:
            thread.start()
        names = [name for name, _ in arguments.readers]
        log.info("agent.started", door=arguments.door, readers=names, pcsc=service_socket())
        await told.wait()
        log.info("agent.stopping")
        stopping.set()
        door.stop()
        for feeder in feeders:
            feeder.close()
        at_rest = await asyncio.to_thread(_join, threads, sessions, arguments.hang_seconds)
        watching.cancel()
        await door.close(_SEND_SECONDS)
        await stream
    for session in sessions:
        log.info("reader.statistics", **session.statistics.row())
    log.info("agent.stopped", at_rest=at_rest)
    return at_rest


async def _watch(
    sessions: Sequence[Session], station: Station, door: Door, hang_seconds: float
) -> None:
    """Notice readers that hang, and tell the centre now and then what was counted."""
    to_count = 0.0
    while True:
        pause = min(1.0, hang_seconds / 4)
        await asyncio.sleep(pause)
        for session in sessions:
            session.watch(hang_seconds)
        to_count -= pause
        if to_count <= 0:
            to_count = _COUNT_SECONDS
            for session in sessions:
                door.count(session.statistics.to_wire(station.station_id))


def _join(threads: Sequence[Thread], sessions: Sequence[Session], hang_seconds: float) -> bool:
    """Wait for all readers but those that hang; whether every one came to rest."""
    for thread, session in zip(threads, sessions, strict=True):
        end = time.monotonic() + _FINISH_SECONDS
        while thread.is_alive() and time.monotonic() < end and not session.watch(hang_seconds):
            thread.join(min(0.2, hang_seconds))
    return not any(thread.is_alive() for thread in threads)


def main(argv: Sequence[str] | None = None, at: Callable[[str], None] = nothing) -> int:
    """The whole program. `at` is called with the states of `session.Station.at`."""
    arguments = _arguments(argv)
    with contextlib.ExitStack() as stack:
        file: TextIO = sys.stderr
        if arguments.log_file is not None:
            arguments.log_file.parent.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(arguments.log_file.open("a", encoding="utf-8", buffering=1))
        configure_logs(file, arguments.log_format, arguments.station)
        metrics.expect(arguments.stages, [name for name, _ in arguments.readers])
        if arguments.metrics is not None:
            open_endpoint(arguments.metrics, arguments.station)
            stack.callback(withdraw, arguments.metrics, arguments.station)
        asyncio.run(work(arguments, at))
    return 0
