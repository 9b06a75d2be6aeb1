"""What every chip with the social application must do: `check_chip(make)`.

A check gets a specimen of its own and plays the terminal. `wake` is the chip as the next reader
finds it; what is cut within a command is in `chip_power_cuts`.
"""

from __future__ import annotations

import os

from domain.card.apdu import LifeCycle
from domain.card.profile import AFTER_PIN, FREE, File, FileKind, parse_key_information
from tests.conformance.chip_power_cuts import check_power_cuts
from tests.conformance.chip_specimen import FORMAL, TEMPORARY, Make, Specimen
from tests.conformance.chip_terminal import (
    GET_KEYS,
    GET_LIFE_CYCLE,
    GET_PIN_TRIES,
    OK,
    Terminal,
    ecb,
)


def check_chip(make: Make) -> None:
    """Run every check, each over a specimen of its own."""
    for check in CHECKS:
        with make() as specimen:
            check(specimen)
    check_power_cuts(make)


def _tries(t: Terminal, usage: str) -> int:
    return parse_key_information(t.data(GET_KEYS))[t.profile.key(usage).key_id].tries_left


def check_nothing_before_selection(s: Specimen) -> None:
    """6985 until an application is selected; an unknown one is 6A82 and leaves the old one."""
    t = s.open(select=False)
    for apdu in (GET_KEYS, "0084000008", "00B2093420"):
        assert t.word(apdu) == "6985"
    assert t.select(bytes(15)) == "6A82"
    assert t.word(GET_KEYS) == "6985"
    assert t.select() == OK
    assert t.select(bytes(15)) == "6A82"
    assert t.word(GET_KEYS) == OK
    aid = s.profile.aid
    command = b"\x00\xa4\x04\x00" + bytes((len(aid),)) + aid + b"\x00"
    assert t.data(command) == bytes((0x6F, len(aid) + 2, 0x84, len(aid))) + aid


def check_free_records(s: Specimen) -> None:
    """Tag, length and value; a wrong Le, an absent tag and an absent file are told apart."""
    t = s.open()
    name = s.profile.fields["name"]
    answer = t.data(bytes((0x00, 0xB2, name.tag, name.file << 3 | 4, name.length + 2)))
    assert answer[:2] == bytes((name.tag, name.length))
    assert t.data("00B2093400") == answer
    for apdu, word in (
        ("00B2093410", "6C20"),
        ("00B2773414", "6A83"),
        ("00B209BC20", "6A82"),
        ("00B2093320", "6A86"),
        ("00B20934", "6700"),
        ("00B0860010", "6981"),
    ):
        assert t.word(apdu) == word, apdu


def check_files_by_identifier(s: Specimen) -> None:
    """EFs and DFs are selected by file identifier too; an EF belongs to the DF that is selected."""
    t = s.open()
    assert t.word("00B2090420") == "6986"
    assert t.word("00B0000010") == "6986"
    assert t.select_fid(0xEF06) == OK
    assert t.data("00B2090420") == t.data("00B2093420")
    for df in s.profile.dfs.values():
        assert t.select_fid(df.fid) == OK
        assert t.word("00B2090420") == "6986"
        assert t.select_fid(0xEF08 if df.name == "DF03" else 0xEF1F) == "6A82"
        assert t.select_fid(0xEF05) == OK
        assert t.select(df.aid) == OK
    assert t.select_fid(0x3F00) == OK
    assert t.word("00B2093420") == OK
    assert t.select_fid(0x1234) == "6A82"


def check_key_information(s: Specimen) -> None:
    """Each key of the profile with version, tries and a check value that is its own."""
    t = s.open()
    keys = parse_key_information(t.data(GET_KEYS))
    assert set(keys) == {slot.key_id for slot in s.profile.keys}
    for slot in s.profile.keys:
        of_zeros = ecb(s.profile.suite, s.keys[slot.usage], bytes(s.profile.block))
        shown = keys[slot.key_id]
        assert (shown.version, shown.tries_left) == (TEMPORARY, slot.tries)
        assert shown.check_value == of_zeros[:3]


