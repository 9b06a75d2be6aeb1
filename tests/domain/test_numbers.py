"""Check digits on numbers that were published, and what is no number, name or branch."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.numbers import (
    IDENTITY_CHECK_DIGITS,
    MIDDLE_DOT,
    identity_check_digit,
    is_bank_card_number,
    is_date,
    is_identity_number,
    is_identity_shape,
    is_name,
    is_social_card_number,
    luhn_check_digit,
)
from domain.registers import branch_name, is_branch, load_banks, load_divisions

# The two examples of GB 11643-1999.
IDENTITY_EXAMPLES = ["11010519491231002X", "440524188001010014"]


@pytest.mark.parametrize("number", IDENTITY_EXAMPLES)
def test_identity_examples_of_the_standard(number: str) -> None:
    """The standard's own examples hold; every other check digit is refused, the shape is not."""
    assert is_identity_number(number)
    assert identity_check_digit(number[:17]) == number[17]
    for digit in IDENTITY_CHECK_DIGITS:
        changed = number[:17] + digit
        assert is_identity_number(changed) == (digit == number[17])
        assert is_identity_shape(changed)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "11010519491231002x",
        "110105491231002",
        "110105194912310020X",
        "100105194912310021",
        "43010219990229001X",
        "43010219991301001X",
        "4301021999010100１X",  # a full-width digit
        "43010219990101 01X",
        "430102000001010010",
    ],
)
def test_what_is_no_identity_number(text: str) -> None:
    """Wrong length, lower case, province, date, characters: refused by the shape alone."""
    assert not is_identity_shape(text)
    assert not is_identity_number(text)


@given(st.text(alphabet="0123456789", min_size=17, max_size=17), st.integers(0, 16), st.data())
def test_identity_digit_finds_each_wrong_digit(body: str, at: int, data: st.DataObject) -> None:
    """MOD 11-2 finds every single wrong digit."""
    wrong = data.draw(st.sampled_from([d for d in "0123456789" if d != body[at]]))
    changed = body[:at] + wrong + body[at + 1 :]
    assert identity_check_digit(changed) != identity_check_digit(body)


@pytest.mark.parametrize("number", ["4111111111111111", "5555555555554444", "6011111111111117"])
def test_luhn_on_published_test_numbers(number: str) -> None:
    """Test numbers of the card schemes hold, and no other last digit does."""
    assert [d for d in "0123456789" if is_bank_card_number(number[:-1] + d)] == [number[-1]]


def test_luhn_example() -> None:
    """The example that everybody quotes, and what is not digits."""
    assert luhn_check_digit("7992739871") == "3"
    assert not is_bank_card_number("4111 1111 1111 1111")
    assert not is_bank_card_number("")
    with pytest.raises(ValueError):
        luhn_check_digit("")


def test_social_card_number() -> None:
    """Nine characters: a letter or digit, then digits."""
    assert is_social_card_number("A12345678")
    assert is_social_card_number("012345678")
    for text in ("a12345678", "A1234567", "A123456789", "AB2345678", "Ａ12345678", "A1234567８"):
        assert not is_social_card_number(text)


def test_dates() -> None:
    """Days of the calendar only."""
    assert is_date("20000229")
    assert not is_date("19000229")
    assert not is_date("2000229")


@pytest.mark.parametrize(
    "name",
    ["王五", "欧阳娜", "阿依古丽·买买提", "李〇", "𠮷𡋾𬭎𫖮𰻝", "㛃䶮", "\U000323ad", "Anna·Ó"],
)
def test_names(name: str) -> None:
    """Rare ideographs up to extension H, the zero, the middle dot between parts."""
    assert is_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "·",
        "王·",
        "·王",
        "王··五",
        "王 五",
        "王\u3000五",
        "王\n",
        "王\x00",
        "王\u200b五",
        "王\ue863",
    ]
    + [f"王{dot}五" for dot in "•‧∙⋅・．.･"]
    + ["王\ud842", "王\ufe00", "王1"],
)
def test_what_is_no_name(name: str) -> None:
    """Other dots, blanks, controls, variation selectors, private use, lone surrogates."""
    assert not is_name(name)
    assert MIDDLE_DOT.encode("gb18030") == b"\xa1\xa4"


def test_registers() -> None:
    """122 divisions in 14 prefectures, each under its prefecture's code; every branch has a name;
    what is not registered is no branch."""
    divisions = load_divisions()
    assert len(divisions) == 122
    assert len({d.prefecture_code for d in divisions.values()}) == 14
    for code, division in divisions.items():
        assert len(code) == 6
        assert code[:4] + "00" == division.prefecture_code
    for bank in load_banks().values():
        assert len(bank.code) == 3
        assert bank.card_prefix.isdigit()
        assert 16 <= bank.card_length <= 19
    assert branch_name("102-430102") == "工商银行长沙市芙蓉区支行"
    assert branch_name("402-433130") == "农村信用社龙山县支行"
    assert is_branch("102-430102")
    for code in ("999-430102", "102-430199", "102430102", "102", "102-430102-1", ""):
        assert not is_branch(code)
