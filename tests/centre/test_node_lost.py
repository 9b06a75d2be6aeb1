"""A centre whose Ray has died on its own machine does not stay up without parts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from centre.home import initialise
from centre.machine import PROC, descendants
from centre.running import state_of


@pytest.mark.timeout(240)
def test_a_centre_ends_when_its_raylet_was_killed(tmp_path: Path) -> None:
    """SIGKILL to the raylet under `centre up`: the command ends by itself, with a failure, so that
    whoever keeps it running starts it again; it does not stay with every part away."""
    home = tmp_path / "home"
    initialise(home)
    process = subprocess.Popen(
        [sys.executable, "-m", "centre", "up", "--home", str(home)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        with process.stdout:
            assert any("ready" in line for line in process.stdout)
            for pid in descendants(process.pid):
                if (PROC / str(pid) / "comm").read_text("utf-8").strip() == "raylet":
                    os.kill(pid, signal.SIGKILL)
            assert any("Ray has ended" in line for line in process.stdout)
        assert process.wait(60) == 1
        assert state_of(home) is None
    finally:
        process.kill()
        process.wait()
