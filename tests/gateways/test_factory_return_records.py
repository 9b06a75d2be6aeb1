"""The record checker: each fault is named by field and code, of two records with one number the
first stays, and whatever is sent, nothing is raised and no reason holds a value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.codes import Code
from domain.factory_return import FactoryRecord, RecordChecker, is_id, plaintext
from domain.words import WORDS
from gateways.card_management import record_from_wire
from tests.gateways.surroundings import PROFILE, good_records


def as_sent(count: int) -> list[FactoryRecord]:
    found = [record_from_wire(r.SerializeToString()) for r in good_records(count)]
    return [r for r in found if r is not None]


GOOD, OTHER = as_sent(2)
FIELDS = tuple(name for name in FactoryRecord.__dataclass_fields__ if name != "has_temporary_card")
FAULTS = (
    Code.FIELD_MISSING, Code.BAD_FORMAT, Code.BAD_CHECK_DIGIT, Code.UNKNOWN_BANK,
    Code.UNKNOWN_BRANCH, Code.REPEATED_NUMBER,
)  # fmt: skip
REASONS = {f"{name}: {WORDS[code].english}" for name in (*FIELDS, "record") for code in FAULTS}


def with_texts(record: FactoryRecord, texts: Mapping[str, str]) -> FactoryRecord:
    return replace(record, **texts)  # type: ignore[arg-type]  # text fields only


def wrong_last(text: str) -> str:
    """The same number with another last digit."""
    return text[:-1] + ("1" if text[-1] != "1" else "2")


def other_bank() -> str:
    return "102" if GOOD.bank_code != "102" else "103"


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("order_id", "A B", Code.BAD_FORMAT),
        ("order_id", "A" * 41, Code.BAD_FORMAT),
        ("order_id", "订单", Code.BAD_FORMAT),
        ("bank_code", "1O2", Code.BAD_FORMAT),
        ("bank_code", "999", Code.UNKNOWN_BANK),
        ("branch_code", "102", Code.BAD_FORMAT),
        ("branch_code", f"{GOOD.bank_code}-999999", Code.UNKNOWN_BRANCH),
        ("branch_code", f"{other_bank()}-430102", Code.UNKNOWN_BRANCH),
        ("carton_id", "../x", Code.BAD_FORMAT),
        ("identification_code", GOOD.identification_code[:-1], Code.BAD_FORMAT),
        ("identification_code", GOOD.identification_code[:-1] + "g", Code.BAD_FORMAT),
        ("social_card_number", "A1234567", Code.BAD_FORMAT),
        ("social_card_number", "A１２３４５６７８", Code.BAD_FORMAT),
        ("bank_card_number", "12", Code.BAD_FORMAT),
        ("bank_card_number", wrong_last(GOOD.bank_card_number), Code.BAD_CHECK_DIGIT),
        ("identity_number", GOOD.identity_number[:-1], Code.BAD_FORMAT),
        ("identity_number", wrong_last(GOOD.identity_number), Code.BAD_CHECK_DIGIT),
        ("name", "张 三", Code.BAD_FORMAT),
        ("name", "张" * 101, Code.BAD_FORMAT),
        ("sex", "3", Code.BAD_FORMAT),
        ("nation", "57", Code.BAD_FORMAT),
        ("birth_place", "99010", Code.BAD_FORMAT),
        ("birth_place", "990101", Code.BAD_FORMAT),
        ("birth_date", "19990231", Code.BAD_FORMAT),
        *((name, "", Code.FIELD_MISSING) for name in FIELDS),
    ],
)
def test_a_fault_is_named_by_field_and_code(field: str, value: str, code: Code) -> None:
    """One field at fault: that field, that code, and what else could be read of the record."""
    refused = RecordChecker(PROFILE).check(7, with_texts(GOOD, {field: value}))
    assert refused is not None
    assert (refused.record_number, refused.field, refused.code) == (7, field, code)
    assert refused.reason in REASONS
    unread = "" if field == "carton_id" else GOOD.carton_id
    assert refused.carton_id == unread


def test_records_of_the_trade_are_good() -> None:
    """Names with rare characters and middle dots, all banks: none of 300 orders is refused."""
    checker = RecordChecker(PROFILE)
    assert [checker.check(n, r) for n, r in enumerate(as_sent(300), 1)] == [None] * 300


@pytest.mark.parametrize(
    "field",
    ["order_id", "identification_code", "social_card_number", "bank_card_number",
     "identity_number"],
)  # fmt: skip
def test_of_two_with_one_number_the_first_stays(field: str) -> None:
    """The second is refused for that field; its other numbers stay free for a third."""
    checker = RecordChecker(PROFILE)
    again = with_texts(OTHER, {field: getattr(GOOD, field)})
    assert checker.check(1, GOOD) is None
    refused = checker.check(2, again)
    assert refused is not None
    assert (refused.field, refused.code) == (field, Code.REPEATED_NUMBER)
    assert checker.check(3, OTHER) is None


def test_a_refused_record_keeps_no_number_from_a_good_one() -> None:
    """What was refused for another reason is not there: its numbers may come in a good record."""
    checker = RecordChecker(PROFILE)
    assert checker.check(1, replace(GOOD, bank_code="999")) is not None
    assert checker.check(2, GOOD) is None


def test_what_is_sealed_is_canonical() -> None:
    """One spelling, these names and no others: the chip is compared with it later."""
    assert plaintext(GOOD) == plaintext(replace(GOOD, order_id="x", has_temporary_card=True))
    assert plaintext(GOOD).startswith(b'{"bank_card_number":"')


CHARACTERS = st.text(max_size=40) | st.sampled_from([getattr(GOOD, name) for name in FIELDS])


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, CHARACTERS)))
def test_no_record_raises_and_no_reason_holds_a_value(changed: dict[str, str]) -> None:
    """Reasons come from a fixed set, and ids that are passed on have the form of ids."""
    refused = RecordChecker(PROFILE).check(1, with_texts(GOOD, changed))
    if refused is not None:
        assert refused.reason in REASONS
        assert refused.order_id == "" or is_id(refused.order_id)
        assert refused.carton_id == "" or is_id(refused.carton_id)


@given(st.binary(max_size=200))
def test_no_bytes_raise(raw: bytes) -> None:
    """Bytes that are no record are refused like any other fault."""
    assert RecordChecker(PROFILE).check(1, record_from_wire(raw)) is not None
