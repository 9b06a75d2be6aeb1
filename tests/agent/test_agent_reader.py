"""Commands through a real reader: procedure status words, and what the agent adds in time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from station_agents.virtual.pcscd import Pcscd
from tests.agent.floor import ROOT, tray_of
from tests.agent.scripted_chip import ScriptedChip
from tests.virtual.floor import READ_NAME, SELECT, card_line

RATIO = 0.8


def ask(service: Pcscd, *arguments: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "tests.agent.reader_client", *arguments],
        env={**os.environ, **service.environment, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        timeout=60,
        check=True,
    )
    return json.loads(done.stdout)


def test_procedure_status_words_are_followed(service: Pcscd) -> None:
    """61xx is followed by GET RESPONSE on the command's channel, again while more is there; 6Cxx
    by the same command with that Le, once; a command without Le gets none (ISO/IEC 7816-4, 5.6)."""
    answers = {
        "00a40400026f01": "6103",
        "00c0000003": "010203" + "6102",
        "00c0000002": "0405" + "9000",
        "00b2013400": "6c04",
        "00b2013404": "01020304" + "9000",
        "01ca006000": "6c02",
        "01ca006002": "6101",
        "01c0000001": "ff" + "9000",
        "00b2023400": "6c05",
        "00b2023405": "6c06",
        "0082000102aabb": "6c08",
    }
    table = {bytes.fromhex(command): bytes.fromhex(answer) for command, answer in answers.items()}
    sent = ["00a40400026f01", "00b2013400", "01ca006000", "00b2023400", "0082000102aabb"]
    with ScriptedChip(service.addresses[0], table) as chip:
        assert ask(service, "chain", service.readers[0], *sent) == [
            "01020304059000", "010203049000", "ff9000", "6c06", "6c08",
        ]  # fmt: skip
        assert [m.hex() for m in chip.received] == list(answers)


def test_a_chip_whose_power_went_unseen_is_not_taken_for_silent(service: Pcscd) -> None:
    """A chip that loses its power for a moment, in which only a command meets it, is believed
    absent by pcscd until it is removed: the reader powers it on all the same."""
    select, fall = "00a40400026f01", "0084000008"
    table = {bytes.fromhex(select): b"\x90\x00", bytes.fromhex(fall): b""}
    commands = [select, fall, select]
    with ScriptedChip(service.addresses[0], table):
        answers = ask(service, "chain", service.readers[0], *commands)
    assert answers == ["9000", "lost", "9000"]


def test_segments_run_at_the_speed_of_the_reader(service: Pcscd, short_directory: Path) -> None:
    """A segment of commands reaches at least 80 % of a bare loop over SCardTransmit with the same
    commands. What the agent adds is told by its thread's processor time: by the clock alone, what
    others take of the machine would hide it. Of many short rounds the fastest counts."""
    with tray_of(service, short_directory, card_line(0)):
        rounds = ask(
            service, "overhead", service.readers[0], SELECT.hex(), READ_NAME.hex(), "200", "12"
        )
    floor = min(clock for (clock, _), _ in rounds)
    added = min(ours for _, (_, ours) in rounds) - min(bare for (_, bare), _ in rounds)
    assert floor / (floor + added) >= RATIO, f"{added / 200 * 1e6:.0f} µs more a command"
