"""Ray as the centre runs it: one node on loopback, token authentication, no dashboard, no client
server, nothing spilled to disk. Nothing of ours relies on Ray's own store."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import ray

NAMESPACE = "centre"
STORE_BYTES = 100 * 2**20


def start(run: Path) -> None:
    """Start Ray's processes for this centre. They end with this process, however it ends.

    `run` keeps the name of Ray's own directory (short: it holds unix sockets, whose paths are
    limited to 107 bytes), so that the next start removes what a kill left behind.
    """
    note = run / "ray-directory"
    if note.exists():
        _remove(Path(note.read_text(encoding="utf-8")))
    directory = Path(tempfile.mkdtemp(prefix="centre-"))
    note.write_text(str(directory), encoding="utf-8")
    ray.init(
        namespace=NAMESPACE,
        include_dashboard=False,
        configure_logging=False,
        log_to_driver=False,
        num_cpus=os.cpu_count(),
        object_store_memory=STORE_BYTES,
        _temp_dir=str(directory),
        _node_ip_address="127.0.0.1",
        _system_config={
            "automatic_object_spilling_enabled": False,
            # The lines are what this machine is for: Ray would run them at niceness 15.
            "worker_niceness": 0,
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


def stop(run: Path) -> None:
    ray.shutdown()
    note = run / "ray-directory"
    if note.exists():
        _remove(Path(note.read_text(encoding="utf-8")))
        note.unlink()


def _remove(directory: Path) -> None:
    if directory.name.startswith("centre-") and directory.parent == Path(tempfile.gettempdir()):
        shutil.rmtree(directory, ignore_errors=True)
