"""The pool over real processes: Ray actors with a session each on one SoftHSM2 token."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from domain.card.profile import load_profile
from domain.codes import Code
from tests.hsm.killed_members import CARDS, PROVIDERS


@pytest.mark.timeout(180)
def test_members_are_killed_under_work_and_the_line_goes_on(tmp_path: Path) -> None:
    """One member is killed (SIGKILL): no chip waits, the other does its part. Then both, and no
    session opens for a while: the line says KEY_PROVIDER_AWAY and pauses, and goes on by itself
    when they are back. No chip is read anew, no turn decided twice, each key is written once; and
    whichever member is asked, a carton whose bodies all have their keys draws no more."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.hsm.killed_members", str(tmp_path / "floor")],
        capture_output=True,
        text=True,
        check=False,
        timeout=170,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["told, one killed"] == []
    assert seen["told"] == [Code.KEY_PROVIDER_AWAY]
    code, note = seen["paused"]
    assert code == Code.KEY_PROVIDER_AWAY
    assert all(name in note for name in PROVIDERS)
    assert seen["read anew"] == 0
    keys = len(load_profile("ssc-3des").keys)
    written = seen["writes"][str(keys)]
    assert written > CARDS * 3 // 4
    assert seen["writes"].keys() <= {"0", str(keys)}
    assert seen["events"] == {"key_write_released 1": written, "keys_replaced 1": written}
    assert seen["more"] == [Code.KEY_QUOTA_EXCEEDED] * len(PROVIDERS)
