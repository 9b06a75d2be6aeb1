"""Sampling plans against GB/T 2828.1-2012, Tables 1 and 2-A, and the draw."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.sampling import AQLS, LETTERS, SAMPLE_SIZES, Level, code_letter, plan
from domain.sampling import plan_of_letter as of_letter
from ledger.lots import draw

ROWS = (
    (2, 8), (9, 15), (16, 25), (26, 50), (51, 90), (91, 150), (151, 280), (281, 500),
    (501, 1_200), (1_201, 3_200), (3_201, 10_000), (10_001, 35_000), (35_001, 150_000),
    (150_001, 500_000), (500_001, 10_000_000),
)  # fmt: skip
# Table 1 as it is printed: S-1 S-2 S-3 S-4, I II III.
TABLE_1 = """\
A A A A A A B
A A A A A B C
A A B B B C D
A B B C C D E
B B C C C E F
B B C D D F G
B C D E E G H
B C D E F H J
C C E F G J K
C D E G H K L
C D F G J L M
C D F H K M N
D E G J L N P
D E G J M P Q
D E H K N Q R
""".splitlines()
COLUMNS = (Level.S_1, Level.S_2, Level.S_3, Level.S_4, Level.I, Level.II, Level.III)

# Table 2-A as it is printed, AQL 0.10 to 4.0: Ac, or the arrow (v, ^).
TABLE_2A = """\
A    2   v  v  v  v  v  v  v  v  v
B    3   v  v  v  v  v  v  v  v  0
C    5   v  v  v  v  v  v  v  0  ^
D    8   v  v  v  v  v  v  0  ^  v
E   13   v  v  v  v  v  0  ^  v  1
F   20   v  v  v  v  0  ^  v  1  2
G   32   v  v  v  0  ^  v  1  2  3
H   50   v  v  0  ^  v  1  2  3  5
J   80   v  0  ^  v  1  2  3  5  7
K  125   0  ^  v  1  2  3  5  7 10
L  200   ^  v  1  2  3  5  7 10 14
M  315   v  1  2  3  5  7 10 14 21
N  500   1  2  3  5  7 10 14 21  ^
P  800   2  3  5  7 10 14 21  ^  ^
Q 1250   3  5  7 10 14 21  ^  ^  ^
R 2000   5  7 10 14 21  ^  ^  ^  ^
""".splitlines()


@pytest.mark.parametrize("row", range(len(ROWS)))
def test_table_1(row: int) -> None:
    """Every level has the printed letter at both ends of each row."""
    for level, letter in zip(COLUMNS, TABLE_1[row].split(), strict=True):
        for size in ROWS[row]:
            assert code_letter(size, level) == letter


def test_table_2a_with_its_arrows() -> None:
    """The diagonal is the printed table: each plan where it stands, each arrow followed."""
    cells: dict[tuple[str, str], str] = {}
    for line in TABLE_2A:
        letter, size, *row = line.split()
        assert SAMPLE_SIZES[letter] == int(size)
        cells |= {(letter, aql): cell for aql, cell in zip(AQLS, row, strict=True)}
    assert len(cells) == len(LETTERS) * len(AQLS)
    for letter, aql in cells:
        at = LETTERS.index(letter)
        while not cells[LETTERS[at], aql].isdigit():
            at += 1 if cells[LETTERS[at], aql] == "v" else -1
        assert of_letter(letter, aql) == (LETTERS[at], int(cells[LETTERS[at], aql]))


@pytest.mark.parametrize(
    ("lot", "letter", "size", "accept"),
    [
        (1, "F", 1, 0),  # whole
        (8, "F", 8, 0),
        (20, "F", 20, 0),
        (21, "F", 20, 0),
        (90, "F", 20, 0),
        (150, "F", 20, 0),
        (151, "F", 20, 0),  # G: up
        (280, "F", 20, 0),
        (281, "J", 80, 1),  # H: down
        (501, "J", 80, 1),
        (1_201, "K", 125, 2),
        (3_201, "L", 200, 3),
        (10_001, "M", 315, 5),
        (35_001, "N", 500, 7),
        (150_001, "P", 800, 10),
        (500_001, "Q", 1_250, 14),
    ],
)
def test_level_ii_and_aql_0_65(lot: int, letter: str, size: int, accept: int) -> None:
    """The plans of the floor."""
    p = plan(lot)
    assert (p.letter, p.sample_size, p.accept, p.reject) == (letter, size, accept, accept + 1)


def test_level_iii_reaches_the_last_letter() -> None:
    assert (plan(500_001, level=Level.III).sample_size, plan(500_001, level=Level.III).accept) == (
        2_000,
        21,
    )


@pytest.mark.parametrize(("lot", "aql"), [(0, "0.65"), (-1, "0.65"), (50, "0.66"), (50, "1")])
def test_what_is_not_in_the_tables_is_refused(lot: int, aql: str) -> None:
    """No plan is made up."""
    with pytest.raises(ValueError, match=r"lot|AQL"):
        plan(lot, aql)


IDS = st.lists(st.text(min_size=1, max_size=12), unique=True, max_size=40)


@given(IDS, st.binary(max_size=32), st.data())
def test_a_draw_can_be_done_again(ids: list[str], seed: bytes, data: st.DataObject) -> None:
    """The same seed and lot draw the same bodies, however the lot is ordered; a larger sample
    begins with the smaller one; all come out of the lot, none twice."""
    size = data.draw(st.integers(0, len(ids)))
    drawn = draw(ids, size, seed)
    assert drawn == draw(data.draw(st.permutations(ids)), size, seed)
    assert drawn == draw(ids, len(ids), seed)[:size]
    assert len(set(drawn)) == size
    assert set(drawn) <= set(ids)


def test_the_draw_by_hand() -> None:
    """What somebody with a hash function and the record finds."""
    ids = [f"C1.{n:04d}" for n in range(1, 101)]
    seed = bytes(range(32))
    by_hash = {hashlib.sha256(seed + i.encode("utf-8")).hexdigest(): i for i in ids}
    assert draw(ids, 5, seed) == [by_hash[h] for h in sorted(by_hash)[:5]]
    assert draw(ids, 5, seed) != draw(ids, 5, bytes(32))


def test_a_draw_of_nothing_that_could_be_is_refused() -> None:
    """Neither more than there are, nor a body counted twice."""
    for ids, size in ((["a"], 2), (["a", "a"], 1), (["a"], -1)):
        with pytest.raises(ValueError):
            draw(ids, size, b"")
