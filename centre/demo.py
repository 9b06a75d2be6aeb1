"""`centre demo`: one batch delivery through a whole centre, on real parts (articles 11(10), 28(7)).

It plays what stands around a centre: a service manager that keeps processes running, a courier
who brings the key block, the people of the floor (`centre.demo_people`).
The counterparts, stations, machines and the centre itself are processes of their own. Killed at
any moment, the same command goes on from where the ledger and the chips stand.
"""

from __future__ import annotations

import json
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from centre import logs
from centre.config import LEDGER, Config
from centre.demo_custodians import Custodians
from centre.demo_people import People, ask_tray, python, run_program
from centre.demo_screen import Screen
from centre.demo_terminal import DemoError, Patient
from centre.home import initialise
from centre.processes import Keeper, Kept
from centre.running import state_of, write_whole
from domain.codes import Code
from domain.places import DRAWN, Line, held
from ledger.connection import connect, ledger_file
from ledger.queries import Queries
from ledger.returns import interim_lines
from ledger.summary import summary

STATIONS = ("station-1", "station-2")
START_SECONDS = 120.0
TICKETS = 500
"""Named in one request to the tray."""


@dataclass(frozen=True)
class Demo:
    """What to run. `readers` are shared out evenly among the stations."""

    home: Path
    seed: int
    cards: int
    fresh: bool = False
    readers: int = 8
    ledger: str = LEDGER
    """Its URL (`[ledger] url`); a database must be empty."""
    station_command: Sequence[str] = (sys.executable, "-m", "station_agents")
    """What starts a station (tests have one that waits)."""
    envelopes: Path | None = None
    """Where the custodians' components are put away (tests search for them); None: destroyed."""
    on_done: Callable[[], object] | None = None
    """Called when the work is done and everything still runs (tests look at it then)."""


def prepare_home(demo: Demo) -> Config:
    """A home for this demo: a new one, or an unfinished one of the same seed and size."""
    home = demo.home
    asked = {"seed": demo.seed, "cards": demo.cards, "ledger": demo.ledger}
    note = home / "demo.json"
    if demo.fresh and home.exists():
        if not note.exists() and any(home.iterdir()):
            raise DemoError(f"{home} is not the home of a demo: choose another OUT")
        shutil.rmtree(home)
    if (home / "summary.json").exists():
        raise DemoError(
            f"{home} holds a finished demo: FRESH=1 makes it anew, or choose another OUT"
        )
    if note.exists() and json.loads(note.read_text(encoding="utf-8")) != asked:
        raise DemoError(
            f"{home} holds an unfinished demo of another SEED, CARDS or LEDGER: FRESH=1"
        )
    if not note.exists() and home.exists() and any(home.iterdir()):
        raise DemoError(f"{home} is not empty: choose another OUT")
    if not note.exists():
        _check_empty(demo.ledger)
    home.mkdir(parents=True, exist_ok=True)
    write_whole(note, json.dumps(asked).encode())
    logs.configure(home / "log" / "demo.log", "json")
    return initialise(home, demo.ledger)


def _check_empty(ledger: str) -> None:
    if ledger_file(ledger) is not None:
        return  # it lies in the home
    connection = connect(ledger, write=False)
    try:
        if connection.value(connection.database.present):
            raise DemoError("the database of LEDGER holds a ledger already: dropdb, createdb")
    finally:
        connection.close()


@contextmanager
def _sockets(note: Path) -> Iterator[Path]:
    """A short directory for unix sockets, whose paths are limited to 107 bytes. `note` keeps its
    name, so that the next run removes what a kill left behind."""
    if note.exists():
        _remove_sockets(Path(note.read_text(encoding="utf-8")))
    directory = Path(tempfile.mkdtemp(prefix="cards-"))
    note.write_text(str(directory), encoding="utf-8")
    try:
        yield directory
    finally:
        _remove_sockets(directory)
        note.unlink()


def _remove_sockets(directory: Path) -> None:
    if directory.name.startswith("cards-") and directory.parent == Path(tempfile.gettempdir()):
        shutil.rmtree(directory, ignore_errors=True)


def run(demo: Demo) -> dict[str, Any]:
    """Run the demo to its end; answers the summary. Raises DemoError."""
    config = prepare_home(demo)
    logs.configure(config.logs / "demo.log", config.log_format)
    screen = Screen(demo.home)
    made = _make_delivery(demo, config)
    keeper = Keeper()
    with _sockets(config.run / "sockets-directory") as sockets:
        try:
            with screen:
                people = People(config, made, sockets / "tray.sock", screen.say)
                with closing(Custodians(config, screen.say, demo.envelopes)) as custodians:
                    _Opening(demo, config, keeper, made, sockets, people, custodians).run(screen)
                _watch(config, made["batch_id"], screen, sockets / "tray.sock", people)
                apdus = ask_tray(sockets / "tray.sock", {"op": "status"})["apdus"]
                if demo.on_done is not None:
                    demo.on_done()
        finally:
            screen.say("收工 closing")
            keeper.stop()
    result = write_summary(demo, config, made["batch_id"], apdus)
    screen.results(config, made["batch_id"], result)
    return result


