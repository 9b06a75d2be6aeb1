"""What goes wrong in a delivery, as it does: planted in the return, among the chips, and in what
card management decides about its orders meanwhile.

Which orders are hit follows from the seed. Each fault has an order of its own and, as long as
there are enough, a carton of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from random import Random

from counterparts.chips import HOLDER_FILE, Chip, social_card
from counterparts.orders import Order, identification_code
from counterparts.people import People
from domain.card.profile import Profile
from domain.numbers import IDENTITY_CHECK_DIGITS

FEWEST_CARDS = 60
UNREGISTERED_BANK = "999"
ANOTHER_VERSION = 1
"""Of keys that are not the factory's."""
SEEDS_WITH_A_WEAK_SERIES = frozenset({2})
"""In these deliveries the chips of one bank come from a bad wafer: every second one passes the
full check, and fails when it is read again."""


class Fault(StrEnum):
    SILENT_CHIP = "silent_chip"
    SILENT_TEMPORARY = "silent_temporary"
    FOREIGN_FORMAL_KEYS = "foreign_formal_keys"
    NOT_IN_RETURN = "not_in_return"
    OTHER_PERSON = "other_person"
    CARTON_SHORT = "carton_short"
    SURPLUS_CARD = "surplus_card"
    CARTON_DAMAGED = "carton_damaged"
    UNKNOWN_BANK = "unknown_bank"
    SENT_AGAIN = "sent_again"  # an unknown bank too, but a correction follows
    BAD_CHECK_DIGIT = "bad_check_digit"
    REPEATED_IDENTITY = "repeated_identity"
    RECORD_TWICE = "record_twice"
    ORDER_CANCELLED = "order_cancelled"
    ORDER_ON_HOLD = "order_on_hold"
    WEAK_CHIP = "weak_chip"


STOPS = {Fault.ORDER_CANCELLED: "cancel", Fault.ORDER_ON_HOLD: "hold"}
"""What card management does to such an order while the delivery is in work."""
RELEASES = {Fault.ORDER_ON_HOLD: "release"}
"""What it does once nothing else of the batch is left to do."""
BESIDE = (Fault.SURPLUS_CARD, Fault.CARTON_DAMAGED)
"""What happens in an order's carton and leaves its own card as it is."""
WRONG_BANK = (Fault.UNKNOWN_BANK, Fault.SENT_AGAIN)
RECORD_FAULTS = (*WRONG_BANK, Fault.BAD_CHECK_DIGIT, Fault.REPEATED_IDENTITY)


@dataclass(frozen=True)
class Planted:
    """One planted fault. `order_id` is the order whose card or record is at fault, or which lies
    beside a surplus card or in a damaged carton (empty for a temporary card); `other_order_id` is
    the order whose holder's data the chip or record carries."""

    fault: Fault
    order_id: str
    carton_id: str
    identification_code: str
    other_order_id: str = ""


def how_many(cards: int) -> list[Fault]:
    """The faults of social security cards in a delivery of `cards`, one entry for each."""
    if cards < FEWEST_CARDS:
        return []
    faults: list[Fault] = [f for f in Fault if f not in (Fault.SILENT_TEMPORARY, Fault.WEAK_CHIP)]
    faults += [Fault.SILENT_CHIP] * (cards >= 3_000)
    return [*faults, Fault.ORDER_CANCELLED]


def choose(orders: Sequence[Order], random: Random) -> list[Planted]:
    """Where the faults go. The record that repeats an identity number stands after the one that
    had it first, and that one is without fault."""
    by_carton: dict[str, list[Order]] = {}
    for order in orders:
        by_carton.setdefault(order.carton_id, []).append(order)
    cartons = list(by_carton.values())
    random.shuffle(cartons)
    for carton in cartons:
        random.shuffle(carton)
    faults = how_many(len(orders))
    place = {order.order_id: n for n, order in enumerate(orders)}
    hit: dict[str, Fault] = {}
    for n, fault in enumerate(faults):
        carton = cartons[n % len(cartons)]
        # So far back that a sound record stands before it, whatever else is hit.
        first = len(faults) if fault is Fault.REPEATED_IDENTITY else 0
        order = next(o for o in carton if place[o.order_id] >= first)
        carton.remove(order)
        hit[order.order_id] = fault
    sound = [o for o in orders if o.order_id not in hit]
    planted = []
    for order in orders:
        if order.order_id not in hit:
            continue
        fault, other = hit[order.order_id], ""
        if fault is Fault.REPEATED_IDENTITY:
            before = [o for o in sound if place[o.order_id] < place[order.order_id]]
            other = random.choice(before).order_id
        elif fault is Fault.OTHER_PERSON:
            other = random.choice(sound).order_id
        planted.append(
            Planted(fault, order.order_id, order.carton_id, order.identification_code, other)
        )
    return planted


