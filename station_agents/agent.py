"""The station agent: `python -m station_agents --station ID --door HOST:PORT ...`.

One thread a reader, since a PC/SC call blocks; one stream to the centre for all of them, in the
main thread's event loop. SIGTERM or SIGINT: the segments in hand are finished, their answers
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
from station_agents.pcsc import Service, service_socket
from station_agents.reader import Reader
from station_agents.session import Session, Station, nothing
from telemetry.endpoint import open_endpoint, withdraw

STAGES: Final = ("key_replacement", "inspection", "sampling")
# For a segment in hand: 20 commands of a slow chip.
_FINISH_SECONDS: Final = 20.0
_SEND_SECONDS: Final = 2.0

log = structlog.get_logger()


def _reader(text: str) -> tuple[str, int]:
    name, equals, number = text.rpartition("=")
    if not equals or not name or not re.fullmatch(r"[0-9]{1,3}", number):
        raise argparse.ArgumentTypeError('"READER NAME=INDEX IN THE TRAY" is wanted')
    return name, int(number)


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
    parser.add_argument(
        "--contexts", choices=("process", "reader"), default="process",
        help="one PC/SC context for the process, or one a reader: chips then run side by side",
    )  # fmt: skip
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
    service = Service(
        stopping, readers=len(arguments.readers), one_each=arguments.contexts == "reader"
    )
    with contextlib.closing(Journal(arguments.journal)) as journal:
        station = Station(arguments.station, arguments.stages, door, journal, stopping, at)
        feeders = [TrayFeeder(arguments.control, i, stopping) for _, i in arguments.readers]
        threads = [
            Thread(
                target=Session(station, Reader(service, name, stopping), feeder).run,
                name=name,
                # A call to a driver that hangs can't be ended; it must not hold the exit up.
                daemon=True,
            )
            for (name, _), feeder in zip(arguments.readers, feeders, strict=True)
        ]
        stream = asyncio.create_task(door.run())
        for thread in threads:
            thread.start()
        log.info("agent.started", door=arguments.door,
                 readers=[t.name for t in threads], pcsc=service_socket())  # fmt: skip
        await told.wait()
        log.info("agent.stopping")
        stopping.set()
        door.stop()
        for feeder in feeders:
            feeder.close()
        at_rest = await asyncio.to_thread(_join, threads)
        await door.close(_SEND_SECONDS)
        await stream
        if at_rest:
            service.close()
    log.info("agent.stopped", at_rest=at_rest)
    return at_rest


def _join(threads: Sequence[Thread]) -> bool:
    for thread in threads:
        thread.join(_FINISH_SECONDS)
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
        metrics.expect(arguments.stages)
        if arguments.metrics is not None:
            open_endpoint(arguments.metrics, arguments.station)
            stack.callback(withdraw, arguments.metrics, arguments.station)
        asyncio.run(work(arguments, at))
    return 0
