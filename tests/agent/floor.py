"""A station for the tests: a scripted centre, agent processes, trays of a few chips."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent import futures
from pathlib import Path
from typing import Any, Self

import grpc

from station_agents.virtual.pcscd import Pcscd
from station_agents.virtual.tray_process import TrayProcess
from stubs import station_pb2 as pb
from stubs.station_pb2_grpc import StationServicer, add_StationServicer_to_server
from tests.virtual.floor import SELECT, card_line, write_tray

ROOT = Path(__file__).parents[2]
DEADLINE = 30.0

Script = Callable[[pb.StationTurn], pb.CentreTurn | None]
"""What the centre answers; None keeps the agent waiting."""


def segment(*steps: tuple[bytes, str], writes: bool = False) -> pb.CentreTurn:
    """A segment of (command, expected status word) steps, named after their place."""
    return pb.CentreTurn(
        segment=pb.Segment(
            steps=[
                pb.Step(apdu=apdu, expect=[expect], name=f"step {n}")
                for n, (apdu, expect) in enumerate(steps)
            ],
            writes=writes,
        )
    )


SELECTING = segment((SELECT, "9000"))


def verdict(stack: str = "good", next_stage: str = "") -> pb.CentreTurn:
    return pb.CentreTurn(verdict=pb.Verdict(stack=stack, next_stage=next_stage, code="OK"))


def until_card(number: int, script: Script) -> Script:
    """`script` for all cards but that one, whose opening stays without an answer: when it comes,
    the card before it was ejected."""
    return lambda turn: None if _is_opening_of(number, turn) else script(turn)


def _is_opening_of(number: int, turn: pb.StationTurn) -> bool:
    return bool(turn.opening.face_number == card_line(number)["face_number"])


def tray_of(service: Pcscd, directory: Path, *cards: dict[str, Any]) -> TrayProcess:
    """A tray process with these cards; the first lies in reader 0, the second in reader 1."""
    path = write_tray(directory / "tray-1.jsonl", list(cards))
    return TrayProcess([path], service.addresses, directory / "tray.sock")


class ScriptedCentre(StationServicer):
    """A real Station server whose answers come from `script`. `turns` is all that it was sent, in
    order, `news` what its readers said of themselves; `kill` ends it as a crash does, `start`
    brings it back at the same address."""

    def __init__(self, port: int, script: Script) -> None:
        self.address = f"127.0.0.1:{port}"
        self.script = script
        self.turns: list[pb.StationTurn] = []
        self.news: list[pb.ReaderNews] = []
        self.largest_message = 0
        self._news = threading.Condition()
        self._server: grpc.Server | None = None

    def Work(
        self, request_iterator: Iterator[pb.StationTurns], context: grpc.ServicerContext
    ) -> Iterator[pb.CentreTurns]:
        try:
            for message in request_iterator:
                answers = []
                with self._news:
                    self.news.extend(message.readers)
                    self._news.notify_all()
                for turn in message.turns:
                    answer = self.script(turn)
                    with self._news:
                        self.turns.append(turn)
                        self._news.notify_all()
                    if answer is not None:
                        answer = pb.CentreTurn.FromString(answer.SerializeToString())
                        answer.presentation = turn.presentation
                        answer.number, answer.stage = turn.number, turn.stage
                        answers.append(answer)
                self.largest_message = max(self.largest_message, len(message.turns))
                if answers:
                    yield pb.CentreTurns(turns=answers)
        except grpc.RpcError:
            return

    def start(self) -> None:
        self._server = grpc.server(futures.ThreadPoolExecutor(8))
        add_StationServicer_to_server(self, self._server)
        self._server.add_insecure_port(self.address)
        self._server.start()

    def kill(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.stop(0).wait()

    def until(self, what: Callable[[list[pb.StationTurn]], Any], seconds: float = DEADLINE) -> Any:
        """Wait until `what(turns)` is true; its value."""
        end = time.monotonic() + seconds
        with self._news:
            while not (found := what(self.turns)):
                if not self._news.wait(end - time.monotonic()):
                    seen = [(t.number, t.stage, t.WhichOneof("content")) for t in self.turns]
                    raise AssertionError(f"not seen within {seconds} s; turns: {seen}")
            return found

    def until_told(self, code: str, readers: Collection[str]) -> None:
        """Wait until each of `readers` has said that it does not work, for `code`."""
        self.until(lambda _: {n.reader for n in self.news if n.code == code} >= set(readers))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def openings(turns: Sequence[pb.StationTurn]) -> list[pb.StationTurn]:
    return [t for t in turns if t.number == 0]


def answered(turns: Sequence[pb.StationTurn]) -> list[pb.StationTurn]:
    return [t for t in turns if t.WhichOneof("content") == "answers"]


def words(turn: pb.StationTurn) -> list[int]:
    """The status words of a turn's answers."""
    return [step.status_word for step in turn.answers.steps]


class AgentProcess:
    """`python -m station_agents` beside `service` and the tray at `control`.

    `die_at` is a state of `session.Station.at` at which it kills itself (`dying_agent`).
    """

    def __init__(
        self,
        service: Pcscd,
        control: Path,
        door: str,
        directory: Path,
        *,
        readers: int = 1,
        die_at: str = "",
        arguments: Sequence[str] = (),
    ) -> None:
        self.journal = directory / "journal.jsonl"
        self.log = directory / "agent.log"
        program = ["-m", "tests.agent.dying_agent", die_at] if die_at else ["-m", "station_agents"]
        self._process = subprocess.Popen(
            [
                sys.executable, *program, "--station", "S1", "--door", door,
                "--control", str(control), "--journal", str(self.journal),
                "--log-file", str(self.log), *arguments, "--readers",
                *(f"{name}={index}" for index, name in enumerate(service.readers[:readers])),
            ],
            env={**os.environ, **service.environment, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip

    def stop(self) -> int:
        """SIGTERM; its exit code."""
        self._process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        """Until it ends by itself; its exit code."""
        return self._process.wait(DEADLINE)

    def events(self) -> list[dict[str, Any]]:
        """Its log."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
