"""The virtual card is a chip (`check_chip`), in memory and out of a tray file, with keys of both
suites; and nothing that is sent to it breaks it."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.card.profile import Profile, load_profile
from station_agents.virtual.card import VirtualCard
from station_agents.virtual.crypto import SUITES, Sm4Key, TwoKeyDes
from station_agents.virtual.memory import CardMemory, Change
from station_agents.virtual.social_memory import (
    Key,
    Pin,
    PinTriesLeft,
    PinWritten,
    SocialMemory,
    TriesLeft,
)
from station_agents.virtual.tray_file import HOPPER, OpenTray, Plastic, Tray, write_base
from tests.conformance.chip_power_cuts import ChangingCommand, changing_commands
from tests.conformance.chip_specimen import Make, Specimen
from tests.conformance.chip_suite import check_chip
from tests.conformance.chip_terminal import GET_KEYS, OK, Terminal, ecb, mac

ATR = bytes.fromhex("3B6D000000803180650000000000000001")
PROFILES = {name: load_profile(name) for name in ("ssc-3des", "ssc-sm4")}
both = pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)


def keys_of(profile: Profile) -> dict[str, bytes]:
    stream = random.Random(profile.id)
    return {slot.usage: stream.randbytes(16) for slot in profile.keys}


def memory_of(profile: Profile) -> CardMemory:
    """A personalized card under temporary keys."""
    keys = keys_of(profile)
    pin = Pin(bytes.fromhex(profile.pin.initial), profile.pin.tries, profile.pin.tries)
    return CardMemory(
        SocialMemory(
            {0x05: {0x01: bytes(16)}, 0x06: {0x09: bytes(range(30))}},
            {
                slot.key_id: Key(slot.key_id, 0, keys[slot.usage], slot.tries, slot.tries)
                for slot in profile.keys
            },
            pin,
        )
    )


def in_memory(profile: Profile) -> Make:
    """A chip whose memory is what was handed to `persist`, in this process."""

    @contextmanager
    def make() -> Iterator[Specimen]:
        on_file = memory_of(profile)

        def wake() -> VirtualCard:
            return VirtualCard(profile, copy.deepcopy(on_file), ATR, on_file.apply)

        yield Specimen(profile, keys_of(profile), wake)

    return make


def in_tray(profile: Profile, place: Path) -> Make:
    """A chip that is read from its tray file each time it wakes."""

    @contextmanager
    def make() -> Iterator[Specimen]:
        path = place / "tray-1.jsonl"
        plastic = Plastic("tray-1", "1", "C1", "", ATR, False, memory_of(profile), HOPPER)
        write_base(path, Tray("tray-1", profile.id, {}), [plastic])
        path.with_suffix(".journal").unlink(missing_ok=True)
        trays: list[OpenTray] = []

        def wake() -> VirtualCard:
            for tray in trays:
                tray.close()
            trays[:] = [OpenTray(path)]
            memory = trays[0].tray.cards["1"].memory
            return VirtualCard(profile, memory, ATR, lambda c: trays[0].change("1", c))

        yield Specimen(profile, keys_of(profile), wake)
        for tray in trays:
            tray.close()

    return make


@both
def test_a_virtual_card_is_a_chip(profile: Profile) -> None:
    """The whole conformance suite, memory in this process."""
    check_chip(in_memory(profile))


@both
def test_a_card_of_a_tray_is_a_chip(profile: Profile, tmp_path: Path) -> None:
    """The whole conformance suite, where all that survives is what stands in tray and journal."""
    check_chip(in_tray(profile, tmp_path))


class PowerLoss(Exception):
    pass


class OnFile:
    """What came to `persist` of a card, and how the next change fares: it is made, or power goes
    "before" it is on file or "after", or the disk is "full"."""

    def __init__(self, profile: Profile) -> None:
        self.memory = memory_of(profile)
        self.changes: list[Change] = []
        self.fault = ""

    def persist(self, change: Change) -> None:
        if self.fault == "full":
            raise OSError("no space")
        if self.fault == "before":
            raise PowerLoss
        self.memory.apply(change)
        self.changes.append(change)
        if self.fault == "after":
            raise PowerLoss


@dataclass
class Watched:
    """A card with power, its application selected, and what came to `persist`."""

    memory: CardMemory
    on_file: OnFile
    card: VirtualCard
    terminal: Terminal

    @classmethod
    def of(cls, profile: Profile) -> Watched:
        memory, on_file = memory_of(profile), OnFile(profile)
        card = VirtualCard(profile, memory, ATR, on_file.persist)
        card.power_on()
        terminal = Terminal(profile, keys_of(profile), card.process)
        assert terminal.select() == OK
        return cls(memory, on_file, card, terminal)


def changing(profile: Profile) -> list[ChangingCommand]:
    with in_memory(profile)() as specimen:
        return changing_commands(specimen)


@both
@pytest.mark.parametrize("fault", ["before", "after", "full"])
def test_a_change_is_on_file_whole_or_not_made(profile: Profile, fault: str) -> None:
    """For every command that changes memory: power gone before the change is on file, or the disk
    full (answered with 6581), both memories are as they were. Power gone after it, the memory on
    file is the one that the command makes."""
    for each in changing(profile):
        w = Watched.of(profile)
        command = each.command(w.terminal)
        before, w.on_file.fault = copy.deepcopy(w.memory), fault
        if fault == "full":
            assert w.card.process(command).hex() == "6581", each.name
        else:
            with pytest.raises(PowerLoss):
                w.card.process(command)
        assert w.memory == before, each.name
        assert (w.on_file.memory != before) is (fault == "after"), each.name
        if fault == "after":
            sound = Watched.of(profile)
            sound.card.process(each.command(sound.terminal))
            assert w.on_file.memory == sound.memory, each.name


def test_silent_chip() -> None:
    """A chip that does not answer to power-on answers nothing."""
    profile = PROFILES["ssc-3des"]
    card = VirtualCard(profile, memory_of(profile), ATR, lambda _: None, silent=True)
    assert card.power_on() == b""
    assert card.process(b"\x00\xa4\x04\x00\x0f" + profile.aid) == b""


def test_a_weak_chip_passes_once() -> None:
    """It proves its internal key until its external key was used, and never again after that; its
    versions and counters look as before."""
    profile = PROFILES["ssc-3des"]
    memory = memory_of(profile)
    before = copy.deepcopy(memory.social.keys)
    card = VirtualCard(profile, memory, ATR, lambda _: None, weak=True)
    terminal = Terminal(profile, keys_of(profile), card.process)

    def proof() -> bytes:
        card.power_on()
        terminal.select()
        return terminal.internal("IRK", bytes(8))

    sound = proof()
    assert proof() == sound
    for _ in range(2):
        proof()
        assert terminal.authenticate("EAK") == OK
        assert proof() != sound
    internal = profile.key("IRK").key_id
    assert {i for i, k in memory.social.keys.items() if k != before[i]} == {internal}
    assert memory.social.keys[internal].version == before[internal].version


def test_published_vectors() -> None:
    """DES of FIPS 81 ("Now is the time for all "), the retail MAC of ICAO 9303-11, D.4, and SM4
    of GB/T 32907-2016, A.1 (A.2 repeats it a million times)."""
    key = bytes.fromhex("0123456789ABCDEF")
    assert TwoKeyDes(key + key).encrypt(b"Now is the time for all ").hex().upper() == (
        "3FA40E8A984D48156A271787AB8883F9893D51EC4B563B53"
    )
    mac_key = bytes.fromhex("F1CB1F1FB5ADF208806B89DC579DC1F8")
    data = bytes.fromhex("887022120C06C2270CA4020C800000008709016375432908C044F6")
    assert TwoKeyDes(mac_key).mac(bytes(8), data).hex().upper() == "BF8B92D635FF24F8"
    sm4_key = bytes.fromhex("0123456789ABCDEFFEDCBA9876543210")
    enciphered = bytes.fromhex("681EDF34D206965E86B3E94F536E4246")
    assert Sm4Key(sm4_key).encrypt(sm4_key) == enciphered
    assert Sm4Key(sm4_key).decrypt(enciphered) == sm4_key


@given(st.sampled_from(sorted(SUITES)), st.binary(min_size=16, max_size=16),
       st.binary(min_size=16, max_size=16), st.binary(max_size=64), st.booleans())  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_cryptography_agrees_with_another_library(
    suite: str, key: bytes, iv: bytes, data: bytes, same: bool
) -> None:
    """Cipher and MAC are those of pyca/cryptography, of 3DES also where K1 = K2 but for parity."""
    if same:
        key = key[:8] + bytes(b ^ 1 for b in key[:8])
    chip = SUITES[suite](key)
    blocks, iv = data[: len(data) // chip.block * chip.block], iv[: chip.block]
    assert chip.encrypt(blocks) == ecb(suite, key, blocks)
    assert chip.decrypt(blocks) == ecb(suite, key, blocks, decrypt=True)
    assert chip.mac(iv, data) == mac(suite, key, iv, data)


_SELECT = b"\x00\xa4\x04\x00\x0f" + PROFILES["ssc-3des"].aid
_apdus = st.one_of(
    st.binary(max_size=300),
    st.builds(
        lambda cla, ins, p1, p2, rest: bytes((cla, ins, p1, p2)) + rest,
        st.sampled_from([0x00, 0x04, 0x80, 0x84, 0xFF]),
        st.sampled_from([0xA4, 0xB0, 0xB2, 0xCA, 0x84, 0x82, 0x88, 0xD4, 0xD6, 0xDC, 0x20, 0x24,
                         0x5E, 0x16, 0x18, 0x1E]),
        st.one_of(st.sampled_from([0x00, 0x01, 0x04, 0x87, 0x9F]), st.integers(0, 255)),
        st.one_of(st.sampled_from([0x00, 0x01, 0x06, 0x2C, 0x34, 0x70, 0xE0]), st.integers(0, 255)),
        st.one_of(
            st.binary(max_size=2), st.binary(max_size=40).map(lambda d: bytes((len(d),)) + d)
        ),
    ),
    st.sampled_from([_SELECT, bytes.fromhex("0084000008"), bytes.fromhex(GET_KEYS)]),
)  # fmt: skip


@both
@given(apdus=st.lists(_apdus, max_size=30))
@settings(max_examples=100, deadline=None)
def test_no_command_breaks_the_card(profile: Profile, apdus: list[bytes]) -> None:
    """Any bytes get an answer of two bytes or more; memory changes through `persist` alone, and
    without a key nothing but counters does."""
    w = Watched.of(profile)
    for apdu in apdus:
        answer = w.card.process(apdu)
        assert 2 <= len(answer) <= 258
        assert answer[-2] in (0x90, 0x93, *range(0x61, 0x70))
        assert w.memory == w.on_file.memory
    assert all(isinstance(change, TriesLeft | PinTriesLeft) for change in w.on_file.changes)
    assert not any(key.hex() in repr(w.memory) for key in keys_of(profile).values())


@both
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_a_changed_byte_never_changes_more_than_a_counter(
    profile: Profile, data: st.DataObject
) -> None:
    """A right command with one byte changed, lost or too many: if it is refused, nothing but a
    counter has changed; no key, record or byte of a file is written that was not meant."""
    each = data.draw(st.sampled_from(changing(profile)), label="command")
    w, sound = Watched.of(profile), Watched.of(profile)
    command = bytearray(each.command(w.terminal))
    sound.card.process(each.command(sound.terminal))
    at = data.draw(st.integers(0, len(command) - 1), label="at")
    match data.draw(st.sampled_from(["changed", "lost", "too many"])):
        case "changed":
            command[at] ^= data.draw(st.integers(1, 255))
        case "lost":
            del command[at]
        case _:
            command.insert(at, data.draw(st.integers(0, 255)))
    w.on_file.changes.clear()
    assert len(w.card.process(bytes(command))) >= 2
    assert w.memory == w.on_file.memory
    harmless = TriesLeft | PinTriesLeft | (PinWritten if each.name == "change PIN" else TriesLeft)
    if w.memory != sound.memory:  # not what the right command does
        assert all(isinstance(change, harmless) for change in w.on_file.changes), each.name
