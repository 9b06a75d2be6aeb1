"""Card manager and payment applications: a host that has the keys gets through, nobody else."""

from __future__ import annotations

import copy
import json

import pytest

from actors.hsm.global_platform import put_key, store_data
from actors.hsm.secure_channel import SecureChannel
from domain.card.apdu import Command, select_application
from station_agents.virtual.financial_memory import (
    CARD_LOCKED,
    LOCKED,
    PERSONALIZED,
    SELECTABLE,
)
from station_agents.virtual.memory import CardMemory, Change
from station_agents.virtual.tray_rows import change_from, change_row, memory_from, memory_row
from tests.virtual import bank
from tests.virtual.bank import (
    BOTH,
    DIRECTORY,
    LEVELS,
    MANAGER,
    NEW_VERSION,
    SCP02,
    UNIONPAY,
    financial,
    opened,
    sw,
    without_counters,
)


def personalized(suite: str, length: int, level: int) -> CardMemory:
    memory = bank.memory(suite, length)
    status = bank.run(bank.powered(memory).process, bank.personalization(length, level))
    assert set(status) == {"9000"}
    return memory


@pytest.mark.parametrize(("suite", "length", "level"), LEVELS)
def test_a_card_is_personalized_and_read(suite: str, length: int, level: int) -> None:
    """New keys, both applications under them, power off: the records come back, the directory
    names the application, keys and PIN are there and in no answer."""
    memory = personalized(suite, length, level)
    assert [k.version for k in financial(memory).key_sets] == [NEW_VERSION]
    assert financial(memory).key_sets[0].keys == tuple(bank.keys("bank", length))
    held = financial(memory).applications[UNIONPAY].dgis
    assert {n: held[n][: len(v)] for n, v in bank.secrets().items()} == bank.secrets()

    card = bank.powered(memory)
    directory = card.process(bytes(Command(0, 0xA4, 4, 0, DIRECTORY, 0)))
    assert directory[:-2].endswith(bytes.fromhex("A503880101"))
    assert UNIONPAY in card.process(bytes.fromhex("00B2010C00"))
    control = card.process(bytes(Command(0, 0xA4, 4, 0, UNIONPAY, 0)))
    assert bank.records()[0x9102] in control
    options = card.process(bytes.fromhex("80A8000003830100") + b"\0")
    assert options == b"\x77\x0e" + bank.records()[0x9104] + b"\x90\x00"
    for dgi in (0x0101, 0x0201, 0x0202):
        record = card.process(bytes((0x00, 0xB2, dgi & 0xFF, dgi >> 8 << 3 | 4, 0)))
        assert record == bank.records()[dgi] + b"\x90\x00"
    assert card.process(bytes.fromhex("80CA9F3600")).hex().upper() == "9F360200009000"
    assert card.process(bytes.fromhex("80CA9F1700")).hex().upper() == "9F1701039000"
    assert card.process(bytes.fromhex("80CA9F4F00")).hex().upper() == "9F4F059A039F21039000"


def test_nothing_secret_can_be_read() -> None:
    """No record, no data object of a personalized card holds a byte of key or PIN."""
    memory = personalized(*SCP02)
    card = bank.powered(memory)
    answers = []
    for aid in (MANAGER, UNIONPAY):
        assert sw(card, bytes(select_application(aid))) == "9000"
        for p1 in range(256):
            answers += [card.process(bytes((0x80, 0xCA, p1, p2, 0))) for p2 in range(256)]
            answers += [card.process(bytes((0x00, 0xB2, p1, p2, 0))) for p2 in range(4, 256, 8)]
    everything = b"|".join(answers)
    secret = [*bank.secrets().values(), *bank.keys("bank", 16), *bank.keys("maker", 16)]
    assert not any(
        value[at : at + 8] in everything for value in secret for at in (0, 8) if value[at:]
    )