def check_one_challenge_one_command(s: Specimen) -> None:
    """Any command in between uses the challenge up, and so does its use."""
    t = s.open()
    for between in ("00B2093420", GET_KEYS, "00", "FF" * 9, "00A404000100"):
        right = t.cryptogram("MK", t.challenge())
        t.send(bytes.fromhex(between))
        assert t.word(right) == "6984"
    right = t.cryptogram("MK", t.challenge())
    assert t.word(right) == OK
    assert t.word(right) == "6984"
    assert t.authenticate("MK") == OK
    assert t.word(t.write_key("EAK", bytes(16), 1, bytes(8))) == "6984"


def check_counters(s: Specimen) -> None:
    """63Cx down to 63C0, then 6983 for good; one right answer in time restores a counter."""
    t = s.open()
    tries = s.profile.key("STK").tries
    right, t.keys["STK"] = t.keys["STK"], bytes(16)
    assert t.authenticate("STK") == f"63C{tries - 1}"
    assert _tries(t, "STK") == tries - 1
    t.keys["STK"] = right
    assert t.authenticate("STK") == OK
    assert _tries(t, "STK") == tries
    t.keys["STK"] = bytes(16)
    for left in reversed(range(tries)):
        assert t.authenticate("STK") == f"63C{left}"
    t = s.open()
    assert t.authenticate("STK") == "6983"


def check_internal_authenticate(s: Specimen) -> None:
    """Only the internal key answers, and only to whole blocks."""
    t = s.open()
    random = os.urandom(s.profile.block)
    right = ecb(s.profile.suite, s.keys["IRK"], random)
    assert t.internal("IRK", random) == right + bytes.fromhex(OK)
    assert t.internal("MK", random).hex() == "6985"
    assert t.internal("IRK", random[1:]).hex() == "6700"
    assert t.internal("UK_DF01", random).hex() == "6a88"


def check_key_replacement(s: Specimen) -> None:
    """All keys in the profile's order, the loading key last: each answers as the new one, with a
    fresh counter, and the old ones are gone."""
    t = s.open()
    slots = s.profile.keys
    assert t.authenticate("MK") == OK
    new = {slot.usage: os.urandom(16) for slot in slots}
    for slot in slots:
        assert t.replace_key(slot.usage, new[slot.usage], FORMAL) == OK, slot.usage
    keys = parse_key_information(t.data(GET_KEYS))
    for slot in slots:
        assert (keys[slot.key_id].version, keys[slot.key_id].tries_left) == (FORMAL, slot.tries)
    old, s.keys = s.keys, new
    t = s.open()
    for slot in slots:
        t.enter(slot.usage)
        assert t.authenticate(slot.usage) == OK, slot.usage
        t.keys[slot.usage] = old[slot.usage]
        assert t.authenticate(slot.usage).startswith("63C")
        t.keys[slot.usage] = new[slot.usage]


def check_write_key_refusals(s: Specimen) -> None:
    """Each condition of WRITE KEY has its own status word, and none changes a key."""
    t = s.open()
    new, before = os.urandom(16), t.data(GET_KEYS)
    assert t.word(t.write_key("EAK", new, 1, t.challenge())) == "6982"
    assert t.authenticate("EAK") == OK  # another key's authentication is not enough
    assert t.word(t.write_key("EAK", new, 1, t.challenge())) == "6982"
    assert t.authenticate("MK") == OK
    assert t.word(t.write_key("UK_DF01", new, 1, t.challenge())) == "6A88"  # not from outside
    assert t.word(t.write_key("EAK", new, 1, t.challenge(), length=15)) == "6A80"
    assert t.word(t.write_key("EAK", new[:-1], 1, t.challenge())) == "6A80"
    assert t.word("84D401070C" + "00" * 11) == "6700"
    assert t.word(b"\x80" + t.write_key("EAK", new, 1, t.challenge())[1:]) == "6E00"
    assert t.data(GET_KEYS) == before


