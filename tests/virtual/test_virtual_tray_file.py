"""A tray on file is its base with the journal replayed, whatever instant the writer died at."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from station_agents.virtual.hopper import Hopper, Places
from station_agents.virtual.social_memory import KeyWritten, RecordWritten, TriesLeft
from station_agents.virtual.tray_file import OpenTray, TrayFileError, journal_path, read_tray
from tests.virtual.floor import EAK, card_line, write_tray

NEW = KeyWritten(EAK, 1, bytes(range(16)), 5, 1)


@pytest.fixture
def tray_path(tmp_path: Path) -> Path:
    return write_tray(tmp_path / "tray-1.jsonl", [card_line(n) for n in range(6)])


def test_changes_and_moves_are_replayed(tray_path: Path) -> None:
    """Keys (and how often each was written), counters, records and stacks come back; a card fed
    again is last in the hopper."""
    with OpenTray(tray_path) as tray:
        tray.change("00001", NEW)
        tray.change("00002", TriesLeft(EAK, 3))
        tray.change("00003", RecordWritten(0x06, 0x0A, b"1"))
        tray.append([{"card": "00000", "stack": "held"}, {"card": "00004", "stack": "good"}])
        tray.append([{"card": "00000", "stack": "hopper"}])
    cards = read_tray(tray_path)[0].cards
    key = cards["00001"].memory.social.keys[EAK]
    assert (key.version, key.value, key.tries_left, key.written) == (1, NEW.value, 5, 1)
    assert cards["00002"].memory.social.keys[EAK].tries_left == 3
    assert cards["00003"].memory.social.records[0x06][0x0A] == b"1"
    assert cards["00004"].stack == "good"
    assert [c.card_id for c in cards.values() if c.stack == "hopper"][-1] == "00000"


def test_a_line_torn_at_any_byte_is_dropped(tray_path: Path) -> None:
    """The journal cut anywhere is the whole lines before the cut, and can be written on."""
    with OpenTray(tray_path) as tray:
        tray.change("00001", TriesLeft(EAK, 4))
        tray.change("00001", NEW)
    journal = journal_path(tray_path)
    data = journal.read_bytes()
    first = data.index(b"\n") + 1
    for cut in range(len(data) + 1):
        journal.write_bytes(data[:cut])
        with OpenTray(tray_path) as tray:
            key = tray.tray.cards["00001"].memory.social.keys[EAK]
            expected = (1, 5) if cut == len(data) else (0, 4 if cut >= first else 5)
            assert (key.version, key.tries_left) == expected
            tray.change("00005", TriesLeft(EAK, 1))
        assert read_tray(tray_path)[0].cards["00005"].memory.social.keys[EAK].tries_left == 1


def test_named_cards_of_a_stack_are_fed_and_no_others(tray_path: Path, tmp_path: Path) -> None:
    """`feed` with tickets takes those cards of that stack; asked again, none."""
    with OpenTray(tray_path) as tray:
        hopper = Hopper([tray], 1, Places(tmp_path / "places"))
        tickets = []
        for stack in ("good", "good", "held"):
            tickets.append(hopper.look(0)["ticket"])
            hopper.eject(0, stack)
        assert [hopper.feed("good", tickets[1:]) for _ in range(2)] == [1, 0]
        assert hopper.status() == {
            "hopper": 3,
            "in_readers": 1,
            "stacks": {"good": 1, "held": 1, "rejected": 0},
        }


def test_compaction_keeps_every_chip_and_place(tray_path: Path, tmp_path: Path) -> None:
    """Base file alone, and base file with the old journal still there (a crash between the two
    steps), give the same chips, stacks and hopper as before."""
    places = Places(tmp_path / "places")
    with OpenTray(tray_path) as tray:
        hopper = Hopper([tray], 2, places)
        tray.change("00001", NEW)
        tray.tray.cards["00001"].memory.apply(NEW)
        hopper.eject(0, "good")
        hopper.eject(1, "rejected")
        hopper.feed("good")
        before = read_tray(tray_path)[0].cards
        old_journal = journal_path(tray_path).read_bytes()
        hopper.compact()
    assert journal_path(tray_path).read_bytes() == b""
    assert read_tray(tray_path)[0].cards == before
    journal_path(tray_path).write_bytes(old_journal)
    assert read_tray(tray_path)[0].cards == before
    with OpenTray(tray_path) as tray:
        again = Hopper([tray], 2, places)
        assert again.look(0)["face_number"] == hopper.look(0)["face_number"]
        assert again.look(1)["face_number"] == hopper.look(1)["face_number"]
        assert again.status() == hopper.status()
    places.close()


def test_a_repeated_eject_moves_nothing(tray_path: Path, tmp_path: Path) -> None:
    """With its ticket a card is ejected once, however often it is asked for."""
    places = Places(tmp_path / "places")
    with OpenTray(tray_path) as tray:
        hopper = Hopper([tray], 1, places)
        ticket = hopper.look(0)["ticket"]
        assert hopper.eject(0, "good", ticket)
        assert hopper.eject(0, "good", ticket)
        assert hopper.status()["stacks"]["good"] == 1
    places.close()


def test_one_process_at_a_time(tray_path: Path) -> None:
    """A tray that is open is not opened again: no chip exists twice."""
    with OpenTray(tray_path), pytest.raises(TrayFileError, match="another process"):
        OpenTray(tray_path)
    OpenTray(tray_path).close()


@pytest.mark.parametrize("fault", ["twice", "format", "value", "middle"])
def test_faulty_files_are_named_without_their_content(tray_path: Path, fault: str) -> None:
    """A tray that cannot be right is refused with file and line; the message holds no value."""
    lines = tray_path.read_text().splitlines()
    if fault == "twice":
        lines.append(lines[1])
    elif fault == "format":
        lines[0] = lines[0].replace("tray/2", "tray/1")
    elif fault == "value":
        row = json.loads(lines[2])
        row["social"]["keys"][0]["value"] = "C0FFEE"
        lines[2] = json.dumps(row)
    else:
        journal_path(tray_path).write_text('{"card": "C0FFEE", "tries": [7, 3]}\n')
    tray_path.write_text("\n".join(lines) + "\n")
    with pytest.raises(TrayFileError) as caught:
        OpenTray(tray_path)
    assert "C0FFEE" not in str(caught.value)
    assert caught.value.__cause__ is None
