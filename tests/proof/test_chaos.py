"""Real processes are killed at random moments; the seed is a new one each time, and is said."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.timeout(620)
def test_no_card_is_lost_or_doubled_whatever_is_killed(tmp_path: Path) -> None:
    """`make chaos`, small, on PostgreSQL: the run goes to its end by itself, the ledger proves
    itself, and the auditor finds each card once in plastic, ledger, packages, lists and return.
    A failure repeats with the seed that the output names."""
    done = subprocess.run(
        [sys.executable, "-m", "proof.chaos", "--out", str(tmp_path / "home"), "--cards", "120",
         "--kills", "5"],
        capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    closing = done.stdout.splitlines()[-1]
    assert re.search(r"5 kills \(.+\), longest pause \d+\.\d s \(.+\), .+ every card once: OK$",
                     closing), closing  # fmt: skip
