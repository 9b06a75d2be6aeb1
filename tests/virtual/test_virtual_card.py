"""The chip enforces what LD/T 32-2015 lets it enforce, and loses nothing with its power."""

from __future__ import annotations

import copy
import secrets
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.card.profile import parse_key_information
from station_agents.virtual.card import VirtualCard
from station_agents.virtual.crypto import TwoKeyDes
from station_agents.virtual.memory import CardMemory, Change
from station_agents.virtual.social_memory import Key, SocialMemory
from tests.virtual.floor import (
    EAK,
    GET_CHALLENGE,
    GET_KEYS,
    IRK,
    MK,
    PROFILE,
    READ_NAME,
    SELECT,
    ecb,
    external_authenticate,
    retail_mac,
    write_key,
)

OK = bytes.fromhex("9000")
ATR = bytes.fromhex("3B6D000000803180650000000000000001")


def blank() -> SocialMemory:
    return SocialMemory(
        {0x05: {0x01: bytes(16)}, 0x06: {0x09: bytes(range(30))}},
        {
            slot.key_id: Key(slot.key_id, 0, bytes((slot.key_id, *range(1, 16))), slot.tries,
                             slot.tries)
            for slot in PROFILE.keys
        },
    )  # fmt: skip


def powered(
    memory: SocialMemory, persist: Callable[[Change], None] = lambda _: None, *, select: bool = True
) -> VirtualCard:
    card = VirtualCard(PROFILE, CardMemory(memory), ATR, persist)
    assert card.power_on() == ATR
    if select:
        assert card.process(SELECT) == OK
    return card


def challenge(card: VirtualCard) -> bytes:
    answer = card.process(GET_CHALLENGE)
    assert answer[8:] == OK
    return answer[:8]


def authenticate(card: VirtualCard, memory: SocialMemory, key_id: int = MK) -> bytes:
    return card.process(external_authenticate(key_id, memory.keys[key_id].value, challenge(card)))


def sw(card: VirtualCard, apdu: str | bytes) -> str:
    answer = card.process(bytes.fromhex(apdu) if isinstance(apdu, str) else apdu)
    return answer[-2:].hex().upper()


