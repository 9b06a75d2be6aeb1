"""A further machine of a centre (`centre up --join HOST:PORT`): it gives the lines room.

It keeps a node of Ray (`ray start`) that belongs to the head at HOST:PORT. When that head is gone
its node ends, and with it all that runs there; when a head is back, it joins again. Nothing here
decides about work: where a line runs is the head's matter, that it runs once the ledger's.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import grpc
import structlog
from ray._private.grpc_utils import init_grpc_channel
from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

from actors.shell import machine
from centre import logs, metrics, ray_runtime
from centre.config import Config, ConfigError, host_of
from centre.floor import AlreadyUp
from centre.machine import descendants
from centre.placement import AGREED, MOVING, agreed
from centre.processes import end_with_parent
from centre.running import take_home
from ledger.connection import ledger_file
from ledger.queries import Queries
from telemetry.endpoint import withdraw

log = structlog.get_logger()

LOOK_SECONDS = 1.0
ASK_SECONDS = 3.0
HEAD_SECONDS = 5.0
"""A head that does not answer for so long is gone."""
STOP_SECONDS = 20.0


def join(config: Config, head: str, say: Callable[[str], None]) -> None:
    """Give the centre of `head` this machine, until SIGINT or SIGTERM. Raises ConfigError when
    this home does not fit that centre, LedgerUnusable, Away, and AlreadyUp."""
    host = host_of(head)
    if not host:
        raise ConfigError(f"--join {head}: HOST:PORT is needed, of `centre status` at the head")
    check_home(config)
    config.run.mkdir(parents=True, exist_ok=True)
    lock = take_home(config.home)
    if lock is None:
        raise AlreadyUp(f"a centre is up in {config.home}")
    logs.configure(config.logs / "joining.log", config.log_format)
    metrics.configure_scraping(config)
    ray_runtime.prepare(config.home, host)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        _Joining(config, head, say, stop).run()
    finally:
        ray_runtime.remove_directory(config.run)
        os.close(lock)
    say("已退出 left")


def check_home(config: Config) -> None:
    """What a line needs of this machine: the head's secret, and the ledger."""
    if ledger_file(config.ledger) is not None:
        raise ConfigError(
            "[ledger] url: 多机须用 PostgreSQL 台账, a ledger in a file serves one machine: move"
            " the centre to PostgreSQL first (docs/architecture.md, Several machines)"
        )
    token = ray_runtime.token_file(config.home)
    if not token.exists():
        raise ConfigError(f"缺少 {token} is missing: copy it from the head's home, mode 0600")
    if token.stat().st_mode & 0o177:
        raise ConfigError(f"他人可读 others can read {token}: chmod 600 {token}")
    Queries(config.ledger).close()


def ask_head(config: Config, head: str) -> str | None:
    """When the head started; None while it does not answer. Raises ConfigError if it is
    another centre's, or one of another release or ledger."""
    request = gcs_service_pb2.InternalKVGetRequest(key=AGREED)  # type: ignore[attr-defined]
    with init_grpc_channel(head) as channel:
        stub = gcs_service_pb2_grpc.InternalKVGcsServiceStub(channel)  # type: ignore[no-untyped-call]
        try:
            answer = stub.InternalKVGet(request, timeout=ASK_SECONDS)
        except grpc.RpcError as e:
            if e.code() is grpc.StatusCode.UNAUTHENTICATED:
                token = ray_runtime.token_file(config.home)
                raise ConfigError(
                    f"{head} refuses this token: copy {token} from the head's home again"
                ) from None
            return None
    if not answer.value:
        return None
    told = json.loads(answer.value)
    for name, mine in agreed(config).items():
        if told[name] != mine:
            raise ConfigError(
                f"{name}: here {mine}, at {head} {told[name]}: the machines of one centre"
                " have the same release, and the same [ledger] url in centre.toml"
            )
    return str(told["started"])


class _Joining:
    def __init__(
        self, config: Config, head: str, say: Callable[[str], None], stop: threading.Event
    ) -> None:
        self._config, self._head, self._say, self._stop = config, head, say, stop

    def run(self) -> None:
        while not self._stop.is_set():
            started = self._await_head()
            if started is None:
                return
            node = self._start_node()
            try:
                self._say(
                    f"加入 joining {self._head} as {machine()}; `centre status` there shows it"
                )
                log.info("machine.joining", head=self._head)
                self._keep(node, started)
            finally:
                self._end(node)

    def _await_head(self) -> str | None:
        """When the head started, as it says; None if we are to stop before there is one."""
        said = False
        while True:
            started = ask_head(self._config, self._head)
            if started is not None or self._stop.is_set():
                return started
            if not said:
                self._say(f"等待 waiting for the head at {self._head}")
                said = True
            self._stop.wait(LOOK_SECONDS)

    def _start_node(self) -> subprocess.Popen[bytes]:
        directory = ray_runtime.fresh_directory(self._config.run)
        with (self._config.logs / "ray.out").open("ab") as out:
            return subprocess.Popen(
                [str(Path(sys.executable).with_name("ray")), "start", "--block",
                 "--address", self._head, "--node-ip-address", self._own_address(),
                 "--node-name", machine(), "--num-cpus", str(ray_runtime.ROOM),
                 "--object-store-memory", str(ray_runtime.STORE_BYTES),
                 "--temp-dir", str(directory), "--include-log-monitor", "false"],
                stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                # Ray would wait for actors to leave by themselves; ours go when their node does.
                env={**os.environ, "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0"},
                preexec_fn=end_with_parent, start_new_session=True,
            )  # fmt: skip

    def _own_address(self) -> str:
        """By which address of ours the head is reached: the kernel's answer, nothing is sent."""
        host, _, port = self._head.rpartition(":")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((host, int(port)))
            return str(probe.getsockname()[0])

    def _keep(self, node: subprocess.Popen[bytes], started: str) -> None:
        """Until the node has ended, its head is gone or another one, or we are to stop."""
        seen = time.monotonic()
        while not self._stop.wait(LOOK_SECONDS):
            if node.poll() is not None:
                self._say("本机的 Ray 已退出 Ray has ended here, joining again")
                log.warning("machine.node_ended", code=node.returncode)
                return
            told = ask_head(self._config, self._head)
            if told == started:
                seen = time.monotonic()
            elif told is not None or time.monotonic() - seen > HEAD_SECONDS:
                self._say("总机已停或重启 the head is gone or was started anew")
                log.warning("machine.head_gone", head=self._head)
                return

    def _end(self, node: subprocess.Popen[bytes]) -> None:
        """End the node and whatever runs there. While there is a head, it is told so and starts the
        lines elsewhere at once; without one there is nobody to take leave of."""
        below = descendants(node.pid)
        try:
            if self._stop.is_set():
                node.terminate()
                node.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            log.warning("machine.node_killed")
        if node.poll() is None:
            for pid in below:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            node.wait()
        for name in MOVING:
            withdraw(self._config.targets, name)
