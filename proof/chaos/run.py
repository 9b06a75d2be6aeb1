"""One run: a whole floor works through a delivery while its processes are killed.

The floor keeps what it started running, as a service manager does; what has no keeper (the
floor itself, after its power was cut) is started again here, as an operator would.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pyodbc

from centre import watch
from centre.config import LEDGER, Config
from centre.demo import prepare_home
from centre.demo_terminal import DemoError
from centre.machine import descendants
from centre.processes import Kept
from centre.running import state_of
from domain.changes import Away
from domain.words import in_words
from ledger.connection import LedgerUnusable
from ledger.queries import Queries
from proof.chaos import floor, victims
from proof.chaos.pauses import Kill
from proof.chaos.plan import Plan, commits, progress
from proof.chaos.second import name_the_head, second_machine
from proof.postgres import PostgresServer

LOG = Path("log") / "chaos.jsonl"
"""Every kill, one JSON object a line: `Kill`."""
DATABASE = "centre"
UNREADABLE = (LedgerUnusable, Away, pyodbc.Error)
"""The ledger can't be read now: it was not made yet, or its database was killed."""
LOOK_SECONDS = 0.1
STALL_SECONDS = 300.0
"""Without a commit for so long, the run hangs: a start of everything takes a part of it where the
machine is busy."""


class Hangs(Exception):
    """Nothing goes on any more; the message says what waits and why."""


class Ended(Exception):
    """The floor ended by itself, and not well."""


@dataclass(frozen=True)
class Chaos:
    """What to run. `home`: made anew if there is none; `fresh`: if there is one, too."""

    home: Path
    seed: int
    cards: int
    kills: int
    fresh: bool = False
    postgres: PostgresServer | None = None
    """Where the ledger lives, started already; None: SQLite."""

    @property
    def ledger(self) -> str:
        return self.postgres.url(DATABASE) if self.postgres else LEDGER


def run(chaos: Chaos, say: Callable[[str], None], kills: list[Kill]) -> None:
    """Until the floor has done its work; `kills` gets every kill. Raises Hangs or Ended; nothing
    runs then. DemoError for a home that can't be used."""
    if (chaos.home / LOG).exists() and not chaos.fresh:
        raise DemoError(f"{chaos.home} holds an earlier run: FRESH=1, or choose another OUT")
    job = floor.demo(chaos.home, chaos.seed, chaos.cards, chaos.ledger)
    config = prepare_home(replace(job, fresh=chaos.fresh))
    assert job.envelopes is not None
    job.envelopes.mkdir(mode=0o700, exist_ok=True)
    with ExitStack() as beside:
        _Run(chaos, config, say, kills, beside).run()


class _Run:
    def __init__(
        self,
        chaos: Chaos,
        config: Config,
        say: Callable[[str], None],
        kills: list[Kill],
        beside: ExitStack,
    ) -> None:
        self._chaos, self._config, self._say, self._kills = chaos, config, say, kills
        self._beside = beside
        # A ledger in a file serves one machine.
        self._head = name_the_head(chaos.home) if chaos.postgres else ""
        self._second: Kept | None = None
        self._batch = f"B{chaos.seed:06d}"
        self._plan = Plan(chaos.seed, chaos.kills)
        self._progress, self._commits = 0.0, -1
        self._moved = 0.0
        self._log = chaos.home / LOG

    def run(self) -> None:
        while True:
            self._moved = time.monotonic()
            with self._floor() as process:
                while process.poll() is None:
                    self._look()
                    self._join()
                    if self._due():
                        self._kill(process.pid)
                    time.sleep(LOOK_SECONDS)  # the ledger of other processes: there is no event
            if process.returncode == 0:
                return
            if process.returncode != -signal.SIGKILL:
                raise Ended(f"the floor ended with {process.returncode}: see {self._said}")

    @property
    def _said(self) -> Path:
        return self._chaos.home / "log" / "floor.out"

    @contextmanager
    def _floor(self) -> Iterator[subprocess.Popen[bytes]]:
        chaos = self._chaos
        with self._said.open("ab") as said:
            process = subprocess.Popen(
                [sys.executable, "-m", "proof.chaos.floor", str(chaos.home), str(chaos.seed),
                 str(chaos.cards), chaos.ledger],
                stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT,
                env={**os.environ, "XDG_STATE_HOME": str(chaos.home / "state")},
            )  # fmt: skip
        try:
            yield process
        finally:
            _cut_power(process)

    def _join(self) -> None:
        """A second machine joins the centre when that was up for the first time."""
        if self._head and self._second is None and state_of(self._chaos.home) is not None:
            machine = second_machine(self._chaos.home, self._head)
            self._second = self._beside.enter_context(machine)

    def _look(self) -> None:
        """Read from the ledger how far the run is. Raises Hangs."""
        try:
            queries = Queries(self._config.ledger)
        except UNREADABLE:
            pass
        else:
            try:
                self._progress = max(self._progress, progress(queries, self._batch))
                if (now := commits(queries)) != self._commits:
                    self._commits, self._moved = now, time.monotonic()
            except UNREADABLE:
                pass
            finally:
                queries.close()
        if time.monotonic() - self._moved > STALL_SECONDS:
            raise Hangs(f"no commit for {STALL_SECONDS:.0f} s: {self._waits()}")

    def _waits(self) -> str:
        try:
            queries = Queries(self._config.ledger)
            found = watch.stands_still(watch.look(self._config, queries))
            queries.close()
        except UNREADABLE as e:
            return f"the ledger cannot be read ({type(e).__name__})"
        words = (f"{s.where}: {in_words(s.code)} {s.note}".strip() for s in found)
        return "; ".join(words) or "nothing that the centre knows of"

    def _due(self) -> bool:
        done = len(self._kills)
        return done < self._chaos.kills and self._plan.moments[done] <= self._progress

    def _kill(self, floor_pid: int) -> None:
        postgres = self._chaos.postgres
        second = self._second.process.pid if self._second and self._second.process else None
        alive = victims.alive(floor_pid, self._chaos.home, second)
        alive[victims.POWER] = floor_pid
        if postgres is not None:
            alive |= victims.of_server(postgres)
        name = self._plan.choose(alive)
        assert name is not None, "the floor itself is alive"
        pid, at = alive[name], time.time()
        if name == victims.POWER:
            for one in descendants(pid):
                _end(one)
        elif name != victims.POSTGRES:
            _end(pid)
        if postgres is not None and name in (victims.POWER, victims.POSTGRES):
            postgres.kill()
            postgres.start()
        kill = Kill(len(self._kills) + 1, name, pid, at, self._progress)
        self._kills.append(kill)
        with self._log.open("a", encoding="utf-8") as log:
            log.write(json.dumps(asdict(kill)) + "\n")
        self._say(f"{kill.progress:4.0%}  {kill.number}/{self._chaos.kills}  SIGKILL {name}")


def _cut_power(process: subprocess.Popen[bytes]) -> None:
    """End a floor that is left, with all that it started."""
    if process.poll() is None:
        for pid in descendants(process.pid):
            _end(pid)
    process.wait()


def _end(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return  # it ended by itself meanwhile
