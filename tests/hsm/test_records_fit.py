"""Field.fit: as many whole characters as fit, never half of one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from domain.card.records import Field

NAME = Field("name", 0x06, 0x09, "AN", 30)
CHARACTERS = st.characters(exclude_categories=["Cs", "Cc"])


@given(st.text(CHARACTERS, max_size=50), st.integers(1, 30))
def test_the_longest_prefix_that_fits(text: str, length: int) -> None:
    """The result is a prefix that the field can hold; one character more it could not."""
    field = Field("name", 0x06, 0x09, "AN", length)
    fitted = field.fit(text)
    assert text.startswith(fitted)
    assert len(field.encode(fitted)) == length
    if fitted != text:
        assert len(text[: len(fitted) + 1].encode("gb18030")) > length


def test_what_fits_stays() -> None:
    """Names of up to the field's length are not touched, also with characters of 4 bytes."""
    assert NAME.fit("") == ""
    assert NAME.fit("𠮷" * 7 + "·") == "𠮷" * 7 + "·"
    assert NAME.fit("𠮷" * 8) == "𠮷" * 7
    assert Field("birth_place", 6, 0x0C, "CN", 3).fit("4301021") == "430102"