def check_mac(s: Specimen) -> None:
    """A changed byte anywhere in a command with a MAC is 6988 and costs a try, until the key is
    blocked; the key that was to be written stays."""
    t = s.open()
    tries = s.profile.key("MK").tries
    assert t.authenticate("MK") == OK
    for left, at in zip(reversed(range(tries)), (2, 5, 20, -4, -1), strict=True):
        command = bytearray(t.write_key("EAK", bytes(16), 1, t.challenge()))
        command[at] ^= 1
        assert t.word(bytes(command)) == "6988", at
        assert _tries(t, "MK") == left
    assert t.word(t.write_key("EAK", bytes(16), 1, t.challenge())) == "6983"
    assert t.authenticate("EAK") == OK


def check_access_conditions(s: Specimen) -> None:
    """Every file of the profile: what opens it, and nothing less, for reading and for updating."""
    for file in s.profile.files:
        value = os.urandom(9)
        t = s.open()
        t.enter(file)
        assert t.word(t.update(file, value, challenge=t.challenge())) == "6982"
        assert t.authenticate(file.update) == OK
        plain = bytearray(t.update(file, value, challenge=t.challenge()))
        plain[0] = 0x00
        assert t.word(bytes(plain)) == "6987"
        assert t.word(t.update(file, value, usage="RPK", challenge=t.challenge())) == "6988"
        assert t.word(t.update(file, value, challenge=t.challenge())) == OK
        t = s.open()
        t.enter(file)
        _check_reading(t, file, value)


def _check_reading(t: Terminal, file: File, value: bytes) -> None:
    if file.read != FREE:
        assert t.read(file, len(value)).hex() == "6982"
        if file.read == AFTER_PIN:
            assert t.verify(t.profile.pin.initial) == OK
        else:
            assert t.authenticate(file.read) == OK
    head = bytes((0x0B, len(value))) if file.kind is FileKind.RECORDS else b""
    assert t.read(file, len(value)) == head + value + bytes.fromhex(OK)


def check_limits_of_files(s: Specimen) -> None:
    """What does not fit a file is refused as a whole; a transparent file is full of zeros."""
    t = s.open()
    assert t.authenticate("STK") == OK
    issuer, photo = s.profile.files[0], next(f for f in s.profile.files if f.sfi == 8)
    assert t.word(t.update(issuer, bytes(issuer.size + 1), challenge=t.challenge())) == "6A84"
    body = b"\x0a\x01\x00"  # of another tag than P1
    assert t.word(t.with_mac("04DC0B2C", body, "STK", t.challenge())) == "6A80"
    assert t.select_fid(0xEF08) == OK
    last = photo.size - 1
    for offset, data, word in ((last, b"\x01", OK), (last, b"\x01\x02", "6A84"),
                               (photo.size, b"\x01", "6B00")):  # fmt: skip
        assert t.word(t.with_mac(f"04D6{offset:04X}", data, "STK", t.challenge())) == word
    assert t.data(f"00B0{last - 1:04X}02") == b"\x00\x01"
    assert t.word(f"00B0{last - 1:04X}03") == "6C02"
    assert t.word(f"00B0{photo.size:04X}01") == "6B00"
    assert t.data("00B0000000") == bytes(256)


def check_pin(s: Specimen) -> None:
    """Locked after the allowed wrong tries, also over a loss of power; a right one restores them.
    Changed by who knows it, unblocked under the PUK, reloaded under the RPK."""
    t = s.open()
    rule = s.profile.pin
    assert t.word("00200000") == f"63C{rule.tries}"
    assert t.verify("111111") == f"63C{rule.tries - 1}"
    assert t.data(GET_PIN_TRIES) == bytes((0x9F, 0x17, 1, rule.tries - 1))
    assert t.verify(rule.initial) == OK
    assert t.word("00200000") == OK
    assert t.data(GET_PIN_TRIES)[3] == rule.tries
    assert t.only_mac("84240000", "PUK") == "6985"  # not locked
    assert t.change_pin("111111", "123456") == f"63C{rule.tries - 1}"
    assert t.change_pin(rule.initial, "12345A") == "6A80"
    assert t.change_pin(rule.initial, "123456") == OK
    assert t.word("00200000") == f"63C{rule.tries}"
    for left in reversed(range(rule.tries)):
        t = s.open()
        assert t.verify(rule.initial) == f"63C{left}"
    assert t.verify("123456") == "6983"
    assert t.word("00200000") == "6983"
    assert t.only_mac("84240000", "RPK") == "6988"
    assert t.only_mac("84240000", "PUK") == OK
    assert t.verify("123456") == OK
    assert t.reload_pin("654321", "PUK") == "6988"
    assert t.reload_pin("654321") == OK
    assert t.verify("654321") == OK