def _make_delivery(demo: Demo, config: Config) -> dict[str, Any]:
    """The factory's part: cards, return, note, key block (in `sent/`, `trays/`)."""
    run_program(_factory(demo, config), config, "factory")
    made: dict[str, Any] = json.loads((demo.home / "sent" / ".complete").read_text("utf-8"))
    return made


class _Opening:
    """The start of a working day: from the first process to the stations at work."""

    def __init__(
        self,
        demo: Demo,
        config: Config,
        keeper: Keeper,
        made: dict[str, Any],
        sockets: Path,
        people: People,
        custodians: Custodians,
    ) -> None:
        self._demo, self._config, self._keeper = demo, config, keeper
        self._made, self._sockets = made, sockets
        self._people, self._custodians = people, custodians
        self._home = ["--home", str(demo.home)]
        self._control = sockets / "tray.sock"
        self._card_management = f"127.0.0.1:{_free_port()}"

    def run(self, screen: Screen) -> None:
        screen.say("启动省制卡中心 starting the centre")
        self._keep(
            "centre",
            [*python("centre"), "up", *self._home, "--card-management", self._card_management],
        )
        readers = self._machines()
        door = _wait_for_door(self._demo.home, self._keeper)
        self._custodians.bring_formal_keys()
        screen.say("卡管发来制卡回盘，卡厂发来送货单 factory return and delivery note come in")
        self._counterparts(door)
        screen.say("密钥保管员核对并接收临时密钥 the temporary keys are compared and accepted")
        self._bring_keys()
        screen.say("清点并签收 counting and signing for the cartons")
        self._people.sign_for()
        screen.say("一条被拒记录更正后以文件重报 a refused record comes again, right, as a file")
        self._correction()
        self._stations(door, readers)
        screen.say("工位开工 the stations are at work")

    def _keep(self, name: str, command: Sequence[str], **environment: str) -> Kept:
        kept = Kept(name, command, self._config.logs / f"{name}.out", environment)
        self._keeper.keep(kept)
        return kept

    def _machines(self) -> dict[str, Any]:
        """Readers (pcscd) and the tray that feeds them; answers what pcscd said of itself."""
        pcscd = self._keep(
            "pcscd",
            [*python("station_agents.virtual.pcscd"), "--dir", str(self._sockets / "pcsc"),
             "--readers", str(self._demo.readers)],
        )  # fmt: skip
        readers = _ready_line(pcscd, self._keeper)
        vpcd = [a for port in readers["ports"] for a in ("--vpcd", f"127.0.0.1:{port}")]
        trays = [
            a
            for name in self._made["trays"]
            for a in ("--tray", str(self._demo.home / "trays" / name))
        ]
        control = ["--control", str(self._control)]
        tray = self._keep("tray", [*python("station_agents.virtual.tray"), *trays, *vpcd, *control])
        _ready_line(tray, self._keeper)
        return readers

    def _counterparts(self, door: str) -> None:
        sent = str(self._demo.home / "sent")
        addresses = ["--door", door, "--listen", self._card_management]
        program = python("counterparts.card_management")
        also = ["--also", str(self._demo.home / "only-return" / "sent")]
        inbox = ["--inbox", str(self._config.inbox)]
        self._keep("card_management", [*program, "--home-dir", sent, *also, *addresses, *inbox])
        run_program([*_factory(self._demo, self._config), "--door", door], self._config, "factory")

    def _bring_keys(self) -> None:
        """A courier brings the factory's key block, the post its letter."""
        brought, letter = (
            self._demo.home / "exchange" / f"temporary_keys.{end}" for end in ("json", "letter")
        )
        for file in (brought, letter):
            shutil.copyfile(self._demo.home / "sent" / file.name, file)
        self._custodians.bring_temporary_keys(self._made["batch_id"], brought, letter)

    def _correction(self) -> None:
        """Until the inbox has answered it: so that its card is never held, whatever comes first."""
        answer = self._config.inbox / "done" / f"{self._made['file_id']}-correction.txt.result.txt"
        for _ in _while_waiting("card_management", self._keeper):
            if answer.exists() or not self._made["corrects"]:
                return

    def _stations(self, door: str, readers: dict[str, Any]) -> None:
        for number, station in enumerate(STATIONS):
            mine = [
                f"{name}={i}"
                for i, name in enumerate(readers["readers"])
                if i % len(STATIONS) == number
            ]
            self._keep(
                station,
                [*self._demo.station_command, "--station", station, "--door", door,
                 "--control", str(self._control), "--readers", *mine,
                 "--journal", str(self._demo.home / "journals" / f"{station}.jsonl"),
                 "--metrics", str(self._config.targets),
                 "--log-file", str(self._config.logs / f"{station}.log"),
                 "--log-format", self._config.log_format],
                PCSCLITE_CSOCK_NAME=readers["socket"],
            )  # fmt: skip