def spoil_record(order: Order, planted: Planted, other: Order | None) -> Order:
    """The order as it was wrongly written down; its card is made accordingly."""
    if planted.fault in WRONG_BANK:
        branch = UNREGISTERED_BANK + order.branch_code[3:]
        return replace(order, bank_code=UNREGISTERED_BANK, branch_code=branch)
    if planted.fault is Fault.BAD_CHECK_DIGIT:
        number = order.person.identity_number
        at = IDENTITY_CHECK_DIGITS.index(number[17])
        wrong = number[:17] + IDENTITY_CHECK_DIGITS[(at + 1) % 11]
        return replace(order, person=replace(order.person, identity_number=wrong))
    if planted.fault is Fault.REPEATED_IDENTITY and other is not None:
        return replace(order, person=other.person)
    return order


class Spoiler:
    """Puts faults on chips. `people` invents who is in no return."""

    def __init__(self, profile: Profile, people: People, random: Random) -> None:
        self._profile = profile
        self._people = people
        self._random = random

    def spoil(self, chip: Chip, planted: Planted, order: Order, other: Order | None) -> Chip | None:
        """The chip that lies in the carton instead of `chip`; None: there is none."""
        match planted.fault:
            case Fault.CARTON_SHORT:
                return None
            case Fault.SILENT_CHIP:
                return replace(chip, silent=True)
            case Fault.FOREIGN_FORMAL_KEYS:
                keys = {k.usage: self._random.randbytes(16) for k in self._profile.keys}
                return replace(chip, keys=keys, version=ANOTHER_VERSION)
            case Fault.OTHER_PERSON if other is not None:
                theirs = social_card(self._profile, other).files[HOLDER_FILE]
                return replace(chip, files={**chip.files, HOLDER_FILE: theirs})
            case Fault.NOT_IN_RETURN:
                return self.stranger(order)
        return chip

    def stranger(self, order: Order) -> Chip:
        """A card of the same bank and batch, for somebody that the return does not name."""
        division = order.branch_code[4:]
        stranger = replace(
            order,
            identification_code=identification_code(division, self._people.chip_serial()),
            social_card_number=self._people.social_card_number(),
            person=self._people.person(division),
        )
        return replace(social_card(self._profile, stranger), order_id="")


def silence_one(chips: list[Chip], random: Random) -> Planted:
    """Make one of the temporary cards in `chips` silent, in place."""
    at = random.randrange(len(chips))
    chips[at] = replace(chips[at], silent=True)
    chip = chips[at]
    return Planted(Fault.SILENT_TEMPORARY, "", chip.carton_id, chip.identification_code)


def weaken_series(
    made: list[tuple[Chip, Planted | None]], orders: Sequence[Order], random: Random
) -> list[Planted]:
    """Make every second sound chip of one bank's orders weak, in place: so many that no sample of
    that bank's lot can miss them."""
    bank_of = {o.order_id: o.bank_code for o in orders}
    bank = random.choice(sorted(set(bank_of.values()) - {UNREGISTERED_BANK}))
    sound = [
        n for n, (chip, fault) in enumerate(made)
        if fault is None and bank_of.get(chip.order_id) == bank
    ]  # fmt: skip
    planted = []
    for n in sound[::2]:
        chip = made[n][0]
        fault = Planted(Fault.WEAK_CHIP, chip.order_id, chip.carton_id, chip.identification_code)
        made[n] = replace(chip, weak=True), fault
        planted.append(fault)
    return planted
