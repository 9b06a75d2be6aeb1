"""Checks of sealing, comparison, look-up values and signatures."""

from __future__ import annotations

import hashlib
import json

import pytest
from Crypto.Hash import SHA256
from Crypto.PublicKey import ECC
from Crypto.Signature import DSS

from domain.card.profile import Profile
from domain.card.records import Field
from domain.codes import Code
from domain.provider import Compare, LookUp, RecordUnsealable, Request
from tests.conformance.provider_specimen import Specimen


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
