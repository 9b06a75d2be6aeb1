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
from tests.demo.crash import CrashPoints
from tests.demo.running import SEED, centre, demo, environment

# Whoever comes first waits for the demo.
pytestmark = pytest.mark.timeout(240)


def test_a_killed_demo_goes_on_and_every_card_is_accounted_for(finished: Path) -> None:
    """SIGKILL to the whole demo in the middle of writing; the second run finishes it, and an
    auditor who shares no code with the writers finds every card where it must be."""
    audit(finished)


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
    assert f"│ B{SEED:06d} " not in centre(place, "status").stdout


def test_a_finished_home_is_not_run_again(finished: Path, place: Path) -> None:
    """A finished demo is evidence: it is refused unless FRESH is said."""
    before = (finished / "summary.json").read_bytes()
    refused = centre(place, *demo(finished))
    assert refused.returncode == 2
    assert "FRESH" in refused.stderr
    assert (finished / "summary.json").read_bytes() == before


CRASHES = {
    # a line, before and after the commit that releases the first WRITE KEY, and of the result
    "key_replacement.key_write_released.before": 3,
    "key_replacement.key_write_released.after": 6,
    "key_replacement.keys_replaced.before": 9,
    "key_replacement.keys_replaced.after": 12,
    "inspection.inspected.before": 2,
    "inspection.inspected.after": 5,
    # sampling: the draw, and a sample read again
    "sorting.body_drawn.after": 0,
    "sampling.sample_passed.before": 4,
    "sampling.sample_passed.after": 8,
    # sorting: packages opened with their lists, closed by a scan before and after it took effect
    "sorting.package_opened.after": 0,
    "sorting.package_closed.before": 1,
    "sorting.package_closed.after": 3,
    "sorting.body_shipped.after": 0,
    "sorting.return_written.after": 0,
    # people: an act confirmed and not done yet, and done without anybody told
    "custody.act_confirmed.after": 1,
    "custody.act_done.before": 1,
    "custody.act_done.after": 1,
    # a provider, before and after it made WRITE KEY commands
    "provider.before": 20,
    "provider.after": 40,
    # a tray, before a chip wrote a key, and when it is written but not answered
    "tray.write.before": 70,
    "tray.write.after": 140,
    # an agent, before, within and after a segment that writes
    "agent.write.before": 15,
    "agent.write.within": 25,
    "agent.write.after": 30,
    # pcscd, while an agent is before and within a segment that writes
    "pcscd.write.before": 50,
    "pcscd.write.within": 60,
}


@pytest.fixture
def crash_directory(place: Path) -> Path:
    directory = place / "crashes"
    CrashPoints.plan(directory, CRASHES)
    return directory


@pytest.mark.timeout(300)
def test_kills_at_every_named_state_lose_and_double_nothing(
    place: Path, crash_directory: Path
) -> None:
    """Lines, provider, tray, agents and pcscd are killed one after another at named states, all
    in one run. Every crash happens, the run ends by itself, and exactly the planted faults are
    rejected or held: a chip that we had keyed before a kill is finished, not rejected."""
    home = place / "killed"
    done = subprocess.run(
        [sys.executable, "-m", "tests.demo.killed_demo", str(home), str(crash_directory)],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        env=environment(place),
        timeout=280,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert CrashPoints.left(crash_directory) == set()
    evidence = audit(home)
    assert evidence.summary["in_work"] == 0
    assert centre(place, "verify", "--home", str(home)).returncode == 0
    events = json.loads(
        subprocess.run(
            [sys.executable, "-c", _LEASES, str(home / "ledger.db")],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    )
    assert events["again"] > 0, "no chip was found half written and finished"


_LEASES = """
import json, sys
from pathlib import Path
from ledger.queries import Queries

q = Queries(Path(sys.argv[1]))
print(json.dumps(q.one("select count(*) as again from body where lease > 1")))
"""