@given(key=st.binary(min_size=16, max_size=16), iv=st.binary(min_size=8, max_size=8),
       data=st.binary(max_size=64), same=st.booleans())  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_cryptography_agrees_with_another_library(
    key: bytes, iv: bytes, data: bytes, same: bool
) -> None:
    """3DES and retail MAC are those of pyca/cryptography, also where K1 = K2 but for parity."""
    if same:
        key = key[:8] + bytes(b ^ 1 for b in key[:8])
    blocks = data[: len(data) // 8 * 8]
    chip = TwoKeyDes(key)
    assert chip.encrypt(blocks) == ecb(key, blocks)
    assert chip.decrypt(blocks) == ecb(key, blocks, decrypt=True)
    assert chip.retail_mac(iv, data) == retail_mac(key, iv, data)


def test_published_vectors() -> None:
    """DES of FIPS 81 ("Now is the time for all "), and the retail MAC of ICAO 9303-11, D.4."""
    key = bytes.fromhex("0123456789ABCDEF")
    assert TwoKeyDes(key + key).encrypt(b"Now is the time for all ").hex().upper() == (
        "3FA40E8A984D48156A271787AB8883F9893D51EC4B563B53"
    )
    mac_key = bytes.fromhex("F1CB1F1FB5ADF208806B89DC579DC1F8")
    data = bytes.fromhex("887022120C06C2270CA4020C800000008709016375432908C044F6")
    assert TwoKeyDes(mac_key).retail_mac(bytes(8), data).hex().upper() == "BF8B92D635FF24F8"


def test_nothing_before_selection() -> None:
    """All commands of the application are refused with 6985 until it is selected."""
    card = powered(blank(), select=False)
    for apdu in (READ_NAME, GET_KEYS, GET_CHALLENGE, bytes.fromhex("0088000608" + "00" * 8)):
        assert sw(card, apdu) == "6985"
    assert sw(card, "00A404000F" + "00" * 15) == "6A82"
    assert sw(card, SELECT) == "9000"
    assert sw(card, READ_NAME) == "9000"


def test_read_record() -> None:
    """Tag, length and value; a wrong Le, an absent tag and an absent file are told apart."""
    card = powered(blank())
    assert card.process(READ_NAME) == bytes((0x09, 30)) + bytes(range(30)) + OK
    assert sw(card, "00B2093400") == "9000"
    assert sw(card, "00B2093410") == "6C20"
    assert sw(card, "00B2083414") == "6A83"
    assert sw(card, "00B2093C20") == "6A82"
    assert sw(card, "00B2093320") == "6A86"
    assert sw(card, "00B20934") == "6700"


def test_key_information_is_what_the_domain_reads() -> None:
    """GET DATA names each key with version and tries left."""
    memory = blank()
    memory.keys[EAK].tries_left = 2
    answer = powered(memory).process(GET_KEYS)
    keys = parse_key_information(answer[:-2])
    assert set(keys) == {slot.key_id for slot in PROFILE.keys}
    assert (keys[EAK].version, keys[EAK].tries_left) == (0, 2)


@pytest.mark.parametrize("between", [READ_NAME, GET_KEYS, SELECT, b"\x00", b"\xff" * 9])
def test_a_challenge_serves_the_next_command_only(between: bytes) -> None:
    """Any command in between uses the challenge up; so does its use."""
    memory = blank()
    card = powered(memory)
    right = external_authenticate(MK, memory.keys[MK].value, challenge(card))
    card.process(between)
    assert sw(card, right) == "6984"
    assert memory.keys[MK].tries_left == 5
    right = external_authenticate(MK, memory.keys[MK].value, challenge(card))
    assert sw(card, right) == "9000"
    assert sw(card, right) == "6984"


def test_counter_counts_down_blocks_and_is_restored() -> None:
    """63Cx down to 63C0, then 6983 for good; one right answer restores a counter in time."""
    memory = blank()
    written: list[Change] = []
    card = powered(memory, written.append)
    wrong = bytes.fromhex("0082000108") + bytes(8)
    for left in ("63C2", "63C1"):
        challenge(card)
        assert sw(card, wrong) == left
    assert authenticate(card, memory, 0x01) == OK
    assert memory.keys[0x01].tries_left == 3
    for left in ("63C2", "63C1", "63C0", "6983"):
        challenge(card)
        assert sw(card, wrong) == left
    assert authenticate(card, memory, 0x01) == bytes.fromhex("6983")
    assert len(written) == 6  # five wrong answers and one restoration


def test_internal_authenticate() -> None:
    """Only the IRK answers; other keys 6985, unknown ones 6A88."""
    memory = blank()
    card = powered(memory)
    random = bytes(range(8))
    answer = card.process(bytes((0x00, 0x88, 0x00, IRK, 8)) + random + b"\x08")
    assert answer == ecb(memory.keys[IRK].value, random) + OK
    assert sw(card, bytes((0x00, 0x88, 0x00, MK, 8)) + random + b"\x08") == "6985"
    assert sw(card, bytes((0x00, 0x88, 0x00, 0x55, 8)) + random + b"\x08") == "6A88"


def test_write_key_replaces_all_keys_the_loading_key_last() -> None:
    """The whole key change of a card: each key answers as the new one, with a fresh counter."""
    memory = blank()
    memory.keys[EAK].tries_left = 1
    card = powered(memory)
    assert authenticate(card, memory) == OK
    new = {slot.key_id: secrets.token_bytes(16) for slot in PROFILE.keys}
    old_loading = memory.keys[MK].value
    for slot in PROFILE.keys:
        apdu = write_key(slot.key_id, 1, old_loading, new[slot.key_id], challenge(card))
        assert sw(card, apdu) == "9000"
        assert memory.keys[slot.key_id].value == new[slot.key_id]
        assert memory.keys[slot.key_id].version == 1
        assert memory.keys[slot.key_id].tries_left == slot.tries
    card.power_off()
    card = powered(memory)
    for slot in PROFILE.keys:
        assert authenticate(card, memory, slot.key_id) == OK


def test_write_key_refusals() -> None:
    """Each condition of WRITE KEY has its own status word, and none changes a key."""
    memory = blank()
    card = powered(memory)
    mk, new = memory.keys[MK].value, secrets.token_bytes(16)
    before = copy.deepcopy(memory)
    assert sw(card, write_key(EAK, 1, mk, new, challenge(card))) == "6982"
    assert authenticate(card, memory, EAK) == OK  # another key's authentication is not enough
    assert sw(card, write_key(EAK, 1, mk, new, challenge(card))) == "6982"
    assert authenticate(card, memory) == OK
    assert sw(card, write_key(EAK, 1, mk, new, bytes(8))) == "6984"
    assert sw(card, write_key(0x55, 1, mk, new, challenge(card))) == "6A88"
    assert sw(card, write_key(EAK, 1, mk, new, challenge(card), inner=15)) == "6A80"
    assert sw(card, write_key(EAK, 1, mk, new[:8], challenge(card))) == "6A80"
    assert sw(card, bytes.fromhex("84D401070C") + bytes(11)) == "6700"
    assert sw(card, b"\x80" + write_key(EAK, 1, mk, new, challenge(card))[1:]) == "6E00"
    assert memory == before
    version_changed = bytearray(write_key(EAK, 1, mk, new, challenge(card)))
    version_changed[2] = 2
    assert sw(card, bytes(version_changed)) == "6988"
    assert memory.keys[MK].tries_left == 4
    for _ in range(4):
        assert sw(card, write_key(EAK, 1, new, new, challenge(card))) == "6988"
    assert sw(card, write_key(EAK, 1, mk, new, challenge(card))) == "6983"
    assert memory.keys[EAK] == before.keys[EAK]


@pytest.mark.parametrize("how", ["reset", "power", "select"])
def test_security_state_ends(how: str) -> None:
    """Reset, loss of power and SELECT end an authentication."""
    memory = blank()
    card = powered(memory)
    assert authenticate(card, memory) == OK
    if how == "power":
        card.power_off()
        assert card.process(READ_NAME) == b""
        card.power_on()
    elif how == "reset":
        card.reset()
    card.process(SELECT)
    apdu = write_key(EAK, 1, memory.keys[MK].value, bytes(16), challenge(card))
    assert sw(card, apdu) == "6982"


class PowerLoss(Exception):
    pass


def test_power_loss_at_every_cut_leaves_old_memory_or_new() -> None:
    """Whatever change is the last one on file, the card that wakes up has exactly the memory
    on file, and its keys are each the old one or the new one as a whole."""
    new = {slot.key_id: secrets.token_bytes(16) for slot in PROFILE.keys}

    def run(cut: int, after: bool) -> bool:
        memory, on_file = blank(), blank()
        changes = 0

        def persist(change: Change) -> None:
            nonlocal changes
            changes += 1
            if changes == cut and not after:
                raise PowerLoss
            on_file.apply(change)
            if changes == cut:
                raise PowerLoss

        card = powered(memory, persist)
        mk = memory.keys[MK].value
        try:
            challenge(card)
            card.process(bytes.fromhex("0082000008") + bytes(8))  # one wrong try
            assert authenticate(card, memory) == OK  # restores the counter
            for slot in PROFILE.keys:
                apdu = write_key(slot.key_id, 1, mk, new[slot.key_id], challenge(card))
                assert sw(card, apdu) == "9000"
                assert memory == on_file
        except PowerLoss:
            if not after:
                assert memory == on_file
            woken = powered(on_file)
            old = blank()
            for key_id, key in on_file.keys.items():
                assert (key.value, key.version) in (
                    (old.keys[key_id].value, 0),
                    (new[key_id], 1),
                )
                assert authenticate(woken, on_file, key_id) == OK
            return True
        return False

    cuts = 0
    while run(cuts + 1, after=False):
        assert run(cuts + 1, after=True)
        cuts += 1
    assert cuts == 8  # wrong try, restoration, six keys


def test_full_disk_changes_nothing() -> None:
    """If a change cannot be put on file the card answers 6581 and keeps its memory."""

    def persist(change: Change) -> None:
        raise OSError("no space")

    memory = blank()
    before = copy.deepcopy(memory)
    card = powered(memory, persist)
    assert authenticate(card, memory) == OK
    assert sw(card, write_key(EAK, 1, memory.keys[MK].value, bytes(16), challenge(card))) == "6581"
    challenge(card)
    assert sw(card, bytes.fromhex("0082000708") + bytes(8)) == "6581"
    assert memory == before


def test_silent_chip() -> None:
    """A chip that does not answer to power-on answers nothing."""
    card = VirtualCard(PROFILE, CardMemory(blank()), ATR, lambda _: None, silent=True)
    assert card.power_on() == b""
    assert card.process(SELECT) == b""


def test_a_weak_chip_passes_once() -> None:
    """It proves its internal key until its external key was used, and never again after that; its
    versions and counters look as before."""
    memory = blank()
    before = copy.deepcopy(memory)
    card = VirtualCard(PROFILE, CardMemory(memory), ATR, lambda _: None, weak=True)
    prove = bytes((0x00, 0x88, 0x00, IRK, 8)) + bytes(8) + b"\x08"

    def proof() -> bytes:
        card.power_on()
        card.process(SELECT)
        return card.process(prove)

    sound = proof()
    assert proof() == sound
    for _ in range(2):
        proof()
        assert authenticate(card, memory, EAK) == OK
        assert proof() != sound
    changed = {i for i, k in memory.keys.items() if k != before.keys[i]}
    assert changed == {IRK}
    assert memory.keys[IRK].version == before.keys[IRK].version


_apdus = st.one_of(
    st.binary(max_size=300),
    st.builds(
        lambda cla, ins, p1, p2, rest: bytes((cla, ins, p1, p2)) + rest,
        st.sampled_from([0x00, 0x80, 0x84, 0xFF]),
        st.sampled_from([0xA4, 0xB2, 0xCA, 0x84, 0x82, 0x88, 0xD4, 0x20]),
        st.integers(0, 255),
        st.one_of(st.sampled_from([0x00, 0x01, 0x06, 0x07, 0x34, 0xE0]), st.integers(0, 255)),
        st.one_of(
            st.binary(max_size=2), st.binary(max_size=40).map(lambda d: bytes((len(d),)) + d)
        ),
    ),
    st.sampled_from([SELECT, GET_CHALLENGE, GET_KEYS, READ_NAME]),
)


@given(st.lists(_apdus, max_size=30))
@settings(max_examples=150, deadline=None)
def test_no_command_breaks_the_card(apdus: list[bytes]) -> None:
    """Any bytes get a status word, none writes a key without the loading key, and a command
    changes at most a counter."""
    memory = blank()
    card = powered(memory)
    for apdu in apdus:
        answer = card.process(apdu)
        assert 2 <= len(answer) <= 258
        assert answer[-2] in (0x90, *range(0x61, 0x70))
    for key_id, key in blank().keys.items():
        assert (memory.keys[key_id].value, memory.keys[key_id].version) == (key.value, 0)
    assert memory.keys[MK].value.hex() not in repr(memory)
