"""A ledger has one head at a time: who holds it, and when it is free again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from centre.hold import take
from ledger.connection import database
from ledger.database import Held
from tests.ledgers import new_ledger

pytestmark = pytest.mark.usefixtures("each_database")

SECONDS = 20.0
HOLDING = """
import sys
from ledger.connection import database
hold = database(sys.argv[1]).hold("the first")
hold.keep()
print("held", flush=True)
sys.stdin.read()
"""


def test_who_comes_second_learns_who_has_it(tmp_path: Path) -> None:
    """Asked again it is still refused, and the first still has it; what the first gives up, or
    was never given, is free. Another ledger is not concerned."""
    url = new_ledger(tmp_path)
    first, second = (database(url).hold(who) for who in ("the first", "the second"))
    (tmp_path / "other").mkdir()
    other = database(new_ledger(tmp_path / "other")).hold("another's")
    first.keep()
    other.keep()
    said: list[str] = []
    with pytest.raises(Held, match=r"the first.*stop that one first"):
        take(second, said.append, seconds=0.2)
    assert len(said) == 1
    first.keep()
    first.close()
    second.keep()
    with pytest.raises(Held, match="the second"):
        first.keep()
    for one in (second, other):
        one.close()


def test_what_a_killed_head_held_is_free_at_once(tmp_path: Path) -> None:
    """SIGKILL, and nobody does anything: the next one waits no longer than the database takes to
    see that the process is gone."""
    url = new_ledger(tmp_path)
    first = subprocess.Popen(
        [sys.executable, "-c", HOLDING, url],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    second = database(url).hold("the second")
    with first:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        with pytest.raises(Held, match="the first"):
            second.keep()
        first.kill()
    take(second, lambda _: None, seconds=SECONDS)
    second.close()
