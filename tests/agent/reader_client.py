"""Uses `station_agents.reader` in a process of its own (libpcsclite reads its socket's name once).

`python -m tests.agent.reader_client chain READER HEX ...` prints the answers to commands,
"lost" for one that was not carried through, after which the power is cycled;
`… overhead READER SELECT HEX COUNT ROUNDS` prints, for each round, what a bare loop over
SCardTransmit took and what a segment of the same commands took: seconds by the clock and seconds
of this thread's processor time.
"""

from __future__ import annotations

import json
import os
import sys
import time
from threading import Event
from typing import Any, cast

from smartcard import scard

from station_agents.pcsc import ReaderError
from station_agents.reader import Reader
from station_agents.session import Session, Station
from stubs import station_pb2 as pb

Spent = tuple[float, float]


def now() -> Spent:
    return time.perf_counter(), time.thread_time()


def spent_since(start: Spent) -> Spent:
    clock, processor = now()
    return clock - start[0], processor - start[1]


def bare(reader: Reader, apdu: list[int], count: int) -> Spent:
    handle, pci = reader._handle, reader._pci
    start = now()
    for _ in range(count):
        code, _ = scard.SCardTransmit(handle, pci, apdu)
        if code != 0:
            raise RuntimeError(hex(code & 0xFFFFFFFF))
    return spent_since(start)


def as_segment(reader: Reader, apdu: list[int], count: int) -> Spent:
    unused = cast(Any, None)
    station = Station("S1", ["inspection"], unused, unused, Event())
    session = Session(station, reader, unused)
    steps = [pb.Step(apdu=bytes(apdu), expect=["9000"], name="read") for _ in range(count)]
    answers = pb.Answers()
    start = now()
    if not session._run_steps(steps, answers) or len(answers.steps) != count:
        raise RuntimeError("the segment stopped")
    return spent_since(start)


def send(reader: Reader, command: str) -> str:
    try:
        return bytes(reader.transmit(list(bytes.fromhex(command)))).hex()
    except ReaderError:
        reader.power_on()
        return "lost"


def main() -> None:
    what, name, *rest = sys.argv[1:]
    stopping = Event()
    reader = Reader(name, stopping)
    reader.power_on()
    if what == "chain":
        sys.stdout.write(json.dumps([send(reader, command) for command in rest]))
    else:
        select, apdu = (list(bytes.fromhex(h)) for h in rest[:2])
        count, rounds = int(rest[2]), int(rest[3])
        reader.transmit(select)
        times = [(bare(reader, apdu, count), as_segment(reader, apdu, count))
                 for _ in range(rounds)]  # fmt: skip
        sys.stdout.write(json.dumps(times))
    reader.close()
    sys.stdout.flush()
    os._exit(0)  # the destructors of libpcsclite would ask a service that may be gone


if __name__ == "__main__":
    main()
