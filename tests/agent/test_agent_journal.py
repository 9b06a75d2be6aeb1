"""The journal of writing segments."""

from __future__ import annotations

import os
from pathlib import Path

from station_agents.journal import Journal, read_journal


def test_rotation_keeps_the_newest_and_limits_the_rest(tmp_path: Path) -> None:
    """No file grows over its limit, a fixed number of them stays, and what stays is the newest,
    in order."""
    path = tmp_path / "somewhere" / "journal.jsonl"
    journal = Journal(path, max_bytes=1_000, kept=3)
    for number in range(200):
        journal.released("p", "key_replacement", number, ["write key"])
    journal.close()
    files = sorted(p.name for p in path.parent.iterdir())
    assert files == ["journal.jsonl", *(f"journal.jsonl.{n}" for n in (1, 2, 3))]
    assert all(p.stat().st_size <= 1_000 for p in path.parent.iterdir())
    numbers = [entry["released"][2] for entry in read_journal(path, kept=3)]
    assert numbers == list(range(numbers[0], 200))
    assert len(numbers) > 20


def test_a_torn_line_spoils_no_other(tmp_path: Path) -> None:
    """A line that an accident cut off is dropped; the entry written after it is read."""
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    journal.released("p", "key_replacement", 3, ["write key", "get challenge"])
    journal.close()
    with path.open("ab") as file:
        file.write(b'{"at":1,"released":["q"')
    journal = Journal(path)
    journal.finished("p", "key_replacement", 3, [0x9000, 0x6984], "removed")
    journal.close()
    released, finished = read_journal(path)
    assert released["steps"] == ["write key", "get challenge"]
    assert finished["finished"] == ["p", "key_replacement", 3]
    assert finished["status_words"] == ["9000", "6984"]
    assert finished["broken"] == "removed"
    assert os.stat(path).st_mode & 0o077 == 0
