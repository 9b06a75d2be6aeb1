"""A seeded generator of holders: the same seed gives the same people.

Every person is made up. Identity numbers are well formed (division of Hunan, birth date, check
digit), and unique within one generator.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from random import Random

from counterparts import words
from domain.numbers import MIDDLE_DOT, identity_check_digit, luhn_check_digit
from domain.registers import Bank, load_divisions

MALE, FEMALE = "1", "2"  # GB/T 2261.1
_YOUNGEST, _OLDEST = date(2022, 12, 31), date(1935, 1, 1)


@dataclass(frozen=True, repr=False)
class Person:
    """Texts as on an order (no repr: it would hold the person). `sex` 1 or 2, `nation` 2 digits
    (GB/T 3304), `birth_place` a division code, `birth_date` yyyymmdd; sex, place and date agree
    with `identity_number`."""

    identity_number: str
    name: str
    sex: str
    nation: str
    birth_place: str
    birth_date: str


class People:
    """Persons and numbers out of one random stream, none of them twice."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._divisions = tuple(load_divisions())
        self._taken: set[str] = set()

    def person(self, home: str) -> Person:
        """Somebody of the division `home`; one in eight was born in another one."""
        r = self._random
        place = r.choice(self._divisions) if r.random() < 0.125 else home
        birth = _OLDEST + timedelta(days=r.randrange((_YOUNGEST - _OLDEST).days))
        sex = r.choice((MALE, FEMALE))
        nation = self._nation(place)
        return Person(
            self._identity_number(place, f"{birth:%Y%m%d}", sex),
            self._name(nation, sex),
            sex,
            nation,
            place,
            f"{birth:%Y%m%d}",
        )

    def social_card_number(self) -> str:
        """An upper-case letter and 8 digits."""
        r = self._random
        return self._fresh(lambda: f"{r.choice('ABCDEFGHJK')}{r.randrange(10**8):08d}")

    def bank_card_number(self, bank: Bank) -> str:
        """Prefix of the bank, digits, Luhn check digit."""
        count = bank.card_length - len(bank.card_prefix) - 1

        def draw() -> str:
            body = f"{bank.card_prefix}{self._random.randrange(10**count):0{count}d}"
            return body + luhn_check_digit(body)

        return self._fresh(draw)

    def chip_serial(self) -> bytes:
        """8 bytes."""
        return bytes.fromhex(self._fresh(lambda: self._random.randbytes(8).hex()))

    def _fresh(self, draw: words.Draw) -> str:
        value = draw()
        while value in self._taken:
            value = draw()
        self._taken.add(value)
        return value

    def _identity_number(self, place: str, birth_date: str, sex: str) -> str:
        def draw() -> str:
            # The sequence number is odd for men, even for women (GB 11643).
            sequence = self._random.randrange(1, 500) * 2 - (1 if sex == MALE else 0)
            body = f"{place}{birth_date}{sequence:03d}"
            return body + identity_check_digit(body)

        return self._fresh(draw)

    def _nation(self, place: str) -> str:
        r = self._random
        if r.random() < 0.01:
            return words.UYGHUR
        for start, nations in words.NATIONS_OF_PLACES:
            if place.startswith(start) and r.random() < 0.6:
                return r.choice(nations)
        return r.choice(words.OTHER_NATIONS) if r.random() < 0.04 else words.HAN

    def _name(self, nation: str, sex: str) -> str:
        r = self._random
        if nation == words.UYGHUR:
            pool = words.LONG_PARTS if r.random() < 0.2 else words.UYGHUR_PARTS
            name = MIDDLE_DOT.join(r.sample(pool, 2))
            return name + MIDDLE_DOT + r.choice(words.RARE) if r.random() < 0.1 else name
        surname = r.choice(words.COMPOUND_SURNAMES if r.random() < 0.02 else words.SURNAMES)
        given = words.GIVEN_MALE if sex == MALE else words.GIVEN_FEMALE
        name = surname + "".join(r.choice(given) for _ in range(1 if r.random() < 0.25 else 2))
        if r.random() < 0.02:
            name = name[:-1] + r.choice(words.RARE)
        return name
