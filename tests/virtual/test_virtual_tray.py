"""Tray and readers through real pcscd, driver, TCP and pyscard: what is acknowledged is on file,
nothing is lost or doubled by a kill, and only `eject` brings the next card."""

from __future__ import annotations

import json
import os
import random
import secrets
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from domain.card.apdu import select_application
from station_agents.virtual.control import TrayControl
from station_agents.virtual.financial_memory import PERSONALIZED
from station_agents.virtual.pcscd import Pcscd
from station_agents.virtual.tray_file import Plastic, journal_path, read_tray
from station_agents.virtual.tray_process import TrayProcess
from station_agents.virtual.tray_rows import memory_row
from tests.virtual import bank
from tests.virtual.bank import UNIONPAY
from tests.virtual.floor import (
    EAK,
    GET_CHALLENGE,
    MK,
    PROFILE,
    READ_NAME,
    SELECT,
    Terminal,
    card_line,
    external_authenticate,
    key_of,
    write_key,
    write_tray,
)

READERS = 2
GONE_MAX = 3.0  # seconds within which pcscd and tray have found each other again


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pcscd]:
    with Pcscd(tmp_path_factory.mktemp("pc"), readers=READERS) as service:
        yield service


@pytest.fixture
def terminal(service: Pcscd) -> Iterator[Terminal]:
    terminal = Terminal(service.environment)
    yield terminal
    terminal.close()


def tray_for(service: Pcscd, directory: Path, count: int, **special: bool) -> TrayProcess:
    """A tray of `count` chips; `silent_3=True` makes the fourth one silent."""
    cards = [card_line(n, silent=special.get(f"silent_{n}", False)) for n in range(count)]
    path = write_tray(directory / "tray-1.jsonl", cards)
    return TrayProcess([path], service.addresses, directory / "tray.sock")


def face(number: int) -> str:
    return f"A{number:08d}"


def atr(number: int) -> str:
    return str(card_line(number)["atr"])


def on_file(directory: Path) -> dict[str, Plastic]:
    return read_tray(directory / "tray-1.jsonl")[0].cards


def test_only_eject_brings_the_next_card(
    service: Pcscd, terminal: Terminal, tmp_path: Path
) -> None:
    """Reset, power-on and even power-off act on the card that lies there; after an eject nothing
    answers until the power was off, then the next card does, without a removal."""
    r0, r1 = service.readers
    with tray_for(service, tmp_path, 4) as tray:
        assert terminal.open(r0)
        assert terminal.open(r1)
        assert (terminal("atr", r0), terminal("atr", r1)) == (atr(0), atr(1))
        for unpower in (False, True):
            assert terminal("reconnect", r0, unpower) == 0
            assert terminal("atr", r0) == atr(0)
            assert terminal.send(r0, SELECT) == b"\x90\x00"
        assert tray.ask("eject", reader=0, stack="good") == {"loaded": True}
        look = tray.ask("look", reader=0)
        assert (look["carton_id"], look["face_number"]) == ("C1", face(2))
        assert terminal("reconnect", r0, True) == 0
        assert terminal("atr", r0) == atr(2)
        assert terminal.send(r0, READ_NAME) == b"\x69\x85"  # nothing of the old session
        assert terminal("atr", r1) == atr(1)
        status = tray.ask("status")
        assert (status["hopper"], status["in_readers"], status["stacks"]["good"]) == (1, 2, 1)
        assert status["apdus"] == 3
        assert tray.ask("count") == {"cartons": {"C1": 4}}
        (seen,) = tray.ask("list", stack="good")["cards"]
        assert (seen["carton_id"], seen["face_number"]) == ("C1", face(0))
        assert tray.ask("list", stack="held") == {"cards": []}


def test_an_ejected_card_does_not_answer(
    service: Pcscd, terminal: Terminal, tmp_path: Path
) -> None:
    """A command between eject and power-off reaches neither the old card nor the next."""
    with tray_for(service, tmp_path, 3) as tray:
        assert terminal.open(service.readers[0])
        assert terminal.send(service.readers[0], SELECT) == b"\x90\x00"
        tray.ask("eject", reader=0, stack="held")
        assert terminal.send(service.readers[0], READ_NAME) is None


