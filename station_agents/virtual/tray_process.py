"""Starting a tray process and asking it, for tests and demos."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from station_agents.virtual.control import TrayControl


class TrayProcess:
    """A tray process for `trays`, one reader for each of `vpcd` (HOST:PORT).

        with TrayProcess([tray_file], pcscd.addresses, directory / "tray.sock") as tray:
            tray.ask("eject", reader=0, stack="good")

    Leaving the block ends it in order: the tray files then hold the chips as they are.
    """

    def __init__(self, trays: Sequence[Path], vpcd: Sequence[str], control: Path) -> None:
        self.control = control
        self._arguments = [sys.executable, "-m", "station_agents.virtual.tray"]
        for tray in trays:
            self._arguments += ["--tray", str(tray)]
        for address in vpcd:
            self._arguments += ["--vpcd", address]
        self._arguments += ["--control", str(control)]
        self._process: subprocess.Popen[bytes] | None = None
        self._client: TrayControl | None = None

    def start(self) -> None:
        """Start it; returns when its control socket answers. RuntimeError if it ends instead
        (it has said why on stderr)."""
        root = Path(__file__).parents[2]
        path = os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH"))))
        self._process = subprocess.Popen(
            self._arguments, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}
        )
        if self._process.stdout is None:
            raise RuntimeError("no pipe")
        line = self._process.stdout.readline()
        if not line:
            self._end(signal.SIGKILL)
            raise RuntimeError("the tray process ended before it was ready")
        json.loads(line)

    def ask(self, op: str, **arguments: Any) -> dict[str, Any]:
        """One operation of the control socket; errors as of `TrayControl`."""
        if self._client is None:
            self._client = TrayControl(self.control)
        return self._client.ask(op, **arguments)

    def kill(self) -> None:
        """SIGKILL, as in an accident; `start` may be called again."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """End it in order; its exit code."""
        return self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> int:
        if self._client is not None:
            self._client.close()
            self._client = None
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(number)
        code = process.wait()
        if process.stdout is not None:
            process.stdout.close()
        return code

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
