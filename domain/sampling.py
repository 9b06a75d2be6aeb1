"""Sampling by attributes after GB/T 2828.1-2012 (= ISO 2859-1:1999): single, normal inspection.

`plan` answers how many units of a lot are inspected and how many nonconforming ones it may have
(which ones: `ledger.lots.draw`). Tightened and reduced inspection and the switching rules are not
here.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Level(StrEnum):
    """Inspection levels (10.1): three general ones, four special ones."""

    I = "I"  # noqa: E741  # the standard's name
    II = "II"
    III = "III"
    S_1 = "S-1"
    S_2 = "S-2"
    S_3 = "S-3"
    S_4 = "S-4"


# Table 1. The largest lot of each row but the last, which has no end; and a level's code letter
# of each row.
_LARGEST: Final = (
    8, 15, 25, 50, 90, 150, 280, 500, 1_200, 3_200, 10_000, 35_000, 150_000, 500_000,
)  # fmt: skip
_LETTER_OF_ROW: Final = {
    Level.S_1: "AAAABBBBCCCCDDD",
    Level.S_2: "AAABBBCCCDDDEEE",
    Level.S_3: "AABBCCDDEEFFGGH",
    Level.S_4: "AABCCDEEFGGHJJK",
    Level.I: "AABCCDEFGHJKLMN",
    Level.II: "ABCDEFGHJKLMNPQ",
    Level.III: "BCDEFGHJKLMNPQR",
}

# Table 2-A. Its plans stand on diagonals: one letter further, or one AQL further, and the lot may
# have the next number of nonconforming units. So a column is told by the letter of its 0/1 alone.
LETTERS: Final = "ABCDEFGHJKLMNPQR"
_SIZES: Final = (2, 3, 5, 8, 13, 20, 32, 50, 80, 125, 200, 315, 500, 800, 1_250, 2_000)
SAMPLE_SIZES: Final = dict(zip(LETTERS, _SIZES, strict=True))
_ZERO_AT: Final = {
    "0.10": "K", "0.15": "J", "0.25": "H", "0.40": "G", "0.65": "F",
    "1.0": "E", "1.5": "D", "2.5": "C", "4.0": "B",
}  # fmt: skip
AQLS: Final = tuple(_ZERO_AT)
"""Acceptance quality limits of `plan`, in nonconforming units per hundred."""

# Down a column from the letter of 0/1: acceptance numbers, and where arrows lead (up -1, down +1).
# The two cells between 0/1 and 1/2 point to their neighbours. Beyond 21 every arrow points up.
_DOWN_THE_COLUMN: Final = (0, None, None, 1, 2, 3, 5, 7, 10, 14, 21)
_ARROW_UP: Final = 1
_ARROW_DOWN: Final = 2


@dataclass(frozen=True)
class Plan:
    """What to do with a lot of `lot_size` units."""

    lot_size: int
    letter: str
    """Of the plan that is used; another than Table 1 says where an arrow of Table 2-A leads."""
    sample_size: int
    """Units to inspect, at most `lot_size`: then every unit is."""
    accept: int
    """Ac: the lot is acceptable with so many nonconforming units or fewer."""
    reject: int
    """Re: it is not with so many or more."""


def code_letter(lot_size: int, level: Level = Level.II) -> str:
    """Table 1. Raises ValueError for an empty lot. The table begins at 2; a lot of one unit is
    treated as its first row, whose plans all inspect the whole lot."""
    if lot_size < 1:
        raise ValueError("a lot has at least one unit")
    return _LETTER_OF_ROW[level][bisect_left(_LARGEST, lot_size)]


def plan_of_letter(letter: str, aql: str) -> tuple[str, int]:
    """Table 2-A: the letter whose plan is used for `letter`, and its acceptance number. Where an
    arrow points, both are those of the plan that it leads to, and so is the sample size (10.3).
    Raises ValueError for a letter or an AQL that is not in the table."""
    if aql not in _ZERO_AT:
        raise ValueError(f"no plans for AQL {aql}")
    zero_at = LETTERS.index(_ZERO_AT[aql])
    row = min(max(LETTERS.index(letter) - zero_at, 0), len(_DOWN_THE_COLUMN) - 1)
    if row == _ARROW_UP:
        row = _ARROW_UP - 1
    elif row == _ARROW_DOWN:
        row = _ARROW_DOWN + 1
    accept = _DOWN_THE_COLUMN[row]
    assert accept is not None
    return LETTERS[zero_at + row], accept


def plan(lot_size: int, aql: str = "0.65", level: Level = Level.II) -> Plan:
    """The single sampling plan of a lot for normal inspection.

    `aql` is one of AQLS, spelt as in the standard. Where the sample would be as large as the lot
    or larger, every unit is inspected and the acceptance number stays (Table 2-A, note).
    Raises ValueError for an empty lot and an unknown AQL.
    """
    letter, accept = plan_of_letter(code_letter(lot_size, level), aql)
    return Plan(lot_size, letter, min(SAMPLE_SIZES[letter], lot_size), accept, accept + 1)
