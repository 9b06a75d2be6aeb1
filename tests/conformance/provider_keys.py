"""Checks of the keys of chips: taken in, derived, written, proven, counted."""

from __future__ import annotations

import json
import os

import pytest

from domain.codes import Code
from domain.provider import (
    Answer,
    Authenticate,
    Chip,
    Compare,
    KeyBlockRefused,
    KeyChange,
    KeySet,
    Prove,
    ProveCheckValue,
    Request,
)
from tests.conformance.card_side import Factory, take_temporary_keys
from tests.conformance.provider_specimen import Specimen, chip_of, take_keys


def check_import_accepts_once(s: Specimen) -> None:
    """Check values come back as the factory gave them; the same block again is the same answer."""
    factory = Factory.of("import", s.profile)
    block = factory.sealed(s.transport_public_key)
    accepted = take_temporary_keys(s.provider, block)
    assert [k.usage for k in accepted] == [slot.usage for slot in s.profile.keys]
    given = json.loads(block)["keys"]
    assert [k.check_value for k in accepted] == [k["check_value"] for k in given]
    assert take_temporary_keys(s.provider, block) == accepted
    # OAEP is random: the same keys wrapped anew are the same keys.
    assert take_temporary_keys(s.provider, factory.sealed(s.transport_public_key)) == accepted


def check_import_refuses_other_keys(s: Specimen) -> None:
    """Other keys for a batch that has keys are refused, and the first ones go on working."""
    first = take_keys(s, "other")
    with pytest.raises(KeyBlockRefused) as refused:
        take_keys(s, "other")
    assert refused.value.code == Code.KEY_BLOCK_REPEATED_DIFFERENT
    _assert_temporary_keys_work(s, first)


def check_import_refuses_wrong_check_value(s: Specimen) -> None:
    """One wrong check value: nothing of the block stays, and the right block is taken after it."""
    factory = Factory.of("check-value", s.profile)
    block = factory.block(s.transport_public_key)
    keys = block["keys"]
    assert isinstance(keys, list)
    keys[-1]["check_value"] = "000000" if keys[-1]["check_value"] != "000000" else "111111"
    with pytest.raises(KeyBlockRefused) as refused:
        take_temporary_keys(s.provider, json.dumps(block).encode())
    assert refused.value.code == Code.KEY_CHECK_VALUE_DIFFERS
    assert {a.refused for a in s.provider.perform(_of_temporary_keys(factory, 1))} == {
        Code.KEY_UNKNOWN
    }
    take_temporary_keys(s.provider, factory.sealed(s.transport_public_key))
    _assert_temporary_keys_work(s, factory)


def _of_temporary_keys(factory: Factory, serial: int) -> list[Request]:
    """Asks of each temporary key of a chip whether it is the factory's."""
    chip = chip_of(factory.batch_id, serial)
    return [
        ProveCheckValue(
            chip,
            slot.usage,
            0,
            factory.card.check_value(factory.key(slot.usage, chip.identification_code)),
            KeySet.TEMPORARY,
        )
        for slot in factory.profile.keys
    ]


def _assert_temporary_keys_work(s: Specimen, factory: Factory) -> None:
    assert set(s.provider.perform(_of_temporary_keys(factory, 7))) == {Answer()}


def check_authenticates_every_chip(s: Specimen) -> None:
    """One chunk of chips of two batches and three cities: each gets the cryptogram under its own
    key, in the order of the requests."""
    factories = [take_keys(s, "auth-1"), take_keys(s, "auth-2")]
    requests: list[Request] = []
    wanted = []
    for n in range(60):
        factory = factories[n % 2]
        chip = chip_of(factory.batch_id, 0xF0F1F2F300000000 + n, area=f"4301{n % 3:02d}")
        usage, challenge = s.profile.loading_usage, os.urandom(8)
        requests.append(Authenticate(chip, KeySet.TEMPORARY, usage, challenge))
        wanted.append(factory.card.answer(factory.key(usage, chip.identification_code), challenge))
    assert [a.data for a in s.provider.perform(requests)] == wanted


def check_key_change_opens_on_the_chip(s: Specimen) -> None:
    """WRITE KEY opens under the chip's temporary loading key and its challenge; the key inside
    is the formal one: authentication and proof under the formal set agree with it."""
    factory = take_keys(s, "change")
    loading = s.profile.loading_usage
    for serial in range(3):
        chip = chip_of("change", serial)
        code = chip.identification_code
        seen = set()
        for slot in s.profile.keys:
            challenge = os.urandom(8)
            (answer,) = s.provider.perform([KeyChange(chip, slot.usage, challenge)])
            version, key_id, new = factory.card.open_write_key(
                factory.key(loading, code), challenge, answer.data
            )
            assert (version, key_id) == (answer.version, slot.key_id)
            seen.add(new)
            _assert_formal_key(s, chip, slot.usage, new)
        assert len(seen) == len(s.profile.keys)


