"""The endpoint of a process, in a process of its own: it is open until the process ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

_PROCESS = """
import sys, urllib.request, json
from pathlib import Path
import prometheus_client
from telemetry.endpoint import open_endpoint, withdraw
targets, instance = Path(sys.argv[1]), sys.argv[2]
prometheus_client.Counter("card_centre_worked_total", "Work").inc()
for _ in range(2):
    open_endpoint(targets, instance)
found = [json.loads(f.read_text()) for f in targets.iterdir()] if targets.is_dir() else []
pages = []
for (group,) in found:
    with urllib.request.urlopen(f"http://{group['targets'][0]}/metrics") as answer:
        pages.append(answer.read().decode())
withdraw(targets, instance)
left = list(targets.iterdir()) if targets.is_dir() else []
print(json.dumps({"labels": [g["labels"] for (g,) in found], "pages": pages, "left": len(left)}))
"""


def process(targets: Path, instance: str) -> tuple[dict[str, Any], str]:
    """What such a process saw of itself, and its log."""
    done = subprocess.run(
        [sys.executable, "-c", _PROCESS, str(targets), instance],
        capture_output=True,
        text=True,
        check=True,
    )
    *log, last = done.stdout.splitlines()
    return json.loads(last), "\n".join(log)


def test_a_process_says_where_its_metrics_are_until_it_withdraws(tmp_path: Path) -> None:
    """One file and one endpoint however often it is opened, whatever characters the name has; its
    own metrics and those of the process are there; afterwards nothing is left."""
    seen, _ = process(tmp_path / "targets", "窗口/1")
    assert seen["labels"] == [{"instance": "窗口/1"}]
    (page,) = seen["pages"]
    assert "card_centre_worked_total 1.0" in page
    assert "process_cpu_seconds_total" in page
    assert "python_gc" not in page
    assert "_created" not in page
    assert seen["left"] == 0


def test_metrics_that_cannot_be_shown_do_not_stop_the_work(tmp_path: Path) -> None:
    """A directory that can't be made: the process goes on to its end, and the log says so."""
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    seen, log = process(in_the_way / "targets", "S1")
    assert seen["pages"] == []
    assert "metrics.unseen" in log
