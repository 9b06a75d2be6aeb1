"""What every key provider must do, whatever stands behind it: `check_key_provider(make)`.

The suite plays factory and chip with cryptography of its own. It never sees a formal master,
as nobody does: the formal keys that come out of WRITE KEY must answer as the chip would.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import pytest
from Crypto.Hash import SHA256
from Crypto.PublicKey import ECC
from Crypto.Signature import DSS

from domain.card.profile import Profile
from domain.card.records import Field
from domain.codes import Code
from domain.provider import (
    Authenticate,
    Chip,
    Compare,
    KeyBlockRefused,
    KeyChange,
    KeySet,
    LookUp,
    Prove,
    Provider,
    RecordUnsealable,
    Request,
)
from tests.conformance.card_side import CARDS, CardCipher, Factory, identification_code


@dataclass(frozen=True)
class Specimen:
    """A provider with formal, index and head keys, without any temporary or data keys, made
    with `quota`; public keys as PEM."""

    provider: Provider
    profile: Profile
    transport_public_key: bytes
    head_public_key: bytes

    @property
    def card(self) -> CardCipher:
        return CARDS[self.profile.suite]


Make = Callable[[], AbstractContextManager[Specimen]]


def check_key_provider(make: Make) -> None:
    """Run every check over one specimen; each uses batches and cartons of its own."""
    with make() as specimen:
        for check in CHECKS:
            check(specimen)


def _take_keys(s: Specimen, batch_id: str) -> Factory:
    factory = Factory.of(batch_id, s.profile)
    s.provider.import_temporary_keys(factory.sealed(s.transport_public_key))
    return factory


def _chip(batch_id: str, serial: int, carton: str = "carton-500", area: str = "430100") -> Chip:
    return Chip(identification_code(serial, area), batch_id, carton)


def check_import_accepts_once(s: Specimen) -> None:
    """Check values come back as the factory gave them; the same block again is the same answer."""
    factory = Factory.of("import", s.profile)
    block = factory.sealed(s.transport_public_key)
    accepted = s.provider.import_temporary_keys(block)
    assert [k.usage for k in accepted] == [slot.usage for slot in s.profile.keys]
    given = json.loads(block)["keys"]
    assert [k.check_value for k in accepted] == [k["check_value"] for k in given]
    assert s.provider.import_temporary_keys(block) == accepted
    # OAEP is random: the same keys wrapped anew are the same keys.
    assert s.provider.import_temporary_keys(factory.sealed(s.transport_public_key)) == accepted


def check_import_refuses_other_keys(s: Specimen) -> None:
    """Other keys for a batch that has keys are refused, and the first ones go on working."""
    first = _take_keys(s, "other")
    with pytest.raises(KeyBlockRefused) as refused:
        _take_keys(s, "other")
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
        s.provider.import_temporary_keys(json.dumps(block).encode())
    assert refused.value.code == Code.KEY_CHECK_VALUE_DIFFERS
    chip = _chip("check-value", 1)
    requests: list[Request] = [
        Authenticate(chip, KeySet.TEMPORARY, slot.usage, bytes(8)) for slot in s.profile.keys
    ]
    assert {a.refused for a in s.provider.perform(requests)} == {Code.KEY_UNKNOWN}
    s.provider.import_temporary_keys(factory.sealed(s.transport_public_key))
    _assert_temporary_keys_work(s, factory)


def _assert_temporary_keys_work(s: Specimen, factory: Factory) -> None:
    challenge = os.urandom(8)
    chip = _chip(factory.batch_id, 7)
    requests: list[Request] = [
        Authenticate(chip, KeySet.TEMPORARY, slot.usage, challenge) for slot in s.profile.keys
    ]
    assert [a.data for a in s.provider.perform(requests)] == [
        factory.card.answer(factory.key(slot.usage, chip.identification_code), challenge)
        for slot in s.profile.keys
    ]


def check_authenticates_every_chip(s: Specimen) -> None:
    """One chunk of chips of two batches and three cities: each gets the cryptogram under its own
    key, in the order of the requests."""
    factories = [_take_keys(s, "auth-1"), _take_keys(s, "auth-2")]
    requests: list[Request] = []
    wanted = []
    for n in range(60):
        factory = factories[n % 2]
        chip = _chip(factory.batch_id, 0xF0F1F2F300000000 + n, area=f"4301{n % 3:02d}")
        usage, challenge = s.profile.keys[n % 6].usage, os.urandom(8)
        requests.append(Authenticate(chip, KeySet.TEMPORARY, usage, challenge))
        wanted.append(factory.card.answer(factory.key(usage, chip.identification_code), challenge))
    assert [a.data for a in s.provider.perform(requests)] == wanted


def check_key_change_opens_on_the_chip(s: Specimen) -> None:
    """WRITE KEY opens under the chip's temporary loading key and its challenge; the key inside
    is the formal one: authentication and proof under the formal set agree with it."""
    factory = _take_keys(s, "change")
    loading = s.profile.loading_usage
    for serial in range(3):
        chip = _chip("change", serial)
        code = chip.identification_code
        seen = set()
        for slot in s.profile.keys:
            challenge = os.urandom(8)
            (answer,) = s.provider.perform([KeyChange(chip, slot.usage, challenge)])
            version, key_id, new = factory.card.open_write_key(
                factory.key(loading, code), challenge, answer.data
            )
            assert (version, key_id) == (s.profile.formal_version, slot.key_id)
            seen.add(new)
            _assert_formal_key(s, chip, slot.usage, new)
        assert len(seen) == len(s.profile.keys)


def _assert_formal_key(s: Specimen, chip: Chip, usage: str, key: bytes) -> None:
    data = os.urandom(8)
    right, wrong = s.card.answer(key, data), os.urandom(s.card.block)
    answers = s.provider.perform(
        [
            Authenticate(chip, KeySet.FORMAL, usage, data),
            Prove(chip, KeySet.FORMAL, usage, data, right),
            Prove(chip, KeySet.FORMAL, usage, data, wrong),
        ]
    )
    assert answers[0].data == right
    assert [a.difference for a in answers[1:]] == ["", usage]


def check_formal_keys_do_not_depend_on_the_batch(s: Specimen) -> None:
    """The province's key of a chip is the same whichever batch brought it; of another chip or
    another city it is another."""
    _take_keys(s, "formal-1")
    data = os.urandom(8)
    one, same, serial, city = s.provider.perform(
        [
            Authenticate(chip, KeySet.FORMAL, "MK", data)
            for chip in (
                _chip("formal-1", 1),
                _chip("no such batch", 1),
                _chip("formal-1", 2),
                _chip("formal-1", 1, area="430200"),
            )
        ]
    )
    assert one == same
    assert len({one.data, serial.data, city.data}) == 3


def check_refuses_alone(s: Specimen) -> None:
    """What cannot be served is refused by itself, with its code; the rest of the chunk is
    served."""
    factory = _take_keys(s, "alone")
    good, challenge = _chip("alone", 1), os.urandom(8)
    code = good.identification_code
    requests: list[Request] = [
        Authenticate(good, KeySet.TEMPORARY, "MK", challenge),
        Authenticate(_chip("no keys", 1), KeySet.TEMPORARY, "MK", challenge),
        Authenticate(good, KeySet.TEMPORARY, "NONE", challenge),
        Authenticate(good, KeySet.TEMPORARY, "MK", challenge[:7]),
        Authenticate(Chip("4301", "alone", "carton-500"), KeySet.TEMPORARY, "MK", challenge),
        KeyChange(_chip("no keys", 1), "MK", challenge),
        Compare("no such batch", "order", bytes(40), {}),
        Authenticate(good, KeySet.TEMPORARY, "IRK", challenge),
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
    ]
    assert answers[0].data == factory.card.answer(factory.key("MK", code), challenge)
    assert answers[-1].data == factory.card.answer(factory.key("IRK", code), challenge)
    assert all(a.data == b"" and a.difference == "" for a in answers[1:-1])
    assert s.provider.perform([]) == []


def check_quota(s: Specimen) -> None:
    """A carton draws formal keys for no more chips than it has bodies; the same chip any number
    of times; temporary keys do not count, and neither does what is refused for other reasons."""
    _take_keys(s, "quota")
    challenge = bytes(8)
    refused_first = [
        KeyChange(_chip("no keys", n, "carton-2"), "MK", challenge) for n in range(10, 15)
    ]
    s.provider.perform(refused_first)
    temporary = [
        Authenticate(_chip("quota", n, "carton-2"), KeySet.TEMPORARY, "MK", challenge)
        for n in range(20, 25)
    ]
    assert {a.refused for a in s.provider.perform(temporary)} == {""}
    chips = [_chip("quota", n, "carton-2") for n in range(4)]
    changes = [KeyChange(chip, usage, challenge) for usage in ("MK", "IRK") for chip in chips]
    refused = [a.refused for a in s.provider.perform(changes)]
    over = Code.KEY_QUOTA_EXCEEDED
    assert refused == ["", "", over, over, "", "", over, over]
    rest: list[Request] = [
        Authenticate(chips[2], KeySet.FORMAL, "MK", challenge),
        Prove(chips[3], KeySet.FORMAL, "IRK", challenge, bytes(8)),
        Authenticate(chips[0], KeySet.FORMAL, "MK", challenge),
        KeyChange(_chip("quota", 0, "no such carton"), "MK", challenge),
    ]
    assert [a.refused for a in s.provider.perform(rest)] == [over, over, "", over]
    begun = [KeyChange(_chip("quota", n, "begun-2"), "MK", challenge) for n in (1, 2, 77)]
    assert [a.refused for a in s.provider.perform(begun)] == ["", over, ""]


def check_sealed_records(s: Specimen) -> None:
    """A record opens under its own order and batch only, and not when a bit of it changed. Equal
    records seal to different bytes, which show nothing of the plain text."""
    records = [(f"order-{n}", "张三·内容".encode() * n) for n in range(5)]
    sealed = s.provider.seal("seal-1", records)
    again = s.provider.seal("seal-1", records)
    assert not set(sealed) & set(again)
    named = [(order, box) for (order, _), box in zip(records, sealed, strict=True)]
    assert s.provider.unseal("seal-1", named) == [plain for _, plain in records]
    assert "张三".encode() not in b"".join(sealed)
    s.provider.seal("seal-2", records)
    flipped = sealed[3][:-1] + bytes((sealed[3][-1] ^ 1,))
    for batch_id, order, box in (
        ("seal-1", "order-2", sealed[3]),
        ("seal-2", "order-3", sealed[3]),
        ("seal-none", "order-3", sealed[3]),
        ("seal-1", "order-3", flipped),
        ("seal-1", "order-3", sealed[3][:20]),
        ("seal-1", "order-3", b""),
    ):
        with pytest.raises(RecordUnsealable):
            s.provider.unseal(batch_id, [(order, box)])
    # After refusals the provider serves as before.
    assert s.provider.unseal("seal-1", named[:1]) == [records[0][1]]


RECORD = {
    "identity_number": "430102199003072316",
    "name": "欧阳𠮷·买买提",
    "sex": "1",
    "nation": "01",
    "birth_place": "430102",
    "birth_date": "19900307",
    "social_card_number": "A12345678",
    "bank_card_number": "6217000000000000006",
}


def _chip_fields(profile: Profile, record: dict[str, str]) -> dict[str, bytes]:
    return {
        name: field.encode(record[name]) for name, field in profile.fields.items() if name in record
    }


def check_compare(s: Specimen) -> None:
    """Equal only if every field of the holder is on the chip as the record says; otherwise the
    first field that differs, never a value."""
    plain = json.dumps(RECORD, ensure_ascii=False).encode()
    (sealed,) = s.provider.seal("compare", [("order-1", plain)])
    equal = _chip_fields(s.profile, RECORD)
    others = {
        "identity_number": "430102199003072324",
        "name": "欧阳𠮷·买买堤",
        "sex": "2",
        "nation": "02",
        "birth_place": "430103",
        "birth_date": "19900308",
        "social_card_number": "A12345679",
    }
    requests: list[Request] = [Compare("compare", "order-1", sealed, equal)]
    for name, value in others.items():
        changed = _chip_fields(s.profile, {name: value})
        missing = {k: v for k, v in equal.items() if k != name}
        requests.append(Compare("compare", "order-1", sealed, {**equal, **changed}))
        requests.append(Compare("compare", "order-1", sealed, missing))
    requests.append(Compare("compare", "order-2", sealed, equal))
    answers = s.provider.perform(requests)
    wanted = ["", *(name for name in others for _ in range(2)), ""]
    assert [a.difference for a in answers] == wanted
    assert [a.refused for a in answers] == [""] * (len(answers) - 1) + [Code.RECORD_UNSEALABLE]
    assert all(a.data == b"" for a in answers)


def check_compare_fits_names(s: Specimen) -> None:
    """A name longer than its field is on the chip as far as whole characters of it fit."""
    field: Field = s.profile.fields["name"]
    # 14 characters of 2 bytes, then one of 4: 28 of 30 bytes are used.
    record = {**RECORD, "name": "阿" * 14 + "𠮷" + "阿"}
    plain = json.dumps(record).encode()
    (sealed,) = s.provider.seal("compare", [("order-long", plain)])
    on_chip = _chip_fields(s.profile, {k: v for k, v in record.items() if k != "name"})
    cut_well = ("阿" * 14).encode("gb18030").ljust(field.length, b"\0")
    cut_badly = record["name"].encode("gb18030")[: field.length]
    answers = s.provider.perform(
        [
            Compare("compare", "order-long", sealed, {**on_chip, "name": cut_well}),
            Compare("compare", "order-long", sealed, {**on_chip, "name": cut_badly}),
        ]
    )
    assert [(a.difference, a.refused) for a in answers] == [("", ""), ("name", "")]


def check_compare_of_no_record(s: Specimen) -> None:
    """What opens but is no record is refused; a record without a field differs in it."""
    plain = [b"\xff\xfe", b"[]", b"12", json.dumps({"name": 5}).encode()]
    sealed = s.provider.seal("compare", [("order-x", p) for p in plain])
    on_chip = _chip_fields(s.profile, RECORD)
    answers = s.provider.perform([Compare("compare", "order-x", box, on_chip) for box in sealed])
    assert [a.refused for a in answers] == [Code.RECORD_UNSEALABLE] * 3 + [""]
    assert answers[-1].difference in RECORD


def check_index(s: Specimen) -> None:
    """The same number, the same value; 64 hex digits that are not the number's plain hash."""
    one, two, again = s.provider.index(["430102199003072316", "43010219900307232X"] * 2)[:3]
    assert one == again != two
    assert len(bytes.fromhex(one)) == 32
    assert one != hashlib.sha256(b"430102199003072316").hexdigest()
    assert s.provider.index([]) == []
    asked = s.provider.perform([LookUp("430102199003072316")])
    assert [a.data.hex() for a in asked] == [one]


def check_sign(s: Specimen) -> None:
    """Signatures (r ‖ s) hold under the exported head key, and for their own digest only."""
    heads = [b"head one", b"head two"]
    signatures = s.provider.sign([hashlib.sha256(head).digest() for head in heads])
    key = ECC.import_key(s.head_public_key)
    for head, signature in zip(heads, signatures, strict=True):
        DSS.new(key, "fips-186-3").verify(SHA256.new(head), signature)
    with pytest.raises(ValueError, match="signature"):
        DSS.new(key, "fips-186-3").verify(SHA256.new(heads[0]), signatures[1])


CHECKS: tuple[Callable[[Specimen], None], ...] = (
    check_import_accepts_once,
    check_import_refuses_other_keys,
    check_import_refuses_wrong_check_value,
    check_authenticates_every_chip,
    check_key_change_opens_on_the_chip,
    check_formal_keys_do_not_depend_on_the_batch,
    check_refuses_alone,
    check_quota,
    check_sealed_records,
    check_compare,
    check_compare_fits_names,
    check_compare_of_no_record,
    check_index,
    check_sign,
)
