"""The agent's session against a bare loop, in a process beside one reader.

    python -m bench.agent_loop READER CONTROL JOURNAL      (a script as JSON on standard input)

prints, for each round, the seconds that the agent and the bare loop took for the same APDUs. The
agent is `session.Session` with its reader, feeder and journal; its door answers at once, from the
script. The clock runs from a segment's release to its answers, so power-on, feeder and centre are
outside; the bare loop is SCardTransmit on a list and nothing else. A process of its own, since
libpcsclite reads the name of its socket once.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Event
from typing import Final

from smartcard import scard

from bench.chips import BenchError
from domain.places import Line
from station_agents.agent import configure_logs
from station_agents.feeder import TrayFeeder
from station_agents.journal import Journal
from station_agents.pausing import Stopping
from station_agents.reader import Reader
from station_agents.session import Session, Station
from stubs import station_pb2 as pb

STAGES: Final = (Line.KEY_REPLACEMENT, Line.INSPECTION)
WARM: Final = 1
"""Cards of each side and round before the clock counts: service and chip wake up."""

Script = Sequence[Sequence[pb.Segment]]
"""The segments of one card, by presentation (one a stage)."""


class Centre:
    """`Asking` without a centre: answers from `script`, `cards` times, then stops the agent."""

    def __init__(self, script: Script, cards: int, stopping: Event) -> None:
        self._stopping = stopping
        self._answers = self._answering(script, cards)
        self._released = 0.0
        self.seconds = 0.0

    def _answering(self, script: Script, cards: int) -> Iterator[pb.CentreTurn]:
        for card in range(cards):
            if card == WARM:
                self.seconds = 0.0
            # The chip stays in its reader: each stage leads to the next, the last to the first.
            for segments, following in zip(script, (*STAGES[1:], STAGES[0]), strict=True):
                for segment in segments:
                    yield pb.CentreTurn(segment=segment)
                yield pb.CentreTurn(verdict=pb.Verdict(next_stage=following, code="OK"))

    def ask(self, turn: pb.StationTurn) -> pb.CentreTurn:
        now = time.perf_counter()
        if turn.WhichOneof("content") == "answers":
            self.seconds += now - self._released
            if any(a.status_word != 0x9000 for a in turn.answers.steps) or turn.answers.broken:
                raise BenchError("the chip refused a command of the script")
        answer = next(self._answers, None)
        if answer is None:
            self._stopping.set()
            raise Stopping
        self._released = time.perf_counter()
        return answer

    def tell(self, turn: pb.StationTurn) -> None:
        raise BenchError("the reader failed")

    def stand(self, news: pb.ReaderNews) -> None:
        """What readers say of themselves is for a real centre."""


def as_agent(reader: str, control: Path, journal: Journal, script: Script, cards: int) -> float:
    """Seconds that the agent took for `cards` runs of `script`."""
    stopping = Event()
    centre = Centre(script, WARM + cards, stopping)
    station = Station("station-1", STAGES, centre, journal, stopping)
    Session(station, Reader(reader, stopping), TrayFeeder(control, 0, stopping)).run()
    return centre.seconds


def bare(reader: str, script: Script, cards: int) -> float:
    """Seconds that a loop over SCardTransmit took for the same."""
    commands = [list(step.apdu) for part in script for segment in part for step in segment.steps]
    _, context = scard.SCardEstablishContext(scard.SCARD_SCOPE_SYSTEM)
    code, handle, protocol = scard.SCardConnect(
        context, reader, scard.SCARD_SHARE_EXCLUSIVE,
        scard.SCARD_PROTOCOL_T0 | scard.SCARD_PROTOCOL_T1,
    )  # fmt: skip
    if code != 0:
        raise BenchError(f"the reader does not connect: {code & 0xFFFFFFFF:08X}")
    pci = scard.SCARD_PCI_T1 if protocol == scard.SCARD_PROTOCOL_T1 else scard.SCARD_PCI_T0
    _exchange(handle, pci, commands, WARM)
    started = time.perf_counter()
    _exchange(handle, pci, commands, cards)
    seconds = time.perf_counter() - started
    scard.SCardDisconnect(handle, scard.SCARD_LEAVE_CARD)
    scard.SCardReleaseContext(context)
    return seconds


def _exchange(handle: int, pci: int, commands: Sequence[list[int]], times: int) -> None:
    for _ in range(times):
        for command in commands:
            code, _ = scard.SCardTransmit(handle, pci, command)
            if code != 0:
                raise BenchError(f"a command was not carried out: {code & 0xFFFFFFFF:08X}")


def main() -> None:
    reader, control, journal = sys.argv[1:]
    job = json.load(sys.stdin)
    script = [[pb.Segment.FromString(bytes.fromhex(s)) for s in part] for part in job["script"]]
    configure_logs(sys.stderr, "json", "station-1")
    kept = Journal(Path(journal))
    rounds = [
        (
            as_agent(reader, Path(control), kept, script, job["cards"]),
            bare(reader, script, job["cards"]),
        )
        for _ in range(job["rounds"])
    ]
    sys.stdout.write(json.dumps(rounds))
    sys.stdout.flush()
    os._exit(0)  # the destructors of libpcsclite would ask a service that may be gone


if __name__ == "__main__":
    main()
