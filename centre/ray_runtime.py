"""Ray as the centre runs it: token authentication, no dashboard, no client server, nothing spilled
to disk. Nothing of ours relies on Ray's own store.

The head is the process of `centre up` itself; `centre.joining` keeps the node of a further machine.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from pathlib import Path

import ray

from actors.shell import HOME, machine
from centre.config import ConfigError, is_loopback
from centre.running import write_whole

NAMESPACE = "centre"
STORE_BYTES = 100 * 2**20
LOOPBACK = "127.0.0.1:0"
ROOM = 16
"""Lines that one machine takes: Ray's CPUs, of which nothing but a line takes one. All machines
have room for all lines, and Ray starts a line where the fewest are (`scheduler_*`)."""
TLS = ("RAY_USE_TLS", "RAY_TLS_SERVER_CERT", "RAY_TLS_SERVER_KEY", "RAY_TLS_CA_CERT")
"""What Ray reads from the environment of `centre up`: 1, and three PEM files."""


def start(home: Path, listen: str = LOOPBACK) -> str:
    """Start Ray's processes for the centre of `home`; where other machines join them. They end
    with this process, however it ends. Raises ConfigError.

    `listen`: the address of this machine by which others reach it. Ray's ports are open on every
    interface all the same: the token keeps others out, and TLS is needed beyond loopback.
    """
    host, _, port = listen.rpartition(":")
    token = token_file(home)
    if not token.exists():
        token.parent.mkdir(mode=0o700, exist_ok=True)
        write_whole(token, secrets.token_hex(32).encode(), private=True)
    prepare(home, host)
    if port != "0":
        os.environ["RAY_GCS_SERVER_PORT"] = port
    ray.init(
        namespace=NAMESPACE,
        include_dashboard=False,
        configure_logging=False,
        log_to_driver=False,
        num_cpus=ROOM,
        resources={"home": 1},
        object_store_memory=STORE_BYTES,
        _temp_dir=str(fresh_directory(home / "run")),
        _node_ip_address=host,
        _node_name=machine(),
        _system_config={
            "automatic_object_spilling_enabled": False,
            # The lines are what this machine is for: Ray would run them at niceness 15.
            "worker_niceness": 0,
            # Ray would start a process for every CPU beforehand.
            "prestart_worker_first_driver": False,
            # An actor starts where the fewest CPUs are taken, not where it happens to be asked for.
            "scheduler_spread_threshold": 0.0,
            "scheduler_top_k_absolute": 1,
            "scheduler_top_k_fraction": 0.0,
            # A machine whose Ray was killed refuses connections and is given up after 3 of them;
            # one that does not answer at all may be busy, and is given more time.
            "health_check_period_ms": 1_000,
            "health_check_timeout_ms": 6_000,
            "health_check_failure_threshold": 3,
            # Ray's own records of calls and handlers: nobody looks, and each call pays for them.
            "task_events_report_interval_ms": 0,
            "enable_metrics_collection": False,
            "event_stats": False,
        },
    )
    # It looks ten times a second for output to show to a driver; there is no switch for it.
    node = ray._private.worker.global_worker.node
    if node is not None:
        node.kill_log_monitor()
    return f"{host}:{ray.get_runtime_context().gcs_address.rpartition(':')[2]}"


def stop(home: Path) -> None:
    ray.shutdown()
    remove_directory(home / "run")


def token_file(home: Path) -> Path:
    """The secret with which processes and machines of this centre know one another."""
    return home / "keys" / "ray-token"


def prepare(home: Path, host: str) -> None:
    """What Ray's processes on this machine read from their environment. `host`: by which address
    machines reach one another. Raises ConfigError without TLS, if others than this one can."""
    missing = [name for name in TLS if not os.environ.get(name)]
    if missing and not is_loopback(host):
        raise ConfigError(
            f"{host}: 多机之间须用 TLS, machines reach one another over TLS only: set"
            f" {', '.join(missing)} in the environment of `centre up` (docs/architecture.md)"
        )
    os.environ[HOME] = str(home)
    os.environ.pop("RAY_AUTH_TOKEN", None)  # it would come first
    os.environ["RAY_AUTH_TOKEN_PATH"] = str(token_file(home))


def fresh_directory(run: Path) -> Path:
    """A new directory for Ray's own files, short (it holds unix sockets, whose paths are limited
    to 107 bytes). `run` keeps its name, so that the next start removes what a kill left behind."""
    remove_directory(run)
    directory = Path(tempfile.mkdtemp(prefix="centre-"))
    (run / "ray-directory").write_text(str(directory), encoding="utf-8")
    return directory


def remove_directory(run: Path) -> None:
    """Remove the directory whose name `run` keeps, if there is one."""
    note = run / "ray-directory"
    if not note.exists():
        return
    directory = Path(note.read_text(encoding="utf-8"))
    if directory.name.startswith("centre-") and directory.parent == Path(tempfile.gettempdir()):
        shutil.rmtree(directory, ignore_errors=True)
    note.unlink()
