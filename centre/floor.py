"""The floor while it is up: Ray, the actors, their supervision, the signing of heads."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from actors.hsm.pool import KeyPool
from actors.hsm.token import write_softhsm_conf
from actors.shell import ask, machine, start
from actors.shell_ledger import LEDGER, LedgerShell, Write, writing
from actors.shell_line import LineShell
from actors.shell_provider import ProviderShell, key_pool
from centre import backup, logs, metrics, placement, ray_runtime
from centre.config import Config
from centre.gateway_actor import GatewayShell
from centre.hold import hold_of, keep, take
from centre.running import take_home, write_whole
from centre.wiring import Wiring, now, production
from domain.changes import Away, EventType, Refused
from domain.places import Line
from ledger import heads
from ledger.connection import ledger_file
from ledger.database import Hold
from ledger.queries import Queries

log = structlog.get_logger()

PING_SECONDS = 1.0
ORPHAN_SECONDS = 30.0
"""Within which the doors of a centre that was killed are gone with its Ray."""
HEALTH_SECONDS = 10.0
STEPPING = (Line.INVENTORY, Line.KEY_REPLACEMENT, Line.SORTING, Line.CUSTODY)


class Behind(Exception):
    """The ledger does not have what its signed heads name: it was cut off, or restored."""


class AlreadyUp(Exception):
    """Another process has this home up."""


def choose_address(config: Config) -> str:
    """Where the doors listen: as configured, a port 0 replaced by a free one that is kept, so
    that stations find the centre again after a restart. After a kill its orphans may hold the
    port a little longer, and would be given calls of stations beside us: they are waited for."""
    host, _, port = config.listen.rpartition(":")
    kept = config.run / "doors.json"
    wanted = _kept_address(kept) if port == "0" else config.listen
    deadline = time.monotonic() + ORPHAN_SECONDS
    while wanted and time.monotonic() < deadline:
        if _is_free(host, int(wanted.rpartition(":")[2])):
            return wanted
        time.sleep(0.1)  # another process's port: there is no event to wait for
    if port != "0":
        return config.listen  # held by somebody else: opening the doors says so
    address = f"{host}:{_free_port(host)}"
    write_whole(kept, json.dumps({"listen": address}).encode())
    return address


def _kept_address(kept: Path) -> str:
    try:
        address = str(json.loads(kept.read_text(encoding="utf-8"))["listen"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return address if address.rpartition(":")[2].isdecimal() else ""


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind((host, port))
        except OSError:
            return False
    return True


def _free_port(host: str) -> int:
    with socket.socket() as s:
        s.bind((host, 0))
        return int(s.getsockname()[1])


class NodeLost(Exception):
    """Ray has ended on this machine under a centre that is up. What stood here comes back with the
    next start: whoever keeps `centre up` running starts it again."""


@dataclass
class Floor:
    """The handles of all actors of a running centre, by name."""

    config: Config
    actors: dict[str, Any]
    keys: KeyPool
    write: Write

    @classmethod
    def start(cls, config: Config, wiring: Wiring, listen: str) -> Floor:
        """Start every actor. Their constructors do nothing; the first ping does."""

        def begin(name: str, shell: type, *args: Any) -> Any:
            prepare = metrics.prepare(config, name)
            return start(name, shell, *args, prepare, **placement.options(name))

        actors = {}
        if ledger_file(config.ledger) is not None:
            actors[LEDGER] = begin(LEDGER, LedgerShell, config.ledger, now)
        for name in config.providers:
            actors[name] = begin(name, ProviderShell, wiring.provider)
        for line, make in wiring.lines.items():
            what = (line, config.ledger, make, now, line in STEPPING, config.providers)
            actors[line] = begin(line, LineShell, *what)
        actors["gateway"] = begin("gateway", GatewayShell, config, listen)
        return cls(config, actors, key_pool(config.providers), writing(config.ledger, now))

    async def ping(self) -> dict[str, dict[str, Any]]:
        """The state of every actor: ready, loading or away, with its process id and machine."""

        async def one(name: str) -> tuple[str, dict[str, Any]]:
            try:
                health = await ask(self.actors[name].health, seconds=HEALTH_SECONDS)
            except Away as e:
                health = {"pid": 0, "machine": "", "state": "away", "note": str(e)}
            return name, health

        return dict(await asyncio.gather(*(one(name) for name in self.actors)))

    async def sign_heads(self, queries: Queries) -> int:
        """Have the provider sign what is unsigned, keep it in the ledger and outside of it."""
        links = heads.unsigned_heads(queries)
        if not links:
            return 0
        digests = [heads.head_digest(k["line"], k["number"], k["hash"], k["at"]) for k in links]
        signatures = await self.keys.sign(digests)
        signed = [heads.signed_head(k, s) for k, s in zip(links, signatures, strict=True)]
        heads.append_head_file(self.config.head_file, signed)
        await self.write("record_heads", signed)
        return len(signed)


class Supervisor:
    """Pings the actors, writes what it sees to `run/state.json`, has heads signed, evens out the
    lines over the machines."""

    def __init__(self, floor: Floor, listen: str, joining: str, say: Callable[[str], None]) -> None:
        """`listen`: where the doors are; `joining`: where further machines join."""
        self._floor, self._listen, self._joining, self._say = floor, listen, joining, say
        self._stop = asyncio.Event()
        self._was_ready = False
        self._since: dict[str, tuple[str, str]] = {}
        self._queries: Queries | None = None
        self._signed_at, self._handed_over = time.monotonic(), 0

    def stop(self) -> None:
        self._stop.set()

    async def run(self) -> None:
        """Until `stop`. Heads are signed every `head_seconds`, when cards were handed to the
        courier, and at the end. Raises NodeLost."""
        while not self._stop.is_set():
            state, machines = await self._floor.ping(), placement.machines()
            self._write(state, machines)
            self._tell(state)
            if machine() not in machines:
                raise NodeLost("Ray has ended on this machine: start `centre up` again")
            metrics.see(self._floor.config, state)
            if self._was_ready:
                self._even_out(state, machines)
            await self._sign(at_once=False)
            try:
                await asyncio.wait_for(self._stop.wait(), PING_SECONDS)
            except TimeoutError:
                continue
        await self._sign(at_once=True)
        if self._queries is not None:
            self._queries.close()

    async def _sign(self, *, at_once: bool) -> None:
        """If it is due. While the ledger's database or the keys are away it stays due."""
        try:
            if self._queries is None:
                self._queries = Queries(self._floor.config.ledger)
            shipped, asked = _last_shipped(self._queries), time.monotonic()
            due = asked - self._signed_at >= self._floor.config.head_seconds
            if at_once or due or shipped != self._handed_over:
                await self._floor.sign_heads(self._queries)
                self._signed_at, self._handed_over = asked, shipped
        except (Away, Refused, OSError) as e:
            log.warning("heads.unsigned", reason=str(e))

    def _write(self, state: dict[str, dict[str, Any]], machines: dict[str, str]) -> None:
        for name, health in state.items():
            if self._since.get(name, ("", ""))[0] != health["state"]:
                self._since[name] = health["state"], now()
            health["since"] = self._since[name][1]
        content = {
            "at": now(), "pid": os.getpid(), "listen": self._listen, "joining": self._joining,
            "machines": machines, "actors": state,
        }  # fmt: skip
        write_whole(self._floor.config.run / "state.json", json.dumps(content, indent=1).encode())

    def _even_out(self, state: dict[str, dict[str, Any]], machines: dict[str, str]) -> None:
        """Have one line start anew on the machine that has the fewest, when one joined; what it
        was asked meanwhile is asked again. The next one moves when all are ready again."""
        where = {name: health["machine"] for name, health in state.items()}
        name = placement.uneven(where, machines)
        if name is not None:
            log.info("line.moves", line=name, machine=where[name])
            placement.start_anew(self._floor.actors[name])

    def _tell(self, state: dict[str, dict[str, Any]]) -> None:
        waiting = [f"{n}: {h['state']} {h.get('note', '')}" for n, h in state.items()
                   if h["state"] != "ready"]  # fmt: skip
        if waiting and self._was_ready:
            log.warning("floor.waiting", parts=waiting)
            self._say("等待 waiting: " + "; ".join(waiting))
        if not waiting and not self._was_ready:
            log.info("floor.ready", listen=self._listen)
            self._say(f"就绪 ready, doors on {self._listen}")
        self._was_ready = not waiting