def check_application_block(s: Specimen) -> None:
    """A blocked application says so when selected and serves nothing but its unblocking."""
    t = s.open()
    assert t.only_mac("841E0000", "RPK") == "6988"
    assert t.only_mac("841E0000", "STK") == OK
    t = s.open(select=False)
    assert t.select() == "6283"
    for apdu in ("00B2093420", "0020000003666666"):
        assert t.word(apdu) == "9303"
    assert t.data(GET_LIFE_CYCLE)[3] == LifeCycle.BLOCKED
    assert t.only_mac("84180000", "STK") == OK
    assert t.word("00B2093420") == OK


def check_card_block(s: Specimen) -> None:
    """A blocked card answers 6A81 to everything, for good."""
    t = s.open()
    assert t.only_mac("84160000", "STK") == "6988"
    assert t.only_mac("84160000", "MK") == OK
    for terminal in (t, s.open(select=False)):
        assert terminal.select() == "6A81"
        assert terminal.word("84180000") == "6A81"
        assert terminal.word(GET_LIFE_CYCLE) == "6A81"


def check_life_cycle(s: Specimen) -> None:
    """Temporary keys, as long as one is; then personalized, since it bears a holder's data."""
    t = s.open()
    assert t.authenticate("MK") == OK
    for slot in s.profile.keys:
        assert t.data(GET_LIFE_CYCLE) == bytes((0x9F, 0x70, 1, LifeCycle.TEMPORARY_KEYS))
        assert t.replace_key(slot.usage, os.urandom(16), FORMAL) == OK
    assert t.data(GET_LIFE_CYCLE)[3] == LifeCycle.PERSONALIZED


def check_end_of_security_state(s: Specimen) -> None:
    """Reset, loss of power and SELECT of the environment end authentications; leaving a DF ends
    those with its keys, and only those."""
    for end in ("reset", "power", "select", "select by identifier"):
        t = s.open()
        assert t.authenticate("MK") == OK
        if end == "reset":
            s.chip.reset()
        elif end == "power":
            s.chip.power_off()
            assert s.chip.process(bytes.fromhex(GET_KEYS)) == b""
            s.chip.power_on()
        assert (t.select_fid(0x3F00) if end.endswith("identifier") else t.select()) == OK
        assert t.word(t.write_key("EAK", bytes(16), 1, t.challenge())) == "6982"
    t = s.open()
    file = next(f for f in s.profile.files if f.update == "UK_DF01")
    assert t.authenticate("MK") == OK
    t.enter("UK_DF01")
    assert t.authenticate("UK_DF01") == OK
    t.enter("UK_DF03")
    t.enter("UK_DF01")
    assert t.word(t.update(file, b"1", challenge=t.challenge())) == "6982"
    assert t.replace_key("UK_DF01", os.urandom(16), FORMAL) == OK


CHECKS = (
    check_nothing_before_selection,
    check_free_records,
    check_files_by_identifier,
    check_key_information,
    check_one_challenge_one_command,
    check_counters,
    check_internal_authenticate,
    check_key_replacement,
    check_write_key_refusals,
    check_mac,
    check_access_conditions,
    check_limits_of_files,
    check_pin,
    check_application_block,
    check_card_block,
    check_life_cycle,
    check_end_of_security_state,
)