@BOTH
def test_power_may_go_between_any_two_commands(suite: str, length: int, level: int) -> None:
    """What was answered stays: whole DGIs and key sets, nothing of a DGI that was on its way. The
    chip is then finished from what it tells, and is as one that was never interrupted."""
    whole = without_counters(personalized(suite, length, level))
    commands = len(
        bank.run(
            bank.powered(bank.memory(suite, length)).process, bank.personalization(length, level)
        )
    )
    seen = set()
    for cut in range(1, commands):
        memory = bank.memory(suite, length)
        card = bank.powered(memory)
        bank.run(card.process, bank.personalization(length, level), most=cut)
        before = copy.deepcopy(memory)
        card.power_off()
        card.power_on()
        assert memory == before
        assert sw(card, "84E2800008" + "00" * 8) in ("6985", "6982")
        held = financial(memory).applications[UNIONPAY].dgis
        wanted = {d.number: d.value for d in bank.unionpay()}
        assert all(wanted[n] == v[: len(wanted[n])] for n, v in held.items())
        seen.add(len(held))

        card.process(bytes(select_application(MANAGER)))
        version = card.process(bytes.fromhex("80CA00E000"))[5]
        if version != NEW_VERSION:
            old, new = bank.keys("maker", length), bank.keys("bank", length)
            bank.run(card.process, bank.new_keys(old, new, level))
        for aid, dgis in ((UNIONPAY, bank.unionpay()), (DIRECTORY, bank.directory())):
            status = bank.run(card.process, bank.data(aid, dgis, bank.keys("bank", length), level))
            # 6985: it was personalized before the cut, and takes nothing more.
            assert set(status[:3]) == {"9000"}
            assert set(status[3:]) in ({"9000"}, {"6985"})
        assert without_counters(memory) == whole
    assert len(seen) > 4


@BOTH
def test_a_memory_that_takes_nothing(suite: str, length: int, level: int) -> None:
    """6581 wherever a change cannot be put on file, and the memory as before; the next session
    finds a chip in order."""
    fails, memory = -1, bank.memory(suite, length)
    while True:
        fails += 1
        memory, count = bank.memory(suite, length), 0

        def persist(change: Change, fails: int = fails) -> None:
            nonlocal count
            count += 1
            if count == fails + 1:
                raise OSError

        card = bank.powered(memory, persist)
        turns = bank.personalization(length, level)
        apdu, answer, before = next(turns), b"", copy.deepcopy(memory)
        while count <= fails:
            before = copy.deepcopy(memory)
            answer = card.process(apdu)
            try:
                apdu = turns.send(answer) if answer[-2:] == b"\x90\x00" else b""
            except StopIteration:
                break
        if count <= fails:
            break
        assert answer == bytes.fromhex("6581")
        assert without_counters(memory) == without_counters(before)
    assert fails > 8


@BOTH
def test_changes_come_back_from_the_journal(suite: str, length: int, level: int) -> None:
    """A tray line and the journal's lines make the same chip; replayed twice, too."""
    memory = bank.memory(suite, length)
    base = json.dumps(memory_row(memory))
    journal: list[str] = []
    card = bank.powered(memory, lambda change: journal.append(json.dumps(change_row(change))))
    bank.run(card.process, bank.personalization(length, level))
    again = memory_from(json.loads(base))
    for line in journal:
        again.apply(change_from(json.loads(line)))
    assert again == memory
    for line in journal:
        again.apply(change_from(json.loads(line)))
    assert again == memory


