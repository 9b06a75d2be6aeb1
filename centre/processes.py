"""Processes beside the centre, kept running: what a service manager does on a real floor."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import structlog

log = structlog.get_logger()

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)
PAUSE_SECONDS = 0.5
STOP_SECONDS = 20.0


def end_with_parent() -> None:
    """Runs in a child before its program: SIGTERM when its parent ends, however that ends."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


@dataclass
class Kept:
    """One process that is started again whenever it ends by itself. Its output goes to a file."""

    name: str
    command: Sequence[str]
    log_file: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0
    said_before: int = 0
    """Bytes in the log file from earlier runs."""

    def __post_init__(self) -> None:
        if self.log_file.exists():
            self.said_before = self.log_file.stat().st_size

    def said(self) -> list[str]:
        """The lines that the process has said in this run."""
        with self.log_file.open("rb") as f:
            f.seek(self.said_before)
            return f.read().decode("utf-8", "replace").splitlines()


class Keeper:
    """Starts processes, starts them again when they die, and stops them in reverse order."""

    def __init__(self) -> None:
        self._kept: list[Kept] = []
        self._threads: list[threading.Thread] = []
        self._stopping = threading.Event()

    def keep(self, kept: Kept) -> None:
        """Start `kept` and keep it running. A child ends with this process, however it ends:
        the signal is tied to the thread that starts it, so each has a thread for its life."""
        self._kept.append(kept)
        started = threading.Event()
        thread = threading.Thread(target=self._run, args=(kept, started), daemon=True)
        self._threads.append(thread)
        thread.start()
        started.wait()

    def _run(self, kept: Kept, started: threading.Event) -> None:
        while not self._stopping.is_set():
            with kept.log_file.open("ab") as out:
                kept.process = subprocess.Popen(
                    kept.command,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **kept.environment},
                    preexec_fn=end_with_parent,
                    start_new_session=True,
                )
            kept.starts += 1
            started.set()
            code = kept.process.wait()
            if self._stopping.wait(PAUSE_SECONDS):
                return
            log.warning("process.ended", name=kept.name, code=code, starts=kept.starts)

    def find(self, name: str) -> Kept:
        return next(k for k in self._kept if k.name == name)

    def stop(self) -> None:
        """End every process, the last started first: SIGTERM, and SIGKILL for what stays."""
        self._stopping.set()
        for kept in reversed(self._kept):
            process = kept.process
            if process is None or process.poll() is not None:
                continue
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                log.warning("process.killed", name=kept.name)
                process.kill()
                process.wait()
        for thread in self._threads:
            thread.join(STOP_SECONDS)
