"""A bank's side for the tests: keys, the DGIs of a UnionPay debit card, and a session with a chip.

The channels are the centre's own host side; that both agree with others is `test_channel`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator
from typing import Any

import pytest

from actors.hsm.global_platform import Dgi, open_channel, put_key, store_data
from actors.hsm.secure_channel import CardKeys, SecureChannel
from actors.hsm.suites import TRIPLE_DES
from domain.card.apdu import Command, select_application
from station_agents.virtual.card import VirtualCard
from station_agents.virtual.financial_memory import (
    AES,
    DES,
    INITIAL_VERSION,
    OP_READY,
    FinancialMemory,
    KeySet,
    PaymentMemory,
)
from station_agents.virtual.memory import CardMemory, Change
from station_agents.virtual.payment import tlv
from station_agents.virtual.social_memory import Pin, SocialMemory
from station_agents.virtual.tray_rows import memory_row
from tests.virtual.floor import PROFILE

MANAGER = bytes.fromhex("A000000151000000")
UNIONPAY = bytes.fromhex("A000000333010101")
DIRECTORY = b"1PAY.SYS.DDF01"
HOST_CHALLENGE = bytes.fromhex("0102030405060708")
NEW_VERSION = 0x21
LEVELS = [
    *(("3des", 16, level) for level in (0x01, 0x03)),
    *(("aes", n, level) for n in (16, 24, 32) for level in (0x01, 0x03, 0x11, 0x13, 0x33)),
]


SCP02, SCP03 = ("3des", 16, 0x03), ("aes", 16, 0x33)
BOTH = pytest.mark.parametrize(("suite", "length", "level"), [SCP02, SCP03])


def keys(seed: str, length: int) -> CardKeys:
    rng = random.Random(seed)
    return CardKeys(rng.randbytes(length), rng.randbytes(length), rng.randbytes(length))


def memory(suite: str, length: int, *, tries: int = 10) -> CardMemory:
    """A chip with its maker's keys, a directory and a UnionPay application without data."""
    made = keys("maker", length)
    maker = KeySet(INITIAL_VERSION, DES if suite == "3des" else AES, (made.enc, made.mac, made.dek))
    financial = FinancialMemory(
        MANAGER, OP_READY, bytes(range(10)), bytes(42), [maker], tries, tries,
        {UNIONPAY: PaymentMemory(), DIRECTORY: PaymentMemory()},
    )  # fmt: skip
    return CardMemory(SocialMemory({}, {}, Pin(b"\x66" * 3, 6, 6)), financial=financial)


def records() -> dict[int, bytes]:
    """The DGIs that can be read as records, and what SELECT and GET PROCESSING OPTIONS answer."""
    rng = random.Random("records")
    return {
        0x0101: tlv(0x70, tlv(0x57, bytes.fromhex("6222020000000000012D30122200000000000F"))),
        0x0201: tlv(0x70, tlv(0x5A, bytes.fromhex("622202000000000001"))
                    + tlv(0x5F24, bytes.fromhex("301231")) + tlv(0x9F07, b"\xff\x00")),
        0x0202: tlv(0x70, tlv(0x90, rng.randbytes(240))),
        0x0D01: tlv(0x9F13, bytes(2)) + tlv(0x9F4F, bytes.fromhex("9A039F2103")),
        0x9102: tlv(0xA5, tlv(0x50, b"UnionPay Debit") + tlv(0x9F38, bytes.fromhex("9F7A01"))),
        0x9104: tlv(0x82, b"\x7c\x00") + tlv(0x94, bytes.fromhex("0801010010010200")),
    }  # fmt: skip


def secrets() -> dict[int, bytes]:
    """Application keys, PIN block and a part of an RSA key."""
    rng = random.Random("secrets")
    return {0x8000: rng.randbytes(48), 0x8010: rng.randbytes(8), 0x8201: rng.randbytes(288)}


