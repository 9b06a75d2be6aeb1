"""What was ordered from the factory, and how it lies in cartons."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from random import Random

from counterparts.people import People, Person
from domain.registers import Bank, load_banks, load_divisions

CARTON_SIZE = 250
BANKS = 3
BRANCHES_PER_BANK = 4
TEMPORARY_SHARE = 0.02  # article 31
HAS_TEMPORARY_SHARE = 0.05  # holders who carry a temporary card already

SOCIAL_SECURITY_CARD, TEMPORARY_CARD = "social_security_card", "temporary_card"


@dataclass(frozen=True, repr=False)
class Order:
    """One card that was ordered for one person."""

    order_id: str
    bank_code: str
    branch_code: str
    carton_id: str
    identification_code: str
    social_card_number: str
    bank_card_number: str
    person: Person
    has_temporary_card: bool


@dataclass(frozen=True)
class Carton:
    """`count` is what the delivery note says. `destination`: division, temporary cards only."""

    carton_id: str
    bank_code: str
    kind: str
    count: int
    destination: str


@dataclass(frozen=True, repr=False)
class Plan:
    """A batch as the factory was told to make it; `temporary` are (carton, identification code)."""

    batch_id: str
    orders: tuple[Order, ...]
    temporary: tuple[tuple[Carton, str], ...]
    cartons: tuple[Carton, ...]


def identification_code(division: str, serial: bytes) -> str:
    """Area code of the prefecture ‖ D156000005 ‖ 8 bytes of chip serial, as 32 hex digits."""
    return f"{division[:4]}00D156000005{serial.hex().upper()}"


def plan_batch(batch_id: str, cards: int, people: People, random: Random) -> Plan:
    """`cards` orders of 3 banks and 12 county branches, and 2 % temporary cards on top, in
    cartons of at most 250 cards of one bank and kind."""
    banks = sorted(random.sample(sorted(load_banks()), BANKS))
    divisions = random.sample(sorted(load_divisions()), BANKS * BRANCHES_PER_BANK)
    branches = [
        (load_banks()[bank], division)
        for i, bank in enumerate(banks)
        for division in sorted(divisions[i * BRANCHES_PER_BANK : (i + 1) * BRANCHES_PER_BANK])
    ]
    orders, cartons = _pack(_orders(batch_id, cards, branches, people, random))
    temporary = _temporary(batch_id, cards, branches, people)
    cartons += list(dict.fromkeys(carton for carton, _ in temporary))
    return Plan(batch_id, tuple(orders), tuple(temporary), tuple(cartons))


def _orders(
    batch_id: str, cards: int, branches: list[tuple[Bank, str]], people: People, random: Random
) -> list[Order]:
    weights = [random.uniform(0.5, 1.5) for _ in branches]
    # Every branch gets a card as long as there are enough.
    chosen = branches[:cards] + random.choices(branches, weights, k=max(0, cards - len(branches)))
    random.shuffle(chosen)
    return [
        Order(
            order_id=f"{batch_id}-{number:06d}",
            bank_code=bank.code,
            branch_code=f"{bank.code}-{division}",
            carton_id="",
            identification_code=identification_code(division, people.chip_serial()),
            social_card_number=people.social_card_number(),
            bank_card_number=people.bank_card_number(bank),
            person=people.person(division),
            has_temporary_card=random.random() < HAS_TEMPORARY_SHARE,
        )
        for number, (bank, division) in enumerate(chosen, start=1)
    ]


def _pack(orders: list[Order]) -> tuple[list[Order], list[Carton]]:
    """Even cartons bank by bank, orders in their order."""
    packed: dict[str, Order] = {}
    cartons = []
    for bank in sorted({o.bank_code for o in orders}):
        of_bank = [o for o in orders if o.bank_code == bank]
        batch_id = of_bank[0].order_id.rpartition("-")[0]
        number = math.ceil(len(of_bank) / CARTON_SIZE)
        for n in range(number):
            start, end = (len(of_bank) * k // number for k in (n, n + 1))
            carton = Carton(
                f"{batch_id}-{bank}-{n + 1:03d}", bank, SOCIAL_SECURITY_CARD, end - start, ""
            )
            cartons.append(carton)
            for order in of_bank[start:end]:
                packed[order.order_id] = replace(order, carton_id=carton.carton_id)
    return [packed[o.order_id] for o in orders], cartons


def _temporary(
    batch_id: str, cards: int, branches: list[tuple[Bank, str]], people: People
) -> list[tuple[Carton, str]]:
    """Cards without holder, dealt out evenly to the divisions of the branches."""
    dealt = [0] * len(branches)
    for n in range(math.ceil(cards * TEMPORARY_SHARE)):
        # 5 has no factor in common with 12: neighbours go to different banks.
        dealt[n * 5 % len(branches)] += 1
    cards_in_cartons = []
    for (bank, division), count in zip(branches, dealt, strict=True):
        for n, start in enumerate(range(0, count, CARTON_SIZE), start=1):
            size = min(CARTON_SIZE, count - start)
            carton = Carton(
                f"{batch_id}-{bank.code}-T{division}-{n:03d}",
                bank.code,
                TEMPORARY_CARD,
                size,
                division,
            )
            for _ in range(size):
                code = identification_code(division, people.chip_serial())
                cards_in_cartons.append((carton, code))
    return cards_in_cartons