def _assert_formal_key(s: Specimen, chip: Chip, usage: str, key: bytes) -> None:
    """The key that a chip was given is the one that the provider proves, in every way in which a
    key of its usage may be proven."""
    data, value = os.urandom(s.card.block), s.card.check_value(key)
    right, wrong = s.card.encipher(key, data), os.urandom(s.card.block)
    answers = s.provider.perform(
        [
            ProveCheckValue(chip, usage, 0, value),
            ProveCheckValue(chip, usage, 0, bytes(b ^ 1 for b in value)),
            Authenticate(chip, KeySet.FORMAL, usage, data[:8]),
            Prove(chip, KeySet.FORMAL, usage, data, right),
            Prove(chip, KeySet.FORMAL, usage, data, wrong),
        ]
    )
    assert [a.difference for a in answers[:2]] == ["", usage]
    if usage == s.profile.external_usage:
        assert answers[2].data == s.card.answer(key, data[:8])
    if usage == s.profile.internal_usage:
        assert [a.difference for a in answers[3:]] == ["", usage]


def check_formal_keys_do_not_depend_on_the_batch(s: Specimen) -> None:
    """The province's key of a chip is the same whichever batch brought it; of another chip or
    another city it is another."""
    take_keys(s, "formal-1")
    data = os.urandom(8)
    one, same, serial, city = s.provider.perform(
        [
            Authenticate(chip, KeySet.FORMAL, s.profile.external_usage, data)
            for chip in (
                chip_of("formal-1", 1),
                chip_of("no such batch", 1),
                chip_of("formal-1", 2),
                chip_of("formal-1", 1, area="430200"),
            )
        ]
    )
    assert one == same
    assert len({one.data, serial.data, city.data}) == 3


def check_refuses_alone(s: Specimen) -> None:
    """What cannot be served is refused by itself, with its code; the rest of the chunk is
    served."""
    factory = take_keys(s, "alone")
    good, challenge = chip_of("alone", 1), os.urandom(8)
    code = good.identification_code
    requests: list[Request] = [
        Authenticate(good, KeySet.TEMPORARY, "MK", challenge),
        Authenticate(chip_of("no keys", 1), KeySet.TEMPORARY, "MK", challenge),
        Authenticate(good, KeySet.TEMPORARY, "NONE", challenge),
        Authenticate(good, KeySet.TEMPORARY, "MK", challenge[:7]),
        Authenticate(Chip("4301", "alone", "carton-500"), KeySet.TEMPORARY, "MK", challenge),
        KeyChange(chip_of("no keys", 1), "MK", challenge),
        Compare("no such batch", "order", bytes(40), {}),
        Prove(good, KeySet.TEMPORARY, "IRK", bytes(s.card.block), bytes(s.card.block)),
        Prove(good, KeySet.TEMPORARY, "IRK", bytes(7), bytes(s.card.block)),
        ProveCheckValue(good, "MK", 0, bytes(4)),
        Authenticate(good, KeySet.TEMPORARY, "MK", challenge),
    ]
    answers = s.provider.perform(requests)
    assert [a.refused for a in answers] == [
        "",
        Code.KEY_UNKNOWN,
        Code.KEY_UNKNOWN,
        Code.BAD_FORMAT,
        Code.BAD_FORMAT,
        Code.KEY_UNKNOWN,
        Code.RECORD_UNSEALABLE,
        "",
        Code.BAD_FORMAT,
        Code.BAD_FORMAT,
        "",
    ]
    assert answers[0].data == factory.card.answer(factory.key("MK", code), challenge)
    assert answers[-1] == answers[0]
    assert answers[7].difference == "IRK"
    assert all(a == Answer(refused=a.refused) for a in answers if a.refused)
    assert s.provider.perform([]) == []


def check_quota(s: Specimen) -> None:
    """A carton draws formal keys for no more chips than it has bodies; the same chip any number
    of times; temporary keys do not count, and neither does what is refused for other reasons."""
    take_keys(s, "quota")
    challenge = bytes(8)
    refused_first = [
        KeyChange(chip_of("no keys", n, "carton-2"), "MK", challenge) for n in range(10, 15)
    ]
    s.provider.perform(refused_first)
    temporary = [
        Authenticate(chip_of("quota", n, "carton-2"), KeySet.TEMPORARY, "MK", challenge)
        for n in range(20, 25)
    ]
    assert {a.refused for a in s.provider.perform(temporary)} == {""}
    chips = [chip_of("quota", n, "carton-2") for n in range(4)]
    changes = [KeyChange(chip, usage, challenge) for usage in ("MK", "IRK") for chip in chips]
    refused = [a.refused for a in s.provider.perform(changes)]
    over = Code.KEY_QUOTA_EXCEEDED
    assert refused == ["", "", over, over, "", "", over, over]
    rest: list[Request] = [
        Authenticate(chips[2], KeySet.FORMAL, "EAK", challenge),
        Prove(chips[3], KeySet.FORMAL, "IRK", bytes(s.card.block), bytes(8)),
        Authenticate(chips[0], KeySet.FORMAL, "EAK", challenge),
        KeyChange(chip_of("quota", 0, "no such carton"), "MK", challenge),
    ]
    assert [a.refused for a in s.provider.perform(rest)] == [over, over, "", over]
    begun = [KeyChange(chip_of("quota", n, "begun-2"), "MK", challenge) for n in (1, 2, 77)]
    assert [a.refused for a in s.provider.perform(begun)] == ["", over, ""]