def test_a_financial_side_survives_the_tray(
    service: Pcscd, terminal: Terminal, tmp_path: Path
) -> None:
    """Over real readers: personalized until the tray is killed, finished after it came back, and
    read; what was answered before the kill is there after it."""
    r0 = service.readers[0]
    row = memory_row(bank.memory("aes", 16))["financial"]
    path = write_tray(tmp_path / "tray-1.jsonl", [{**card_line(0), "financial": row}])
    new, level = bank.keys("bank", 16), 0x33

    def send(apdu: bytes) -> bytes:
        answer = terminal.send(r0, apdu)
        assert answer is not None
        return answer

    with TrayProcess([path], service.addresses, tmp_path / "tray.sock") as tray:
        assert terminal.open(r0)
        assert set(bank.run(send, bank.new_keys(bank.keys("maker", 16), new, level))) == {"9000"}
        turns = bank.data(UNIONPAY, bank.unionpay(), new, level)
        assert bank.run(send, turns, most=6) == ["9000"] * 6
        tray.kill()
        held = on_file(tmp_path)["00000"].memory.financial
        assert held is not None
        assert [k.version for k in held.key_sets] == [bank.NEW_VERSION]
        before = dict(held.applications[UNIONPAY].dgis)
        assert len(before) > 3
        tray.start()
        assert terminal.open(r0)
        turns = bank.data(UNIONPAY, bank.unionpay(), new, level)
        assert set(bank.run(send, turns)) == {"9000"}
        assert send(bytes(select_application(UNIONPAY))) == b"\x90\x00"
        assert send(bytes.fromhex("00B2021400")) == bank.records()[0x0202] + b"\x90\x00"
    held = on_file(tmp_path)["00000"].memory.financial
    assert held is not None
    assert held.applications[UNIONPAY].state == PERSONALIZED
    assert before.items() <= held.applications[UNIONPAY].dgis.items()


def test_empty_and_silent_readers_then_feed(
    service: Pcscd, terminal: Terminal, tmp_path: Path
) -> None:
    """A silent card and an empty reader look like no card; the next one is seen without a power
    cycle; `wait` answers when a card is fed, not before; a fed card is the same chip again."""
    reader = service.readers[0]
    with tray_for(service, tmp_path, 3, silent_2=True) as tray:
        assert terminal.open(reader)
        tray.ask("eject", reader=1, stack="good")  # card 1; the silent one lies in reader 1
        assert tray.ask("look", reader=1)["face_number"] == face(2)
        assert tray.ask("eject", reader=0, stack="held") == {"loaded": False}
        assert tray.ask("look", reader=0)["loaded"] is False
        assert terminal("wait", reader, False, 5)
        start = time.monotonic()
        assert tray.ask("wait", reader=0, seconds=0.2) == {"loaded": False}
        assert 0.15 < time.monotonic() - start < 1
        seen: list[bool] = []

        def wait() -> None:
            with TrayControl(tray.control) as other:
                seen.append(other.ask("wait", reader=0, seconds=20)["loaded"])

        waiting = threading.Thread(target=wait)
        waiting.start()
        assert tray.ask("feed", stack="held") == {"fed": 1}
        waiting.join(5)
        assert seen == [True]
        assert terminal.open(reader)
        assert terminal("atr", reader) == atr(0)
        # pcscd looks every 0.4 s: what it last saw there was another card.
        assert terminal("wait", service.readers[1], False, 20)
        assert not terminal("wait", service.readers[1], True, 1)
        tray.ask("feed", stack="good")
        tray.ask("eject", reader=1, stack="rejected")
        assert terminal.open(service.readers[1])
        assert terminal("atr", service.readers[1]) == atr(1)


def test_bad_requests_are_answered_and_move_nothing(service: Pcscd, tmp_path: Path) -> None:
    """Each faulty request gets an error, and the conversation goes on."""
    with tray_for(service, tmp_path, 2) as tray, TrayControl(tray.control) as client:
        for op, arguments in (
            ("eject", {"reader": 0, "stack": "floor"}),
            ("eject", {"reader": 7, "stack": "good"}),
            ("eject", {"reader": -1, "stack": "good"}),
            ("eject", {"reader": 0}),
            ("look", {"reader": "0"}),
            ("feed", {"stack": "hopper"}),
            ("dance", {}),
        ):
            with pytest.raises(ValueError):
                client.ask(op, **arguments)
        assert client.ask("status")["in_readers"] == 2


