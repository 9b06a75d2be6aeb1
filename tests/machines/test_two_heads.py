"""Two homes name one database: one of them is up at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from centre.hold import take
from centre.home import initialise
from centre.running import state_of
from ledger.connection import connect, database


@contextmanager
def up(home: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "centre", "up", "--home", str(home)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        with process:
            yield process
            process.kill()
    finally:
        process.kill()


def says(process: subprocess.Popen[str], words: str) -> str:
    """The next line of it that has these words."""
    assert process.stdout is not None
    return next(line for line in process.stdout if words in line)


@pytest.mark.timeout(240)
def test_a_second_head_waits_for_the_first_and_takes_its_place(
    tmp_path: Path, new_ledger: Callable[[], str]
) -> None:
    """While the first is up the second starts nothing and names it; after a SIGKILL of the first it
    comes up by itself. Its own hold is lost then and another has the ledger: it ends by itself,
    with a failure, and leaves nothing running."""
    url = new_ledger()
    homes = [tmp_path / name for name in ("first", "second")]
    for home in homes:
        initialise(home, url)
    with up(homes[0]) as first:
        says(first, "starting")
        with up(homes[1]) as second:
            follows(first, second, homes[1], url)


def follows(
    first: subprocess.Popen[str], second: subprocess.Popen[str], home: Path, url: str
) -> None:
    assert f"card-centre {first.pid}" in says(second, "the ledger has a head")
    assert state_of(home) is None
    os.kill(first.pid, signal.SIGKILL)
    says(second, "ready")
    other = database(url).hold("another head")
    with closing(connect(url, write=True)) as server, closing(other):
        server.run("select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory'")
        take(other, lambda _: None)
        assert "another head" in says(second, "the ledger has a head")
        assert second.wait(60) == 1
        assert state_of(home) is None
