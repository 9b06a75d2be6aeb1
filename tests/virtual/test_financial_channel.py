"""Who has no keys, or touches a command on its way, changes nothing on the financial side."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.hsm.global_platform import put_key, store_data
from actors.hsm.secure_channel import SecureChannel
from domain.card.apdu import select_application
from tests.virtual import bank
from tests.virtual.bank import (
    BOTH,
    DIRECTORY,
    LEVELS,
    MANAGER,
    NEW_VERSION,
    SCP02,
    SCP03,
    UNIONPAY,
    financial,
    opened,
    sw,
    without_counters,
)


@pytest.mark.parametrize(("suite", "length", "level"), LEVELS)
def test_any_flipped_bit_of_a_protected_command_is_refused(
    suite: str, length: int, level: int
) -> None:
    """PUT KEY with one bit changed, anywhere but in Le: an error, the memory as it was, and the
    channel gone, so that the right command is refused as well."""
    memory = bank.memory(suite, length)
    card = bank.powered(memory)
    channel = opened(card, length, level)
    plain = put_key(channel, 0, NEW_VERSION, bank.keys("bank", length))
    size = len(channel.wrap(plain)) - 1
    step = 1 if (suite, length, level) in (SCP02, SCP03) else 7
    for bit in range(0, 8 * size, step):
        channel = opened(card, length, level)
        apdu = channel.wrap(put_key(channel, 0, NEW_VERSION, bank.keys("bank", length)))
        flipped = bytearray(apdu)
        flipped[bit // 8] ^= 1 << bit % 8
        before = copy.deepcopy(memory)
        assert sw(card, bytes(flipped)) in ("6700", "6982", "6988"), bit
        assert sw(card, apdu) == "6982"
        assert memory == before


@BOTH
def test_a_command_counts_once_and_in_its_place(suite: str, length: int, level: int) -> None:
    """Repeated, out of order, in clear, of another session: refused, and the channel is gone."""
    memory = bank.memory(suite, length)
    card = bank.powered(memory)
    dgis = bank.unionpay()
    for wrong in ("repeated", "later", "clear", "of before"):
        channel = opened(card, length, level, UNIONPAY)
        first, second, *_ = (channel.wrap(c) for c in store_data(channel, dgis))
        if wrong != "of before":
            assert sw(card, first) == (
                "9000" if wrong in ("repeated", "clear") else sw(card, second)
            )
        if wrong == "of before":
            opened(card, length, level, UNIONPAY)
        before = copy.deepcopy(memory)
        apdu = {"clear": store_data(channel, dgis)[1], "repeated": first}.get(wrong, second)
        assert sw(card, apdu) in ("6982", "6988")
        assert sw(card, second) == "6982"
        assert memory == before


@BOTH
def test_wrong_hosts_block_the_channel(suite: str, length: int, level: int) -> None:
    """6300 and a try less; the right host restores them; with none left, not even that one is
    heard."""
    memory = bank.memory(suite, length, tries=3)
    card = bank.powered(memory)

    def wrong() -> str:
        channels: list[SecureChannel] = []
        turns = bank.session(channels, MANAGER, bank.keys("maker", length), level)
        card.process(next(turns))
        apdu = turns.send(card.process(turns.send(b"\x90\x00")))
        return sw(card, apdu[:5] + bytes((apdu[5] ^ 1,)) + apdu[6:])

    assert [wrong(), financial(memory).tries_left, wrong()] == ["6300", 2, "6300"]
    opened(card, length, level)
    assert financial(memory).tries_left == 3
    assert [wrong(), wrong(), wrong()] == ["6300"] * 3
    card.power_on()
    card.process(bytes(select_application(MANAGER)))
    assert sw(card, "8050000008" + "00" * 8 + "00") == "6983"


@BOTH
def test_authentication_belongs_to_its_own_challenge(suite: str, length: int, level: int) -> None:
    """An EXTERNAL AUTHENTICATE is of no use a second time, after another command, or alone."""
    card = bank.powered(bank.memory(suite, length))
    channels: list[SecureChannel] = []
    turns = bank.session(channels, MANAGER, bank.keys("maker", length), level)
    card.process(next(turns))
    apdu = turns.send(card.process(turns.send(b"\x90\x00")))
    assert sw(card, "80CA9F7F00") == "9000"
    assert sw(card, apdu) == "6985"
    for _ in range(2):
        card.process(bytes.fromhex("8050000008") + bank.HOST_CHALLENGE + b"\0")
        assert sw(card, apdu) == "6300"


def short_apdu(head: tuple[int, ...], data: bytes, le: bytes) -> bytes:
    return bytes(head) + (bytes((len(data),)) + data if data else b"") + le


apdus = st.one_of(
    st.binary(max_size=40),
    st.builds(
        short_apdu,
        st.tuples(
            st.sampled_from((0x00, 0x80, 0x84, 0x04, 0x8C)),
            st.sampled_from((0xA4, 0xB2, 0xCA, 0xA8, 0x50, 0x82, 0xD8, 0xE2, 0xE6, 0xF0, 0xF2)),
            st.integers(0, 255),
            st.integers(0, 255),
        ),
        st.one_of(st.binary(max_size=255), st.sampled_from((MANAGER, UNIONPAY, DIRECTORY))),
        st.sampled_from((b"", b"\0", b"\x10")),
    ),
)


@given(script=st.lists(apdus, min_size=1, max_size=12), suite=st.sampled_from(("3des", "aes")))
@settings(max_examples=150, deadline=None)
def test_no_command_crashes_the_chip(script: list[bytes], suite: str) -> None:
    """Whatever comes is answered by a status word; who has no keys changes nothing but counters."""
    memory = bank.memory(suite, 16)
    before = without_counters(memory)
    card = bank.powered(memory)
    for apdu in (bytes(select_application(MANAGER)), *script):
        assert len(card.process(apdu)) >= 2
    assert {**without_counters(memory), "tries_left": 10} == before


@given(script=st.lists(apdus, min_size=1, max_size=12), scp=st.sampled_from((SCP02, SCP03)),
       aid=st.sampled_from((MANAGER, UNIONPAY)))  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_no_protected_command_crashes_the_chip(
    script: list[bytes], scp: tuple[str, int, int], aid: bytes
) -> None:
    """Nonsense from a host that has the keys is answered as well, and the channel holds."""
    suite, length, level = scp
    card = bank.powered(bank.memory(suite, length))
    channel = opened(card, length, level, aid)
    for apdu in script:
        try:
            wrapped = channel.wrap(apdu)
        except ValueError:
            continue
        if apdu[1] == 0x82:  # protected, it is an EXTERNAL AUTHENTICATE, which ends a channel
            return
        answer = card.process(wrapped)
        assert len(answer) >= 2
        assert answer[-2:].hex() not in ("6982", "6988")
        channel.unwrap(answer)
