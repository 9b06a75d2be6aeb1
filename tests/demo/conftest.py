"""One demo, killed and finished, for all tests of this folder: it takes longer than they do."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest

from tests.demo.memory_search import keys_in_memory
from tests.demo.running import CARDS, SEED, centre, demo, environment


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="session")
def finished(place: Path) -> Path:
    """A demo that was stopped by SIGKILL in the middle and run again to its end."""
    home = place / "home"
    (place / "envelopes").mkdir(mode=0o700)
    launcher = [sys.executable, "-m", "tests.demo.watched_demo", str(home), str(place)]
    process = subprocess.Popen(
        [*launcher, str(SEED), str(CARDS)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment(place),
        start_new_session=True,
    )
    said: list[bytes] = []
    try:
        _wait_for_work(home, process, said)
        _keep_what_passes(home, place / "before")
        found = keys_in_memory(home, process.pid, place)
        (place / "memory.json").write_text(json.dumps(found), "utf-8")
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    done = centre(place, *demo(home))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    text = b"".join(said) + (done.stdout + done.stderr).encode()
    (place / "before" / "said").write_bytes(text)
    return home


def _keep_what_passes(home: Path, before: Path) -> None:
    """What a later look would not find: the plastic before its keys were replaced, what Ray has
    logged, the metrics of every process, and the command lines of the demo's processes."""
    shutil.copytree(home / "trays", before / "trays", copy_function=_copy)
    ray_directory = Path((home / "run" / "ray-directory").read_text("utf-8"))
    shutil.copytree(ray_directory / "session_latest" / "logs", before / "ray", copy_function=_copy)
    for file in (home / "prometheus" / "targets").glob("*.json"):
        for target in json.loads(file.read_text("utf-8"))[0]["targets"]:
            with (
                suppress(OSError),
                urllib.request.urlopen(f"http://{target}/metrics", timeout=10) as page,
            ):
                (before / f"{file.stem}-metrics").write_bytes(page.read())
    assert len(list(before.glob("*-metrics"))) >= 8, "metrics of most processes"
    lines = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            lines.append(process.read_bytes())
    (before / "commands").write_bytes(b"\n".join(x for x in lines if os.fsencode(home) in x))


def _copy(source: str, target: str) -> None:
    """Files come and go while processes work: one that is gone is no finding."""
    with suppress(FileNotFoundError):
        shutil.copy(source, target)


def _wait_for_work(home: Path, process: subprocess.Popen[bytes], said: list[bytes]) -> None:
    """Until some chips have got their keys: the agents' journals tell, line by line."""
    assert process.stdout is not None
    for raw in process.stdout:
        said.append(raw)
        if b"the stations are at work" in raw:
            break
    else:
        raise AssertionError("the demo ended before its stations were at work")
    journal = home / "journals" / "station-1.jsonl"
    follow = subprocess.Popen(
        ["tail", "-n", "+1", "-F", str(journal)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert follow.stdout is not None
    try:
        for _ in range(60):
            follow.stdout.readline()
    finally:
        follow.kill()
        follow.stdout.close()
        follow.wait()
