"""Secure channels, PUT KEY and STORE DATA on the host's side: what no byte of a forger passes."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.hsm.card_keys import Diversification, card_keys
from actors.hsm.global_platform import Dgi, open_channel, put_key, store_data
from actors.hsm.scp03 import cmac, derive
from actors.hsm.secure_channel import CardKeys, ChannelError, SecureChannel
from actors.hsm.suites import AES
from domain.card.apdu import parse
from domain.codes import Code
from tests.hsm.bank_chip import kdf3_keys

VECTORS = Path(__file__).with_name("vectors")
KEY_DATA = 10


@cache
def recorded() -> dict[str, dict[str, Any]]:
    """Sessions that others published or that were recorded from them, by id."""
    cases: dict[str, dict[str, Any]] = {}
    for file in VECTORS.glob("*.json"):
        cases.update((case["id"], case["in"]) for case in json.loads(file.read_text())["cases"])
    return cases


SESSIONS = sorted(i for i, case in recorded().items() if case.get("commands"))
PROTECTED = [i for i in SESSIONS if recorded()[i]["security_level"] in ("11", "13", "33")]


def reopen(case: dict[str, Any], answer: bytes) -> SecureChannel:
    keys = CardKeys(*(bytes.fromhex(case[name]) for name in ("enc", "mac", "dek")))
    level = int(case["security_level"], 16)
    return open_channel(keys, bytes.fromhex(case["host_challenge"]), answer, level)


def sent(channel: SecureChannel, case: dict[str, Any]) -> list[bytes]:
    wrapped = [channel.wrap(bytes.fromhex(command)) for command in case["commands"]]
    return [channel.external_authenticate, *wrapped]


@given(st.sampled_from(SESSIONS), st.data())
def test_a_corrupted_answer_opens_no_channel(session: str, data: st.DataObject) -> None:
    """Any byte of the answer to INITIALIZE UPDATE changed: no channel. Those that are no part of
    keys, challenges or cryptogram (key data, version, parameter i, the counter of SCP03) change
    nothing of a channel under given keys; what the key data do is the next test's."""
    case = recorded()[session]
    answer = bytearray.fromhex(case["initialize_update_response"])
    at = data.draw(st.integers(0, len(answer) - 1))
    answer[at] ^= data.draw(st.integers(1, 255))
    right = reopen(case, bytes.fromhex(case["initialize_update_response"]))
    try:
        opened = reopen(case, bytes(answer))
    except (ChannelError, ValueError):
        return
    protocol, last = case["protocol"], len(answer) - 3
    assert at <= KEY_DATA or (protocol == "03" and (at == KEY_DATA + 2 or at >= last))
    assert sent(opened, case) == sent(right, case)


@given(st.binary(min_size=KEY_DATA, max_size=KEY_DATA), st.integers(0, 9), st.integers(1, 255))
def test_corrupted_key_data_are_another_chip(key_data: bytes, at: int, change: int) -> None:
    """With the bank's master a changed byte of the key data gives other keys, all three: the
    card's cryptogram does not hold under them."""
    master = bytes(range(32))
    other = bytearray(key_data)
    other[at] ^= change
    own = card_keys(Diversification.KDF3, AES.encipherer(master), 32, key_data)
    foreign = card_keys(Diversification.KDF3, AES.encipherer(master), 32, bytes(other))
    assert tuple(own) == kdf3_keys(master, key_data)
    assert all(a != b for a, b in zip(own, foreign, strict=True))


