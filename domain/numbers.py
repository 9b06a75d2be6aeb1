"""Numbers and names of holders: their shape and their check digits.

Shape only: whether a number was ever given out, only its register knows. No function's result
or error holds the value.
"""

from __future__ import annotations

import unicodedata
from datetime import date

IDENTITY_CHECK_DIGITS = "10X98765432"
# GB/T 2260, first two digits. Divisions below it are not checked against a register: codes that
# were abolished since live on in the numbers given out under them.
_PROVINCE_RANGES = ((11, 15), (21, 23), (31, 37), (41, 46), (50, 54), (61, 65), (71, 71), (81, 83))
PROVINCES = frozenset(str(n) for first, last in _PROVINCE_RANGES for n in range(first, last + 1))
_EARLIEST_BIRTH_YEAR = 1850

MIDDLE_DOT = "\u00b7"
"""The separator in names of minorities (A1A4 in GB18030), and no other dot."""


def _digits(text: str) -> bool:
    return text.isascii() and text.isdigit()


def identity_check_digit(first17: str) -> str:
    """Check digit of the identity number: ISO 7064 MOD 11-2 (GB 11643-1999, 6). ValueError
    unless `first17` is 17 digits."""
    if len(first17) != 17 or not _digits(first17):
        raise ValueError("an identity number's check digit follows 17 digits")
    total = sum(int(d) * pow(2, 17 - i, 11) for i, d in enumerate(first17))
    return IDENTITY_CHECK_DIGITS[total % 11]


def is_date(text: str) -> bool:
    """Whether `text` is a day of the calendar as yyyymmdd."""
    if len(text) != 8 or not _digits(text):
        return False
    try:
        day = date(int(text[:4]), int(text[4:6]), int(text[6:]))
    except ValueError:
        return False
    return day.year >= _EARLIEST_BIRTH_YEAR


def is_identity_shape(text: str) -> bool:
    """18 characters, province, birth date: everything but the check digit (GB 11643-1999)."""
    return (
        len(text) == 18
        and _digits(text[:17])
        and (_digits(text[17]) or text[17] == "X")
        and text[:2] in PROVINCES
        and is_date(text[6:14])
    )


def is_identity_number(text: str) -> bool:
    """A citizen's identity number (社会保障号码) with its right check digit; X is upper case."""
    return is_identity_shape(text) and identity_check_digit(text[:17]) == text[17]


def luhn_check_digit(body: str) -> str:
    """Check digit that follows `body` (ISO/IEC 7812-1, annex B). ValueError unless digits."""
    if not body or not _digits(body):
        raise ValueError("a Luhn check digit follows digits")
    total = 0
    for i, d in enumerate(reversed(body)):
        # The rightmost digit of the body is doubled; 9 off a two-digit product is its digit sum.
        n = int(d) * (2 - i % 2)
        total += n - 9 if n > 9 else n
    return str(-total % 10)


def is_bank_card_shape(text: str) -> bool:
    """13 to 19 digits: everything but the check digit (ISO/IEC 7812-1)."""
    return 13 <= len(text) <= 19 and _digits(text)


def is_bank_card_number(text: str) -> bool:
    """A bank card number with its right check digit."""
    return is_bank_card_shape(text) and luhn_check_digit(text[:-1]) == text[-1]


def is_social_card_number(text: str) -> bool:
    """9 characters: an upper-case letter or a digit, then 8 digits. The length is a fact (EF05
    07, AN 9); that only the first may be a letter is unverified."""
    return (
        len(text) == 9
        and text.isascii()
        and (text[0].isdigit() or text[0].isupper())
        and text[1:].isdigit()
    )


def kinds_of_number(text: str) -> tuple[frozenset[str], str]:
    """Which numbers `text` can be (identity_number, social_card_number, bank_card_number), and
    which check digit keeps it from being another (or what its length says, when it can be none):
    words without the number."""
    kinds = {
        "identity_number": is_identity_number(text),
        "social_card_number": is_social_card_number(text),
        "bank_card_number": is_bank_card_number(text),
    }
    fitting = frozenset(kind for kind, fits in kinds.items() if fits)
    faults = []
    if is_identity_shape(text) and "identity_number" not in fitting:
        faults.append("公民身份号码校验位不符 the identity number's check digit (GB 11643)")
    if is_bank_card_shape(text) and not fitting:
        faults.append("银行卡号校验位不符 the bank card number's check digit (Luhn)")
    if not faults and not fitting:
        faults.append(
            f"{len(text)} 位 characters: 身份证号 18 位, 社保卡号 9 位, 银行卡号 13-19 位"
            " (an identity number has 18, a social card number 9, a bank card number 13 to 19)"
        )
    return fitting, "; ".join(faults)


def _is_name_character(character: str) -> bool:
    # Python's character tables are older than the newest ideographs (extensions H and I, which
    # GB 18030-2022 has), so planes 2 and 3 count as ideographs as a whole.
    if 0x20000 <= ord(character) <= 0x3FFFD:
        return ord(character) & 0xFFFE != 0xFFFE
    category = unicodedata.category(character)
    # Nl: U+3007, the zero that some names are written with.
    return category[0] == "L" or category == "Nl"


def is_name(text: str) -> bool:
    """A holder's name: letters and ideographs that GB18030 can code, in parts that are joined by
    single U+00B7. No blank, no control character, no other dot, no private-use character."""
    try:
        text.encode("gb18030")
    except UnicodeEncodeError:
        return False
    return all(part and all(_is_name_character(c) for c in part) for part in text.split(MIDDLE_DOT))
