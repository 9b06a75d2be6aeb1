"""The token itself: made once, finished after a kill, opened by its owner only."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from actors.hsm import ceremony, labels, token
from actors.hsm.pkcs11_provider import Pkcs11Provider
from actors.hsm.token import KeyToken, create_token
from domain.card.profile import load_profile
from domain.provider import ProviderError
from tests.conformance.card_side import Records
from tests.hsm.place import PIN, SO_PIN, Home, blank_token


def test_making_a_token_twice_changes_nothing(tmp_path: Path) -> None:
    """The second call keeps the keys of the first, and what an interruption left behind goes."""
    config = blank_token(tmp_path)
    with KeyToken(config) as first:
        before = ceremony.generate_keys(first)
    (tmp_path / "token" / "making-left").mkdir()
    create_token(tmp_path / "token", PIN, SO_PIN)
    with KeyToken(config) as again:
        assert ceremony.generate_keys(again) == before
    (tmp_path / "token" / "tokens").rename(tmp_path / "kept")
    create_token(tmp_path / "token", PIN, SO_PIN)
    assert not (tmp_path / "token" / "making-left").exists()


def test_pins_stand_on_no_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that initialises a token gets its PINs by its standard input."""
    seen: list[list[str]] = []
    run = subprocess.run

    def watched(command: list[str], **options: object) -> object:
        seen.append(command)
        assert PIN not in str(options.get("env"))
        return run(command, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "run", watched)
    create_token(tmp_path / "token", PIN, SO_PIN)
    assert seen
    assert not any(pin in argument for pin in (PIN, SO_PIN) for c in seen for argument in c)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o700, 0o660])
def test_a_pin_file_that_others_may_read_is_refused(home: Home, mode: int) -> None:
    """Only a file closed to all others is taken as PIN file."""
    home.config.pin_file.chmod(mode)
    provider = Pkcs11Provider(home.config, home.profile, Records())
    try:
        with pytest.raises(ProviderError, match="0600"):
            provider.index(["1"])
    finally:
        home.config.pin_file.chmod(0o600)


def test_a_wrong_pin_is_tried_once(tmp_path: Path) -> None:
    """A device locks itself after a few wrong PINs, so a refused PIN is not tried again until
    the program starts anew; the PIN is in no message."""
    config = blank_token(tmp_path)
    config.pin_file.unlink()
    token.write_pin_file(config.pin_file, "another-pin")
    provider = Pkcs11Provider(config, load_profile("ssc-3des"), Records())
    for message in ("PinIncorrect", "start again"):
        with pytest.raises(ProviderError, match=message) as refused:
            provider.index(["1"])
        assert "another-pin" not in str(refused.value)
    config.pin_file.write_text(PIN)
    with KeyToken(config) as fresh:
        assert not list(fresh.session.get_objects())


def test_one_session_a_process(home: Home, provider: Pkcs11Provider) -> None:
    """A second provider in the same process is refused while the first has its session."""
    provider.self_test()
    second = Pkcs11Provider(home.config, home.profile, Records())
    with pytest.raises(ProviderError, match="already holds"):
        second.index(["1"])
    provider.close()
    assert second.index(["1"]) == second.index(["1"])
    second.close()


_GENERATE = """
import sys
from pathlib import Path
from actors.hsm import ceremony
from actors.hsm.token import KeyToken, TokenConfig
module, conf, label, pin_file = sys.argv[1:]
with KeyToken(TokenConfig(module, Path(conf), label, Path(pin_file))) as token:
    token.session
    print("open", flush=True)
    ceremony.generate_keys(token)
"""


def test_key_generation_is_finished_after_kills(tmp_path: Path) -> None:
    """Killed (SIGKILL) after so many keys, at whatever point of the next, generation goes on
    where it was: what was there stays, and in the end every key is there once."""
    config = blank_token(tmp_path)
    arguments = [config.module, str(config.conf), config.label, str(config.pin_file)]
    for kills in range(6):
        with subprocess.Popen(
            [sys.executable, "-c", _GENERATE, *arguments],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(p or "." for p in sys.path)},
        ) as process:
            assert process.stdout is not None
            # "open", then a line of the log for each key that was made.
            for _ in range(1 + (kills % 3)):
                process.stdout.readline()
            process.send_signal(signal.SIGKILL)
    with KeyToken(config) as survivor:
        made = [label for label in labels.OWN if ceremony.find(survivor, label) is not None]
        before = [ceremony.entry(survivor, label) for label in made]
        after = ceremony.generate_keys(survivor)
        assert ceremony.export_transport_public_key(survivor)
        assert ceremony.export_head_public_key(survivor)
    assert [entry.label for entry in after] == list(labels.OWN)
    assert before
    assert all(entry in after for entry in before)
