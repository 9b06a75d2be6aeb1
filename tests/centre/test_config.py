"""The configuration refuses what it can't use, and says what may stand there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from centre.config import TEMPLATE, ConfigError, load
from centre.wiring import now
from ledger.commit import Ledger


@pytest.mark.parametrize(
    ("line", "written", "said"),
    [
        ('profile = "ssc-3des"', 'profile = "nope"', "one of ssc-3des, ssc-sm4"),
        ("idle_minutes = 15", "idle_minutes = nan", "at most 1440"),
        ("idle_minutes = 15", "idle_minutes = 1e12", "at most 1440"),
    ],
)
def test_a_value_that_cannot_be_is_refused_with_what_can(
    tmp_path: Path, line: str, written: str, said: str
) -> None:
    """Place and next step stand in the message; nothing is started with such a value."""
    assert line in TEMPLATE
    (tmp_path / "centre.toml").write_text(TEMPLATE.replace(line, written), encoding="utf-8")
    with pytest.raises(ConfigError, match=re.escape(said)):
        load(tmp_path)


def test_nobody_else_reads_the_ledger(tmp_path: Path) -> None:
    """It holds hashes of passwords and sealed components: it and what SQLite lays beside it are
    its owner's alone."""
    ledger = Ledger(tmp_path / "ledger.db", now)
    try:
        modes = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
    finally:
        ledger.close()
    assert set(modes) >= {"ledger.db", "ledger.db-wal"}
    assert set(modes.values()) == {0o600}