def change_keys(terminal: Terminal, reader: str, number: int, done: dict[int, bytes]) -> bool:
    """Replace keys of a chip in one session; `done` gets the acknowledged ones."""
    mk = key_of(card_line(number), MK)
    if terminal.send(reader, SELECT) != b"\x90\x00":
        return False
    challenge = terminal.send(reader, GET_CHALLENGE)
    if challenge is None:
        return False
    answer = terminal.send(reader, external_authenticate(MK, mk, challenge[:8]))
    if answer != b"\x90\x00":
        return False
    for slot in (slot for slot in PROFILE.keys[:-1] if not slot.df):
        new = secrets.token_bytes(16)
        challenge = terminal.send(reader, GET_CHALLENGE)
        if challenge is None:
            return False
        answer = terminal.send(reader, write_key(slot.key_id, 1, mk, new, challenge[:8]))
        if answer != b"\x90\x00":
            # Sent and not answered: either is right, so it is not known.
            done.pop(slot.key_id, None)
            return False
        done[slot.key_id] = new
    return True


def test_sigkill_at_random_moments_loses_and_doubles_nothing(
    service: Pcscd, terminal: Terminal, tmp_path: Path
) -> None:
    """The tray is killed again and again while keys are written through pcscd: every write that
    was acknowledged is on file with its whole key, every other key is whole, every eject that
    was answered is on file, and the cards in the readers lie there again."""
    reader = service.readers[0]
    rng = random.Random(11)
    tray = tray_for(service, tmp_path, 60)
    acknowledged: dict[int, dict[int, bytes]] = {}
    ejected: set[str] = set()
    for _ in range(6):
        tray.start()
        lies = {r: tray.ask("look", reader=r)["face_number"] for r in range(READERS)}
        assert terminal.open(reader)
        killer = threading.Timer(rng.uniform(0.0, 0.06), tray.kill)
        with TrayControl(tray.control) as control:
            killer.start()
            try:
                while True:
                    shown = control.ask("look", reader=0)["face_number"]
                    number = int(shown[1:])
                    done = acknowledged.setdefault(number, {})
                    if not change_keys(terminal, reader, number, done):
                        break
                    lies[0] = ""  # from here it may be ejected without our knowing
                    control.ask("eject", reader=0, stack="good")
                    ejected.add(shown)
                    lies[0] = control.ask("look", reader=0)["face_number"]
                    if terminal("reconnect", reader, True) != 0:
                        break
            except OSError:
                pass
        killer.join()
        cards = on_file(tmp_path)
        assert len(cards) == 60
        for card_id, card in cards.items():
            line = card_line(int(card_id))
            done = acknowledged.get(int(card_id), {})
            for key_id, key in card.memory.social.keys.items():
                if key_id in done:
                    assert (key.version, key.value) == (1, done[key_id])
                elif key.version == 0:
                    assert key.value == key_of(line, key_id)
                assert len(key.value) == 16
            assert (card.face_number in ejected) <= (card.stack == "good")
        tray.start()
        for r, shown in lies.items():
            assert shown in ("", tray.ask("look", reader=r)["face_number"])
        tray.kill()
    assert sum(map(len, acknowledged.values())) > 20
    tray.start()
    apdus = tray.ask("status")["apdus"]
    assert tray.stop() == 0
    assert apdus >= sum(2 * len(done) for done in acknowledged.values())
    after = on_file(tmp_path)
    assert journal_path(tmp_path / "tray-1.jsonl").read_bytes() == b""
    assert after == cards


