"""The configuration refuses what it can't use, and says what may stand there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from centre.config import TEMPLATE, ConfigError, load, with_ledger
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


OLD = Path(__file__).parent / "version_6" / "centre.toml"
"""As `centre init` of the release before wrote it."""


def written(home: Path, text: str) -> Path:
    home.mkdir()
    (home / "centre.toml").write_text(text, encoding="utf-8")
    return home


def test_the_home_of_the_release_before_is_read_as_it_is(tmp_path: Path) -> None:
    """What it does not know yet is as in a new home, and its `[ledger] path` is that file."""
    old = load(written(tmp_path / "old", OLD.read_text("utf-8")))
    new = load(written(tmp_path / "new", TEMPLATE))
    assert old.ledger == f"sqlite:{tmp_path / 'old' / 'ledger.db'}"
    inside = {f: str(v).replace(str(new.home), str(old.home)) for f, v in vars(new).items()}
    assert {f: str(v) for f, v in vars(old).items()} == inside
    empty = load(written(tmp_path / "empty", ""))
    assert (empty.lease_minutes, empty.machines_listen) == (new.lease_minutes, new.machines_listen)


@pytest.mark.parametrize(
    "text", [OLD.read_text("utf-8"), TEMPLATE, '[ledger]\nhead_file = "h"', ""]
)
def test_a_ledger_is_named_anew_whatever_named_it(tmp_path: Path, text: str) -> None:
    """A backup comes back over another ledger, also that of an older home; nothing else changes."""
    url = "postgresql://centre@db/cards"
    home = written(tmp_path / "home", with_ledger(text, url))
    config, before = load(home), load(written(tmp_path / "before", text))
    assert config.ledger == url
    assert config.head_file.name == before.head_file.name


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[ledger]\npath = "a"\nurl = "sqlite:b"', "beside url"),
        ("[ledger]\npath = 7", "path: no such setting"),
        ("machines = 7", "a table [machines] is needed"),
        ("[machine]", "[machine]: no such table"),
    ],
)
def test_what_no_release_wrote_is_refused(tmp_path: Path, text: str, said: str) -> None:
    """A name with a slip in it is not taken for a setting that is not there."""
    with pytest.raises(ConfigError, match=re.escape(said)):
        load(written(tmp_path / "home", text))


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