@given(st.sampled_from(PROTECTED), st.data())
def test_a_corrupted_response_never_passes(session: str, data: st.DataObject) -> None:
    """Any byte of a response under R-MAC changed, the status word included: refused."""
    case = recorded()[session]
    channel = reopen(case, bytes.fromhex(case["initialize_update_response"]))
    last = data.draw(st.integers(0, len(case["responses"]) - 1))
    for at in range(last):
        channel.wrap(bytes.fromhex(case["commands"][at]))
        channel.unwrap(bytes.fromhex(case["responses"][at]))
    channel.wrap(bytes.fromhex(case["commands"][last]))
    response = bytearray.fromhex(case["responses"][last])
    response[data.draw(st.integers(0, len(response) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ChannelError) as refused:
        channel.unwrap(bytes(response))
    assert refused.value.code == Code.RESPONSE_MAC


@given(st.sampled_from(PROTECTED))
def test_a_response_passes_in_its_place_only(session: str) -> None:
    """A right response to another command of the same channel is refused."""
    case = recorded()[session]
    channel = reopen(case, bytes.fromhex(case["initialize_update_response"]))
    for command in case["commands"][:2]:
        channel.wrap(bytes.fromhex(command))
    with pytest.raises(ChannelError):
        channel.unwrap(bytes.fromhex(case["responses"][0]))


@given(st.sampled_from(SESSIONS), st.lists(st.binary(max_size=200), max_size=4))
def test_wrapping_is_deterministic(session: str, payloads: list[bytes]) -> None:
    """The same commands in the same channel are the same bytes; each is a short APDU whose MAC
    differs from the one before, also for a repeated command."""
    case = recorded()[session]
    commands = [bytes((0x80, 0xE2, 0, 0, len(p))) + p if p else b"\x80\xe2\0\0" for p in payloads]
    twice = {**case, "commands": [command.hex() for command in commands * 2]}
    answer = bytes.fromhex(case["initialize_update_response"])
    first, again = sent(reopen(case, answer), twice), sent(reopen(case, answer), twice)
    assert first == again
    assert all(bytes(parse(apdu)) == apdu and apdu[0] == 0x84 for apdu in first)
    assert len({apdu[-8:] for apdu in first}) == len(first)


@pytest.mark.parametrize(
    "command", ["", "80", "80CA", "84CA006600", "81CA006600", "80E20000F0" + "00" * 0xF0]
)
def test_what_is_no_plain_command_is_refused(command: str) -> None:
    """Bytes that are no command, a command that is wrapped already, one without room for a MAC."""
    case = recorded()["pysim-scp03-128-33"]
    channel = reopen(case, bytes.fromhex(case["initialize_update_response"]))
    with pytest.raises(ValueError):
        channel.wrap(bytes.fromhex(command))


@given(
    st.sampled_from(["pysim-scp02-01", "pysim-scp03-128-33"]),
    st.lists(
        st.builds(Dgi, st.integers(0, 0xFFFF), st.binary(max_size=600), st.booleans()),
        min_size=1,
        max_size=8,
    ),
)
def test_store_data_carries_every_group_whole_and_in_order(session: str, dgis: list[Dgi]) -> None:
    """GPC 11.11: numbered from 0, the last one marked; plain and secret groups never share a
    command; put together they are the groups as they were, secret ones enciphered."""
    case = recorded()[session]
    channel = reopen(case, bytes.fromhex(case["initialize_update_response"]))
    commands = [parse(apdu) for apdu in store_data(channel, dgis)]
    assert [c.p2 for c in commands] == list(range(len(commands)))
    assert [bool(c.p1 & 0x80) for c in commands] == [False] * (len(commands) - 1) + [True]
    got: list[Dgi] = []
    for secret, run in groupby(commands, lambda c: bool(c.p1 & 0x60)):
        rest = b"".join(c.data for c in run)
        while rest:
            number, length, rest = int.from_bytes(rest[:2], "big"), rest[2], rest[3:]
            if length == 0xFF:
                length, rest = int.from_bytes(rest[:2], "big"), rest[2:]
            got.append(Dgi(number, rest[:length], secret))
            rest = rest[length:]

    def stored(dgi: Dgi) -> Dgi:
        whole = len(dgi.value) % channel.suite.block == 0
        padded = dgi.value if whole else channel.suite.pad(dgi.value)
        return replace(dgi, value=channel.encipher_secret(padded)) if dgi.secret else dgi

    assert got == [stored(dgi) for dgi in dgis]


def test_put_key_needs_a_version() -> None:
    """A version that a key cannot have makes no command."""
    case = recorded()["pysim-scp02-01"]
    channel = reopen(case, bytes.fromhex(case["initialize_update_response"]))
    keys = CardKeys(bytes(16), bytes(16), bytes(16))
    for replaced, new in ((0, 0), (0, 0x80), (0x80, 1), (-1, 1)):
        with pytest.raises(ValueError):
            put_key(channel, replaced, new, keys)


M64 = bytes.fromhex(
    "6BC1BEE22E409F96E93D7E117393172AAE2D8A571E03AC9C9EB76FAC45AF8E51"
    "30C81C46A35CE411E5FBC1191A0A52EFF69F2445DF4F9B17AD2B417BE66C3710"
)


@pytest.mark.parametrize(
    ("key", "length", "wanted"),
    [
        ("2B7E151628AED2A6ABF7158809CF4F3C", 0, "BB1D6929E95937287FA37D129B756746"),
        ("2B7E151628AED2A6ABF7158809CF4F3C", 16, "070A16B46B4D4144F79BDD9DD04A287C"),
        ("2B7E151628AED2A6ABF7158809CF4F3C", 40, "DFA66747DE9AE63030CA32611497C827"),
        ("2B7E151628AED2A6ABF7158809CF4F3C", 64, "51F0BEBF7E3B9D92FC49741779363CFE"),
        (
            "8E73B0F7DA0E6452C810F32B809079E562F8EAD2522C6B7B",
            16,
            "9E99A7BF31E710900662F65E617C5184",
        ),
        (
            "8E73B0F7DA0E6452C810F32B809079E562F8EAD2522C6B7B",
            40,
            "8A1DE5BE2EB31AAD089A82E6EE908B0E",
        ),
        (
            "603DEB1015CA71BE2B73AEF0857D77811F352C073B6108D72D9810A30914DFF4",
            16,
            "28A7023F452E8F82BD4BF28D8C37C35C",
        ),
        (
            "603DEB1015CA71BE2B73AEF0857D77811F352C073B6108D72D9810A30914DFF4",
            40,
            "AAF3D8F1DE5640C232F5B169B9C911E6",
        ),
    ],
)
def test_cmac_as_published(key: str, length: int, wanted: str) -> None:
    """NIST SP 800-38B, annex D (AES-128: RFC 4493, section 4)."""
    assert cmac(bytes.fromhex(key), M64[:length]).hex().upper() == wanted


@pytest.mark.parametrize(
    ("constant", "key", "wanted"),
    [
        (0x04, "F995D0A069335C7DF42E590317FFEA6D", "9B841BB63D1087484FF7F16802017243"),
        (0x06, "58563362EC5A4541ABCD32B34B1EAE7D", "8117FE5ADED74AC0DAABE9FB81DBDB67"),
        (0x07, "58563362EC5A4541ABCD32B34B1EAE7D", "4521D75E4D6F60DBFB8AB4EE254EF6F1"),
    ],
)
def test_session_keys_as_published(constant: int, key: str, wanted: str) -> None:
    """The KDF of SCP03: kaoh/globalplatform 8dd2f1bf, scp03Test.c, delete_application."""
    context = bytes.fromhex("B2BDE1A2DC66BD56C40932A6FEFEAEB2")
    assert derive(bytes.fromhex(key), constant, context, 16).hex().upper() == wanted


@pytest.mark.parametrize(("constant", "wanted"), [(4, "C25559"), (6, "0E12CC"), (7, "9ACB9C")])
def test_the_kdf_as_globalplatformpro_has_it(constant: int, wanted: str) -> None:
    """Check values of martinpaljak/GlobalPlatformPro 236a610a, testSessionKeys_SCP03."""
    key = bytes.fromhex("404142434445464748494A4B4C4D4E4F")
    derived = derive(key, constant, bytes(range(10)), 16)
    assert AES.check_value(derived).hex().upper() == wanted