def _last_shipped(queries: Queries) -> int:
    found = queries.one("select max(id) as id from event where type = ?", EventType.BODY_SHIPPED)
    return (found and found["id"]) or 0


def up(
    config: Config,
    say: Callable[[str], None],
    wiring: Wiring | None = None,
) -> None:
    """Bring the centre up and stay until SIGINT or SIGTERM. Raises AlreadyUp, Held, Behind,
    NodeLost."""
    config.run.mkdir(parents=True, exist_ok=True)
    lock = take_home(config.home)
    if lock is None:
        raise AlreadyUp(f"a centre is up in {config.home}")
    hold = hold_of(config)
    try:
        take(hold, say)
        lost = backup.missing(config)
        if lost:
            raise Behind(", ".join(f"{item.line}: {item.commits}, {item.at}" for item in lost))
        logs.configure(config.logs / "supervisor.log", config.log_format)
        _run(config, wiring or production(config), hold, say)
    finally:
        hold.close()
        os.close(lock)
    say("已停止 stopped")


def _run(config: Config, wiring: Wiring, hold: Hold, say: Callable[[str], None]) -> None:
    listen = choose_address(config)
    write_softhsm_conf(config.conf.parent)
    metrics.configure(config)
    say(f"启动 starting, home {config.home}")
    try:
        joining = ray_runtime.start(config.home, config.machines_listen)
        placement.publish(config, now())
        floor = Floor.start(config, wiring, listen)
        asyncio.run(_supervise(Supervisor(floor, listen, joining, say), hold))
        metrics.end(config, floor.actors)
    finally:
        ray_runtime.stop(config.home)
        (config.run / "state.json").unlink(missing_ok=True)


async def _supervise(supervisor: Supervisor, hold: Hold) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, supervisor.stop)
    tasks = {asyncio.create_task(supervisor.run()), asyncio.create_task(keep(hold))}
    ended, others = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in others:
        task.cancel()
    for task in ended:
        task.result()