def _factory(demo: Demo, config: Config) -> list[str]:
    return [
        *python("counterparts.factory"), "--out", str(demo.home), "--seed", str(demo.seed),
        "--cards", str(demo.cards), "--halves",
        "--transport-key", str(config.transport_public_key),
    ]  # fmt: skip


def _ready_line(kept: Kept, keeper: Keeper) -> dict[str, Any]:
    """The JSON line that a process prints when it is ready."""
    for _ in _while_waiting(kept.name, keeper):
        for line in reversed(kept.said()):
            if line.startswith("{") and line.endswith("}"):
                ready: dict[str, Any] = json.loads(line)
                if "readers" in ready and ("ports" in ready or "control" in ready):
                    return ready
    raise AssertionError("unreachable")


def _wait_for_door(home: Path, keeper: Keeper) -> str:
    for _ in _while_waiting("centre", keeper):
        state = state_of(home)
        if state is not None and state["actors"]["gateway"]["state"] == "ready":
            return str(state["listen"])
    raise AssertionError("unreachable")


def _while_waiting(name: str, keeper: Keeper) -> Iterator[None]:
    """Look again and again until the caller has what it needs. Raises DemoError after a while,
    or when the process keeps dying."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        yield
        kept = keeper.find(name)
        if kept.starts > 5 or time.monotonic() > deadline:
            raise DemoError(f"{name} does not start: see {kept.log_file}")
        time.sleep(0.1)  # another process's file: there is no event to wait for


def _watch(config: Config, batch_id: str, screen: Screen, control: Path, people: People) -> None:
    """Show the stages, and let people do their part, until the return was taken by card
    management, and the revision with what it held at first. Meanwhile an operator feeds what was
    drawn for sampling, and at the end what has to be set apart with its lot."""
    queries = Patient(config.ledger)
    while True:
        screen.update(queries, batch_id)
        people.look(queries)
        if fed := _feed_again(control, queries, batch_id, DRAWN):
            screen.say(f"抽样复检，重新上卡 {fed} 张 the samples are fed again")
        outbox = queries.rows("select kind, acknowledged from outbox where batch_id = ?", batch_id)
        written = any(r["kind"] == "centre_return" for r in outbox)
        on_hold = any(r["reason"] == Code.ON_HOLD for r in interim_lines(queries, batch_id))
        if written and not on_hold and all(r["acknowledged"] for r in outbox):
            break
        time.sleep(0.3)  # the ledger is read as a screen does, a few times a second
    screen.update(queries, batch_id)
    _wait_for_readers(control)
    if fed := _feed_again(control, queries, batch_id, held(Line.SORTING)):
        screen.say(f"暂扣 {fed} 张另行存放 what sorting holds is set apart")
        _wait_for_readers(control)
    queries.close()


def _feed_again(control: Path, queries: Queries, batch_id: str, place: str) -> int:
    """An operator takes the cards at `place` out of the good stack and feeds them again, once the
    machines have come to rest; the number of cards."""
    tickets = [
        r["ticket"]
        for r in queries.rows(
            "select ticket from body where batch_id = ? and place = ? and ticket <> ''",
            batch_id, place,
        )
    ]  # fmt: skip
    status = ask_tray(control, {"op": "status"}) if tickets else {}
    if not tickets or status["hopper"] or status["in_readers"]:
        return 0
    pages = (tickets[at : at + TICKETS] for at in range(0, len(tickets), TICKETS))
    asked = ({"op": "feed", "stack": "good", "tickets": page} for page in pages)
    return sum(ask_tray(control, request)["fed"] for request in asked)


def _wait_for_readers(control: Path) -> None:
    """The last cards have their verdicts; a station that was killed has still to eject them."""
    left, deadline = -1, 0.0
    while True:
        status = ask_tray(control, {"op": "status"})
        now = int(status["hopper"]) + int(status["in_readers"])
        if not now:
            return
        if now != left:
            left, deadline = now, time.monotonic() + START_SECONDS
        if time.monotonic() > deadline:
            raise DemoError("cards were left in the readers: run the demo again")
        time.sleep(0.2)  # another process's machine: there is no event to wait for


def write_summary(demo: Demo, config: Config, batch_id: str, apdus: int) -> dict[str, Any]:
    """`summary.json`: the ledger's answer about the batch, and what the machine's counter says.
    `reconciled` is true if all that lies in the ledger is, with the halves that wait."""
    queries = Patient(config.ledger)
    result = {"seed": demo.seed, "apdus": apdus, **summary(queries, batch_id)}
    result["reconciled"] = result["reconciled"] and summary(queries)["reconciled"]
    queries.close()
    if result["in_work"] or not result["reconciled"]:
        return result
    write_whole(
        demo.home / "summary.json",
        (json.dumps(result, ensure_ascii=False, indent=1) + "\n").encode("utf-8"),
    )
    return result


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])