def test_a_wrong_try_is_counted_although_the_power_goes(
    service: Pcscd, terminal: Terminal, tmp_path: Path
) -> None:
    """Killing the tray after each wrong EXTERNAL AUTHENTICATE gives an attacker no new tries."""
    reader = service.readers[0]
    tray = tray_for(service, tmp_path, 2)
    for left in (4, 3):
        tray.start()
        assert terminal.open(reader)
        terminal.send(reader, SELECT)
        terminal.send(reader, GET_CHALLENGE)
        answer = terminal.send(reader, bytes((0, 0x82, 0, EAK, 8)) + bytes(8))
        assert answer == bytes((0x63, 0xC0 | left))
        tray.kill()
        assert on_file(tmp_path)["00000"].memory.social.keys[EAK].tries_left == left


def test_power_is_lost_on_command(service: Pcscd, terminal: Terminal, tmp_path: Path) -> None:
    """At the named command the chip falls silent; powered again it has what it had on file: an
    answer that was lost had its effect, a command that never came had none."""
    reader = service.readers[0]
    wrong = bytes((0, 0x82, 0, EAK, 8)) + bytes(8)
    with tray_for(service, tmp_path, 2) as tray:
        assert terminal.open(reader)
        for executed, left in ((False, 5), (True, 4)):
            tray.ask("cut", reader=0, command=3, executed=executed)
            assert terminal.send(reader, SELECT) == b"\x90\x00"
            assert terminal.send(reader, GET_CHALLENGE) is not None
            assert terminal.send(reader, wrong) is None
            assert on_file(tmp_path)["00000"].memory.social.keys[EAK].tries_left == left
            assert terminal.open(reader)
            assert terminal.send(reader, READ_NAME) == b"\x69\x85"


def test_pcscd_killed_and_started_again(service: Pcscd, terminal: Terminal, tmp_path: Path) -> None:
    """After a kill of pcscd the same directory has the same ports and names, the tray comes back
    by itself, and the card has lost its power but not its place."""
    reader = service.readers[0]
    with tray_for(service, tmp_path, 2):
        assert terminal.open(reader)
        assert terminal.send(reader, SELECT) == b"\x90\x00"
        ports = list(service.ports)
        service.kill()
        assert terminal.send(reader, READ_NAME) is None
        service.start()
        assert service.ports == ports
        start = time.monotonic()
        assert terminal("establish") == 0
        assert terminal.open(reader)
        assert time.monotonic() - start < GONE_MAX
        assert terminal("atr", reader) == atr(0)
        assert terminal.send(reader, READ_NAME) == b"\x69\x85"


def test_speed_through_pcscd(service: Pcscd, terminal: Terminal, tmp_path: Path) -> None:
    """Fast enough that the readers are not the bottle neck: far above what 40 ms of delayed
    acknowledgement would leave (25 APDU/s). Prints the figures."""
    with tray_for(service, tmp_path, 50) as tray:
        for reader in service.readers:
            assert terminal.open(reader)
            terminal.send(reader, SELECT)
        one, right = terminal("measure", service.readers[:1], READ_NAME.hex(), 2000)
        both, right_too = terminal("measure", service.readers, READ_NAME.hex(), 1000)
        assert right
        assert right_too
        eject = terminal("measure_ejects", service.readers[0], str(tray.control), 40)
    print(f"APDU/s: {one:.0f} one reader, {both:.0f} {READERS} readers; "
          f"eject and power cycle {eject * 1000:.1f} ms")  # fmt: skip
    assert one > 500
    assert eject < 0.1


def test_pcscd_as_a_process_of_its_own(tmp_path: Path) -> None:
    """One line of JSON when ready; a SIGKILL takes pcscd with it, SIGTERM ends it in order, and
    the ports stay the same."""
    command = [sys.executable, "-m", "station_agents.virtual.pcscd", "--dir", str(tmp_path),
               "--readers", "1"]  # fmt: skip
    root = Path(__file__).parents[2]
    ports = []
    for number in (signal.SIGKILL, signal.SIGTERM):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root)
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        assert ready["readers"] == ["R00 00 00"]
        ports.append(ready["ports"])
        child = int((tmp_path / "pcscd.pid").read_text().rstrip("\x00\n"))
        ended = os.pidfd_open(child)
        process.send_signal(number)
        code = process.wait()
        process.stdout.close()
        assert code == (0 if number == signal.SIGTERM else -signal.SIGKILL)
        assert select.select([ended], [], [], 5)[0]  # readable when pcscd is gone
        os.close(ended)
    assert ports[0] == ports[1]
