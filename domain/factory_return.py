"""Records of a factory return (制卡回盘): what each field must be, and what of it is sealed.

A faulty record is refused alone, with its place, field and code; no reason holds a value.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from domain.card.profile import Profile, is_identification_code
from domain.card.records import RecordError
from domain.changes import canonical_json
from domain.codes import Code
from domain.lines import RefusedRecord
from domain.numbers import (
    PROVINCES,
    is_bank_card_number,
    is_bank_card_shape,
    is_date,
    is_identity_number,
    is_identity_shape,
    is_name,
    is_social_card_number,
)
from domain.registers import is_branch, load_banks
from domain.words import WORDS


@dataclass(frozen=True, repr=False)
class FactoryRecord:
    """One record as sent (proto `FactoryReturnRecord`). No repr: it would hold the person."""

    order_id: str
    bank_code: str
    branch_code: str
    carton_id: str
    identification_code: str
    social_card_number: str
    bank_card_number: str
    identity_number: str
    name: str
    sex: str
    nation: str
    birth_place: str
    birth_date: str
    has_temporary_card: bool = False


SEALED = (
    "identity_number", "name", "sex", "nation", "birth_place", "birth_date",
    "social_card_number", "bank_card_number",
)  # fmt: skip
"""What is sealed of a record: data of the person and the numbers on the card."""

FACE = "social_card_number"
"""The kind of number that is printed on a card's face."""
INDEXED = ("social_card_number", "bank_card_number", "identity_number")
"""Numbers by which a record is looked up later, through the provider's index."""

LONGEST_NAME = 100
"""Characters. The chip's field holds 30 bytes of a longer name."""

_ID = re.compile(r"[A-Za-z0-9_-]{1,40}", re.ASCII)
_BANK = re.compile(r"\d{3}", re.ASCII)
_BRANCH = re.compile(r"\d{3}-\d{6}", re.ASCII)
_DIVISION = re.compile(r"\d{6}", re.ASCII)
# GB/T 3304-1991: 56 nationalities; 97 others, 98 naturalized foreigners.
_NATIONS = frozenset({*(f"{n:02}" for n in range(1, 57)), "97", "98"})


def is_id(text: str) -> bool:
    """Whether `text` can name a file, batch, order, carton, delivery or command."""
    return _ID.fullmatch(text) is not None


def is_bank_code(text: str) -> bool:
    """3 digits, registered or not."""
    return _BANK.fullmatch(text) is not None


def index_text(kind: str, number: str) -> str:
    """What the provider's index is asked for: numbers of two kinds never meet."""
    return f"{kind}:{number}"


def plaintext(record: FactoryRecord) -> bytes:
    """What is sealed of a record: canonical JSON with the names of `SEALED`."""
    return canonical_json({name: getattr(record, name) for name in SEALED})


def _bank(record: FactoryRecord) -> str:
    if not is_bank_code(record.bank_code):
        return Code.BAD_FORMAT
    return "" if record.bank_code in load_banks() else Code.UNKNOWN_BANK


def _branch(record: FactoryRecord) -> str:
    code = record.branch_code
    if not _BRANCH.fullmatch(code):
        return Code.BAD_FORMAT
    ours = is_branch(code) and code.partition("-")[0] == record.bank_code
    return "" if ours else Code.UNKNOWN_BRANCH


def _identity_number(record: FactoryRecord) -> str:
    if not is_identity_shape(record.identity_number):
        return Code.BAD_FORMAT
    return "" if is_identity_number(record.identity_number) else Code.BAD_CHECK_DIGIT


def _bank_card_number(record: FactoryRecord) -> str:
    if not is_bank_card_shape(record.bank_card_number):
        return Code.BAD_FORMAT
    return "" if is_bank_card_number(record.bank_card_number) else Code.BAD_CHECK_DIGIT


def _birth_place(text: str) -> bool:
    # People are born all over the country, and in divisions that were abolished since.
    return _DIVISION.fullmatch(text) is not None and text[:2] in PROVINCES


def _formed(name: str, good: Callable[[str], bool]) -> Callable[[FactoryRecord], str]:
    return lambda record: "" if good(getattr(record, name)) else Code.BAD_FORMAT


_CHECKS: dict[str, Callable[[FactoryRecord], str]] = {
    "order_id": _formed("order_id", is_id),
    "bank_code": _bank,
    "branch_code": _branch,
    "carton_id": _formed("carton_id", is_id),
    "identification_code": _formed("identification_code", is_identification_code),
    "social_card_number": _formed("social_card_number", is_social_card_number),
    "bank_card_number": _bank_card_number,
    "identity_number": _identity_number,
    "name": _formed("name", lambda text: len(text) <= LONGEST_NAME and is_name(text)),
    "sex": _formed("sex", lambda text: text in ("1", "2")),
    "nation": _formed("nation", _NATIONS.__contains__),
    "birth_place": _formed("birth_place", _birth_place),
    "birth_date": _formed("birth_date", is_date),
}
"""In the order of the contract; the first fault of a record is the one that is reported."""

_ONCE = (
    "order_id", "identification_code", "social_card_number", "bank_card_number",
    "identity_number",
)  # fmt: skip


class RecordChecker:
    """Checks the records of one file, in their order: of two with one number the first stays."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._seen: dict[str, set[str]] = {name: set() for name in _ONCE}

    def check(self, record_number: int, record: FactoryRecord | None) -> RefusedRecord | None:
        """Why a record is refused; None if it is good. `record` is None for what could not be
        read at all. Never raises."""
        if record is None:
            return refuse(record_number, "", Code.BAD_FORMAT, None)
        for name, fault in _CHECKS.items():
            if not getattr(record, name):
                return refuse(record_number, name, Code.FIELD_MISSING, record)
            code = fault(record)
            if not code and not self._fits_chip(name, record):
                code = Code.BAD_FORMAT
            if code:
                return refuse(record_number, name, code, record)
        for name, seen in self._seen.items():
            if getattr(record, name) in seen:
                return refuse(record_number, name, Code.REPEATED_NUMBER, record)
        for name, seen in self._seen.items():
            seen.add(getattr(record, name))
        return None

    def _fits_chip(self, name: str, record: FactoryRecord) -> bool:
        field = self._profile.fields.get(name)
        if field is None:
            return True
        text: str = getattr(record, name)
        try:
            # A name longer than its field is on the chip as far as it fits.
            field.encode(field.fit(text) if name == "name" else text)
        except RecordError:
            return False
        return True


def refuse(
    record_number: int, field: str, code: str, record: FactoryRecord | None
) -> RefusedRecord:
    """The refusal of a record for `code` at `field` ("" for the whole). What else could be read
    lets the record's body be recognised when it comes."""

    def read(name: str, good: Callable[[str], bool]) -> str:
        text = getattr(record, name) if record else ""
        return text if good(text) else ""

    return RefusedRecord(
        record_number,
        read("order_id", is_id),
        field,
        code,
        f"{field or 'record'}: {WORDS[Code(code)].english}",
        read("bank_code", is_bank_code),
        read("carton_id", is_id),
        read("identification_code", is_identification_code),
    )