def test_put_key_is_refused_as_a_whole() -> None:
    """Wrong check value, a version that is taken or out of range, one that isn't there, keys of
    another kind: an error, and the key sets as they were."""
    memory = bank.memory("3des", 16)
    card = bank.powered(memory)
    channel = opened(card, 16, 0x01)
    new = bank.keys("bank", 16)
    assert sw(card, channel.wrap(put_key(channel, 0, 0x21, new))) == "9000"
    sets = list(financial(memory).key_sets)
    right = put_key(channel, 0, 0x22, new)
    wrong = {
        right[:-2] + bytes((right[-2] ^ 1,)) + right[-1:]: "6A80",
        put_key(channel, 0, 0x21, new): "6A80",
        put_key(channel, 0x30, 0x31, new): "6A88",
        right[:5] + b"\x80" + right[6:]: "6A80",
        right[:6] + b"\x88" + right[7:]: "6A80",
        right[:3] + b"\x01" + right[4:]: "6A86",
        right[:4] + bytes((len(right) - 7,)) + right[5:-2] + b"\0": "6A80",
    }
    for plain, status in wrong.items():
        assert sw(card, channel.wrap(plain)) == status
        assert financial(memory).key_sets == sets
    answer = card.process(channel.wrap(put_key(channel, 0x21, 0x22, bank.keys("next", 16))))
    assert [k.version for k in financial(memory).key_sets] == [0x22]
    values = b"".join(channel.suite.check_value(k) for k in bank.keys("next", 16))
    assert answer == b"\x22" + values + b"\x90\x00"
    added = [sw(card, channel.wrap(put_key(channel, 0, v, new))) for v in range(1, 9)]
    assert added == ["9000"] * 7 + ["6A84"]


def test_a_card_moves_from_scp02_to_scp03() -> None:
    """AES keys beside those of 3DES: each set opens a channel of its protocol."""
    memory = bank.memory("3des", 16)
    card = bank.powered(memory)
    aes = bank.keys("aes", 16)
    bank.run(card.process, bank.new_keys(bank.keys("maker", 16), bank.keys("bank", 16), 0x03))
    channel = opened(card, 16, 0x03, seed="bank")
    data = b"\x30" + b"".join(
        bytes((0x88, 0x11, 0x10)) + channel.encipher_secret(key) + b"\0" for key in aes
    )
    assert sw(card, channel.wrap(bytes(Command(0x80, 0xD8, 0, 0x81, data)))) == "9000"
    assert [k.version for k in financial(memory).key_sets] == [NEW_VERSION, 0x30]
    channels: list[SecureChannel] = []
    assert bank.run(card.process, bank.session(channels, MANAGER, aes, 0x33, 0x30)) == ["9000"] * 3


def test_store_data_says_what_it_does_not_take() -> None:
    """Nothing without a channel, out of order, secret in clear, cut short, with wrong check values
    of keys, or after the last block; none of it is kept."""
    memory = bank.memory("3des", 16)
    card = bank.powered(memory)
    application = financial(memory).applications[UNIONPAY]
    card.process(bytes(select_application(UNIONPAY)))
    assert sw(card, "80E2000005" + "0101027000") == "6982"
    assert sw(card, "00B2010C00") == "6985"
    channel = opened(card, 16, 0x01, UNIONPAY)
    sealed = channel.encipher_secret(bank.secrets()[0x8000]).hex()
    for apdu, status in (
        ("80E2000105" + "0101027000", "6A86"),
        ("80E2040005" + "0101027000", "6A86"),
        ("80E2400005" + "0101027000", "6A86"),
        ("80E2800005" + "0101037000", "6A80"),
        ("80E2000033" + "800030" + sealed, "6A80"),
        ("80E260003F" + "800030" + sealed + "900009" + "00" * 9, "6A80"),
        ("80E2200036" + "800030" + sealed + "900000", "6A80"),
        ("80E2600007" + "801004" + "00" * 4, "6A80"),
    ):
        assert sw(card, channel.wrap(bytes.fromhex(apdu))) == status, apdu
        assert (application.state, application.dgis) == (SELECTABLE, {})
    assert sw(card, channel.wrap(bytes.fromhex("80E2000005" + "0101027000"))) == "9000"
    assert sw(card, channel.wrap(bytes.fromhex("80E2880105" + "0102027000"))) == "9000"
    assert (application.state, list(application.dgis)) == (PERSONALIZED, [0x0101, 0x0102])
    assert sw(card, channel.wrap(bytes.fromhex("80E2000205" + "0103027000"))) == "6985"
    channel = opened(card, 16, 0x01, UNIONPAY)
    assert sw(card, channel.wrap(bytes.fromhex("80E2000005" + "0103027000"))) == "6985"


