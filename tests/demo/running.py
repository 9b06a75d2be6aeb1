"""The `centre` command as these tests run it, and the one demo that they share."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

CARDS = 120
SEED = 2
"""Holds a lot: the chips of one bank are weak."""


def environment(place: Path) -> dict[str, str]:
    """The last demo's home is remembered in the test's own place."""
    return {**os.environ, "XDG_STATE_HOME": str(place / "state")}


def centre(
    place: Path, *arguments: str, typed: str = "", **options: Any
) -> subprocess.CompletedProcess[str]:
    """The command, with `typed` on its standard input."""
    return subprocess.run(
        [sys.executable, "-m", "centre", *arguments],
        capture_output=True,
        text=True,
        check=False,
        input=typed,
        env=environment(place),
        timeout=240,
        **options,
    )


def demo(home: Path, *more: str) -> list[str]:
    return ["demo", "--seed", str(SEED), "--cards", str(CARDS), "--out", str(home), *more]
