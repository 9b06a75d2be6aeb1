"""The tray as a process: chips out of tray files, fed to virtual readers.

    python -m station_agents.virtual.tray --tray FILE [--tray FILE ...]
        --vpcd HOST:PORT [--vpcd ...] --control SOCKET

One hopper for all tray files, one reader for each --vpcd, numbered from 0. When it is ready it
prints one line of JSON: {"control": path, "readers": n, "cards": n}. SIGTERM or SIGINT: the
journals are folded into the tray files, exit 0. Beside the first tray file it keeps NAME.apdus
(the count of APDUs, 8 bytes big-endian) and NAME.readers (which card lies where).
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import structlog

from station_agents.virtual.control import ControlServer
from station_agents.virtual.hopper import Hopper, Places
from station_agents.virtual.link import VpcdLink
from station_agents.virtual.loop import Loop
from station_agents.virtual.tray_file import OpenTray, TrayFileError

log = structlog.get_logger()


class ApduCounter:
    """Counts on file before the APDU is processed, so that a kill loses none."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.value = int.from_bytes(os.pread(self._file, 8, 0), "big")

    def count(self) -> None:
        self.value += 1
        os.pwrite(self._file, self.value.to_bytes(8, "big"), 0)

    def close(self) -> None:
        os.close(self._file)


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or not 0 < int(port) < 65_536:
        raise argparse.ArgumentTypeError("HOST:PORT is wanted")
    try:
        found = socket.getaddrinfo(host or "127.0.0.1", int(port), socket.AF_INET)
    except OSError as e:
        raise argparse.ArgumentTypeError(f"unknown host: {e}") from e
    return str(found[0][4][0]), int(port)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m station_agents.virtual.tray", description="虚拟卡托盘 (a tray of chips)"
    )
    parser.add_argument("--tray", action="append", required=True, type=Path, metavar="FILE")
    parser.add_argument("--vpcd", action="append", required=True, type=_address,
                        metavar="HOST:PORT")  # fmt: skip
    parser.add_argument("--control", required=True, type=Path, metavar="SOCKET")
    return parser.parse_args(argv)


def serve(trays: Sequence[Path], vpcd: Sequence[tuple[str, int]], control: Path) -> None:
    """Run until SIGTERM or SIGINT. Raises TrayFileError, ValueError or OSError if a tray or the
    control socket cannot be used."""
    with ExitStack() as stack:
        opened = [stack.enter_context(OpenTray(path)) for path in trays]
        places = stack.enter_context(closing(Places(trays[0].with_suffix(".readers"))))
        counter = stack.enter_context(closing(ApduCounter(trays[0].with_suffix(".apdus"))))
        hopper = Hopper(opened, len(vpcd), places)
        loop = Loop()
        links = [
            stack.enter_context(closing(VpcdLink(loop, number, address, slot, counter.count)))
            for number, (address, slot) in enumerate(zip(vpcd, hopper.slots, strict=True))
        ]
        server = ControlServer(loop, control, hopper, links, lambda: counter.value)
        stack.enter_context(closing(server))
        cards = sum(len(tray.tray.cards) for tray in opened)
        ready = {"control": str(control), "readers": len(vpcd), "cards": cards}
        print(json.dumps(ready), flush=True)
        loop.run()
        hopper.compact()
        log.info("tray put away", cards=cards, apdus=counter.value)


def main(argv: Sequence[str] | None = None) -> int:
    structlog.configure(logger_factory=structlog.WriteLoggerFactory(sys.stderr))
    arguments = _arguments(argv)
    try:
        serve(arguments.tray, arguments.vpcd, arguments.control)
    except (TrayFileError, ValueError, OSError) as e:
        print(f"托盘无法使用 (the tray cannot be used): {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
