"""The whole centre on real parts, as a user runs it: to its end, through kills, and again.

Ray, gRPC, SoftHSM2, SQLite over ODBC, pcscd, station agents and the tray are real processes in a
temporary place.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from proof.audit import audit
from proof.evidence import Evidence
from tests.demo.running import SEED, centre, demo

# Whoever comes first waits for the demo.
pytestmark = pytest.mark.timeout(240)


def test_a_killed_demo_goes_on_and_every_card_is_accounted_for(finished: Path, place: Path) -> None:
    """SIGKILL to the whole demo in the middle of writing; the second run finishes it, and an
    auditor who shares no code with the writers finds every card where it must be."""
    audit(finished, place / "envelopes")


def test_the_ledger_proves_itself_and_names_a_change(finished: Path, place: Path) -> None:
    """`centre verify` accepts the ledger and refuses a copy in which one event was changed."""
    assert centre(place, "verify", "--home", str(finished)).returncode == 0
    copy = place / "copy.db"
    subprocess.run(
        [sys.executable, "-c", _TAMPER, str(finished / "ledger.db"), str(copy)], check=True
    )
    found = centre(place, "verify", "--home", str(finished), "--ledger", str(copy))
    assert found.returncode == 1
    assert "inspection" in found.stdout


_TAMPER = """
import shutil, sys
from pathlib import Path
from ledger.connection import connect
source, copy = map(Path, sys.argv[1:])
shutil.copy(source, copy)
for part in ("-wal", "-shm"):
    if source.with_name(source.name + part).exists():
        shutil.copy(source.with_name(source.name + part), copy.with_name(copy.name + part))
c = connect(copy, write=True)
c.execute("update event set place = 'inspection/rejected' where id = (select max(id) from event"
          " where type = 'inspected')").close()
c.close()
"""


def test_a_card_s_history_can_be_read(finished: Path, place: Path) -> None:
    """`centre body` tells the whole way of a card, by its order id, from the last demo's home."""
    order = next(r for r in Evidence.read(finished).lines if r["result"] == "shipped")
    found = centre(place, "body", order["order_id"])
    assert found.returncode == 0
    for words in ("signed for", "formal keys written and proven", "handed to the courier"):
        assert words in found.stdout
    assert centre(place, "body", "no-such-card").returncode == 1
    batch = centre(place, "batch", f"B{SEED:06d}")
    assert batch.returncode == 0
    assert "taken" in batch.stdout


@pytest.mark.timeout(60)
def test_what_never_comes_is_seen_with_its_clock(finished: Path, place: Path) -> None:
    """Cards whose return never came and a return whose cards never came stay open beside the
    finished batch, each with what it waits for and until when."""
    for seed, words in ((SEED + 1, "factory return"), (SEED + 2, "cards")):
        batch_id = f"B{seed:06d}"
        for shown in (centre(place, "batch", batch_id), centre(place, "status")):
            (row,) = [line for line in shown.stdout.splitlines() if f"│ {batch_id} " in line]
            assert words in row
            assert "5 left" in row
    clocks = json.loads(centre(place, "status", "--json").stdout)["clocks"]
    assert f"B{SEED:06d}" not in {clock["batch_id"] for clock in clocks}


def test_a_finished_home_is_not_run_again(finished: Path, place: Path) -> None:
    """A finished demo is evidence: it is refused unless FRESH is said."""
    before = (finished / "summary.json").read_bytes()
    refused = centre(place, *demo(finished))
    assert refused.returncode == 2
    assert "FRESH" in refused.stderr
    assert (finished / "summary.json").read_bytes() == before
