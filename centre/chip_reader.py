"""From a PC/SC reader of this machine to what lies in it: the way of `centre chip` to a chip."""

from __future__ import annotations

import os
from pathlib import Path
from threading import Event, Thread
from typing import Final

from smartcard import scard

from centre.chip import Chip, Wrong, examine, known_profiles
from domain.codes import Code
from station_agents.pcsc import (
    CardRemoved,
    CardSilent,
    ReaderError,
    ReaderSeen,
    ServiceLost,
    code_of,
    look_at_readers,
)
from station_agents.reader import Reader

_BUSY: Final = code_of(scard.SCARD_E_SHARING_VIOLATION)
LOST: Final = frozenset({Code.PCSC_AWAY, Code.READER_AWAY, Code.READER_BUSY, Code.READER_EMPTY})
"""What keeps a chip from being read at all: nothing is known of it then."""


class ReaderUnclear(Exception):
    """Which reader is meant is not clear; `readers` are there."""

    def __init__(self, readers: list[ReaderSeen]) -> None:
        super().__init__()
        self.readers = readers


def use_service(socket: Path | None) -> None:
    """Another PC/SC service than the machine's own; before the first call to it."""
    if socket is not None:
        os.environ["PCSCLITE_CSOCK_NAME"] = str(socket)


def choose(name: str) -> ReaderSeen:
    """The reader called `name`; without a name the only one, or the only one with a card. Raises
    ReaderUnclear, ServiceLost."""
    readers = look_at_readers()
    for fitting in (
        [r for r in readers if r.name == name] if name else readers,
        [r for r in readers if r.card and not name],
    ):
        if len(fitting) == 1:
            return fitting[0]
    raise ReaderUnclear(readers)


def read(reader: ReaderSeen, seconds: float) -> Chip:
    """What lies in `reader`, in at most so many seconds. What keeps it from being read is in
    `Chip.wrong`, with one of the codes LOST, or CHIP_SILENT."""
    if not reader.card:
        # Whoever uses a reader may be just between two cards.
        code = Code.READER_BUSY if reader.in_use else Code.READER_EMPTY
        return Chip(reader.name, wrong=[Wrong(code)])
    found: list[Chip] = []
    # A call to a reader that hangs can't be ended; the thread ends with the process.
    thread = Thread(target=lambda: found.append(_read(reader.name)), daemon=True)
    thread.start()
    thread.join(seconds)
    if not found:
        return Chip(reader.name, wrong=[Wrong(Code.READER_AWAY, f"无应答 hangs: {seconds:g} s")])
    return found[0]


def _read(name: str) -> Chip:
    reader = Reader(name, Event())
    try:
        atr = reader.power_on()
        chip = examine(lambda apdu: _transmit(reader, apdu), known_profiles())
    except CardSilent:
        return Chip(name, wrong=[Wrong(Code.CHIP_SILENT)])
    except ServiceLost:
        return Chip(name, wrong=[Wrong(Code.PCSC_AWAY)])
    except CardRemoved:
        return Chip(name, wrong=[Wrong(Code.READER_EMPTY)])
    except ReaderError as e:
        code = Code.READER_BUSY if e.code == _BUSY else Code.READER_AWAY
        return Chip(name, wrong=[Wrong(code)])
    finally:
        reader.close()
    chip.reader, chip.atr = name, atr.hex().upper()
    return chip


def _transmit(reader: Reader, apdu: bytes) -> tuple[bytes, int]:
    answer = bytes(reader.transmit(list(apdu)))
    return answer[:-2], int.from_bytes(answer[-2:], "big")