def test_install_for_personalization() -> None:
    """Over the card manager's channel STORE DATA goes to the application that INSTALL named."""
    memory = bank.memory("aes", 16)
    card = bank.powered(memory)
    channel = opened(card, 16, 0x33)
    store = store_data(channel, bank.directory())
    assert sw(card, channel.wrap(store[0])) == "6985"
    install = "80E6200014" + "00000E" + DIRECTORY.hex() + "000000"
    answer = channel.unwrap(card.process(channel.wrap(bytes.fromhex(install))))
    assert answer == bytes.fromhex("009000")
    for apdu in store:
        assert channel.unwrap(card.process(channel.wrap(apdu))) == b"\x90\x00"
    assert financial(memory).applications[DIRECTORY].state == PERSONALIZED
    other = bytes.fromhex("80E620000C" + "000006A00000033399" + "000000")
    assert sw(card, channel.wrap(other)) == "6A88"


def test_life_cycle() -> None:
    """The card goes its way step by step; a locked one serves its manager alone, a locked
    application is not found, and unlocked it is as before."""
    memory = bank.memory("3des", 16)
    card = bank.powered(memory)
    channel = opened(card, 16, 0x01)

    def ask(apdu: str) -> str:
        return card.process(channel.wrap(bytes.fromhex(apdu))).hex().upper()

    manager = MANAGER.hex().upper()
    assert ask("80F28000024F0000") == "08" + manager + "019E9000"
    assert ask("80F0408008" + UNIONPAY.hex()) == "9000"
    assert financial(memory).applications[UNIONPAY].state == SELECTABLE | LOCKED
    assert ask("80F24002024F0000").startswith("E3134F08" + UNIONPAY.hex().upper() + "9F700187")
    assert ask("80F0800F") == "6985"
    assert [ask(f"80F080{state}") for state in ("07", "0F", "7F")] == ["9000"] * 3
    assert financial(memory).state == CARD_LOCKED
    assert ask("80E620000E" + "000008" + UNIONPAY.hex() + "000000") == "6985"
    assert sw(card, bytes(select_application(DIRECTORY))) == "6A82"
    channel = opened(card, 16, 0x01)
    assert ask("80F0800F") == "9000"
    assert sw(card, bytes(select_application(DIRECTORY))) == "9000"
    assert sw(card, bytes(select_application(UNIONPAY))) == "6A82"
    channel = opened(card, 16, 0x01)
    assert ask("80F0400008" + UNIONPAY.hex()) == "9000"
    assert sw(card, bytes(select_application(UNIONPAY))) == "9000"


def test_what_the_card_manager_tells() -> None:
    """Its name, key information, production and diversification data, and the protocols."""
    card = bank.powered(bank.memory("aes", 32))
    control = card.process(bytes(Command(0, 0xA4, 4, 0, MANAGER, 0)))
    assert control.hex().upper() == "6F108408A000000151000000A5049F6501FF9000"

    def ask(apdu: str) -> str:
        return card.process(bytes.fromhex(apdu)).hex().upper()

    assert ask("80CA00E000") == "E012" + "".join(f"C0040{n}FF8820" for n in (1, 2, 3)) + "9000"
    assert ask("80CA9F7F00") == "9F7F2A" + "00" * 42 + "9000"
    assert ask("80CA00CF00") == "CF0A" + bytes(range(10)).hex().upper() + "9000"
    assert "640B06092A864886FC6B040370" in ask("80CA006600")
    assert ask("80CA006610") == f"6C{len(ask('80CA006600')) // 2 - 2:02X}"
    assert ask("80D8008100") == "6982"