def unionpay() -> list[Dgi]:
    """A whole card: the RSA part is longer than one command carries."""
    secret, application_keys = secrets(), secrets()[0x8000]
    values = b"".join(
        TRIPLE_DES.check_value(application_keys[at : at + 16]) for at in range(0, 48, 16)
    )
    return [
        *(Dgi(number, value) for number, value in records().items()),
        *(Dgi(number, value, secret=True) for number, value in secret.items()),
        Dgi(0x9000, values),
        Dgi(0x9010, b"\x03\x03"),
    ]


def directory() -> list[Dgi]:
    entry = tlv(0x61, tlv(0x4F, UNIONPAY) + tlv(0x50, b"UnionPay Debit"))
    return [Dgi(0x0101, tlv(0x70, entry)), Dgi(0x9102, tlv(0xA5, tlv(0x88, b"\x01")))]


Turns = Generator[bytes, bytes, None]
"""Commands out, answers with status word in."""


def session(
    channels: list[SecureChannel], aid: bytes, static: CardKeys, level: int, version: int = 0
) -> Turns:
    """SELECT, INITIALIZE UPDATE, EXTERNAL AUTHENTICATE; the channel is appended to `channels`."""
    yield bytes(select_application(aid))
    answer = yield bytes(Command(0x80, 0x50, version, 0x00, HOST_CHALLENGE, 0))
    channel = open_channel(static, HOST_CHALLENGE, answer[:-2], level)
    channels.append(channel)
    yield channel.external_authenticate


def sent(channel: SecureChannel, apdu: bytes) -> Generator[bytes, bytes, bytes]:
    answer = yield channel.wrap(apdu)
    return channel.unwrap(answer)


def new_keys(old: CardKeys, new: CardKeys, level: int) -> Turns:
    channels: list[SecureChannel] = []
    yield from session(channels, MANAGER, old, level)
    yield from sent(channels[0], put_key(channels[0], 0, NEW_VERSION, new))


def data(aid: bytes, dgis: list[Dgi], static: CardKeys, level: int) -> Turns:
    channels: list[SecureChannel] = []
    yield from session(channels, aid, static, level)
    for command in store_data(channels[0], dgis):
        yield from sent(channels[0], command)


def personalization(length: int, level: int) -> Turns:
    """New keys, then both applications under them."""
    old, new = keys("maker", length), keys("bank", length)
    yield from new_keys(old, new, level)
    yield from data(UNIONPAY, unionpay(), new, level)
    yield from data(DIRECTORY, directory(), new, level)


def run(send: Callable[[bytes], bytes], turns: Turns, most: int = 1000) -> list[str]:
    """The status words of the first `most` commands of `turns`."""
    status: list[str] = []
    try:
        apdu = next(turns)
        while len(status) < most:
            answer = send(apdu)
            status.append(answer[-2:].hex().upper())
            apdu = turns.send(answer)
    except StopIteration:
        pass
    return status


def powered(of: CardMemory, persist: Callable[[Change], None] = lambda change: None) -> VirtualCard:
    card = VirtualCard(PROFILE, of, bytes.fromhex("3B00"), persist)
    card.power_on()
    return card


def financial(memory: CardMemory) -> FinancialMemory:
    assert memory.financial is not None
    return memory.financial


def sw(card: VirtualCard, apdu: bytes | str) -> str:
    return card.process(bytes.fromhex(apdu) if isinstance(apdu, str) else apdu)[-2:].hex().upper()


def opened(
    card: VirtualCard, length: int, level: int, aid: bytes = MANAGER, seed: str = "maker"
) -> SecureChannel:
    channels: list[SecureChannel] = []
    turns = session(channels, aid, keys(seed, length), level)
    assert run(card.process, turns) == ["9000"] * 3
    return channels[0]


def without_counters(memory: CardMemory) -> dict[str, Any]:
    """The financial side as a row, without the sequence counters of its key sets."""
    row = memory_row(memory)["financial"]
    return {**row, "key_sets": [keys[:3] for keys in row["key_sets"]]}
