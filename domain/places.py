"""Places, accounts and movements: card bodies are money.

Places form a tree that includes the outside. An account is (place, kind, bank, condition).
Every body of the centre is in exactly one; outside accounts are the other side of what comes
and goes, and may be negative. So that, at every commit and to the card,

    advised + surplus = received + missing
    received = shipped + rejected + held + in_work + destroyed
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What a body is (production.md, "The four routes")."""

    SOCIAL_SECURITY_CARD = "social_security_card"
    TEMPORARY_CARD = "temporary_card"
    WHITE_CARD = "white_card"
    INSTANT_BLANK = "instant_blank"
    SAMPLE_CARD = "sample_card"
    TEST_CARD = "test_card"


class Line(StrEnum):
    """The lines of the floor. Each is the single writer of its stream and of its accounts, if it
    has any."""

    INVENTORY = "inventory"
    KEY_REPLACEMENT = "key_replacement"
    INSPECTION = "inspection"
    SAMPLING = "sampling"
    SORTING = "sorting"
    CUSTODY = "custody"  # people and their acts: it has no accounts


CARD_LINES = tuple(line for line in Line if line is not Line.CUSTODY)
"""Those that have cards."""


class Standing(StrEnum):
    """How an account counts in the equation of the centre."""

    ADVISED = "advised"
    SURPLUS = "surplus"
    MISSING = "missing"
    IN_WORK = "in_work"
    SHIPPED = "shipped"
    REJECTED = "rejected"
    HELD = "held"
    DESTROYED = "destroyed"


# The outside. `counted` belongs to inventory; `read` to key replacement, which learns from a
# chip's identity what a count cannot see.
FACTORY_ADVISED = "factory/advised"
SURPLUS_COUNTED = "factory/surplus/counted"
SURPLUS_READ = "factory/surplus/read"
MISSING_COUNTED = "factory/missing/counted"
MISSING_READ = "factory/missing/read"
SHREDDER = "shredder"

VAULT = "inventory/vault"
PACKING = "sorting/packing"
"""On the list of an open package, not counted yet."""
PACKED = "sorting/packed"


def work(line: Line) -> str:
    """Where `line` has what it works on."""
    return f"{line}/work"


def rejected(line: Line) -> str:
    """Where `line` sets apart what it rejected; the account's condition is the reason."""
    return f"{line}/rejected"


def held(line: Line) -> str:
    """Where `line` sets apart what it holds; the account's condition is the reason."""
    return f"{line}/held"


def transit(sender: Line, receiver: Line) -> str:
    """Posted by the sender, taken by the receiver, so no two lines write one account's rows."""
    return f"transit/{sender}>{receiver}"


# A sample of an inspection lot leaves the sorted cards and comes back read, or not at all.
DRAWN = transit(Line.SORTING, Line.SAMPLING)
READ_AGAIN = transit(Line.SAMPLING, Line.SORTING)

AFTER_INSPECTION = frozenset(
    {transit(Line.INSPECTION, Line.SORTING), work(Line.SORTING), DRAWN, READ_AGAIN, PACKING}
    | {PACKED}
)
"""Where a body is that passed inspection and was not shipped yet, nor set apart."""


def courier(destination: str) -> str:
    """Handed to the courier for a county branch or a division's service window."""
    return f"courier/{destination}"


def standing(place: str) -> Standing:
    """How a place counts. Raises ValueError for a place that is not in the tree."""
    head, _, rest = place.partition("/")
    if head == "factory":
        return Standing(rest.partition("/")[0])
    if head == "courier":
        return Standing.SHIPPED
    if place == SHREDDER:
        return Standing.DESTROYED
    if head == "transit" or rest in ("vault", "work", "packing", "packed"):
        return Standing.IN_WORK
    if rest in ("rejected", "held"):
        return Standing(rest)
    raise ValueError(f"no such place: {place}")


def owner(place: str) -> str:
    """The line that posts out of a place (for `transit`, the receiver)."""
    head, _, rest = place.partition("/")
    if head == "transit":
        return rest.partition(">")[2]
    if place in (SURPLUS_READ, MISSING_READ):
        return Line.KEY_REPLACEMENT
    if head == "factory":
        return Line.INVENTORY
    if head in ("courier", SHREDDER):
        return Line.SORTING
    return head


@dataclass(frozen=True, order=True)
class Account:
    place: str
    kind: str
    bank: str
    condition: str = ""


@dataclass(frozen=True)
class Movement:
    """`count` bodies (> 0) out of one account and into another."""

    source: Account
    target: Account
    count: int

    def __post_init__(self) -> None:
        if self.count <= 0:
            raise ValueError("a movement takes at least one body")
        if (self.source.kind, self.source.bank) != (self.target.kind, self.target.bank):
            raise ValueError("a movement changes neither kind nor bank")


# Which movements of a body are legal, by (from, to) without condition. Verification replays
# them; a transition that is not here is a fault of the program or of the database.
_K, _I, _S = Line.KEY_REPLACEMENT, Line.INSPECTION, Line.SORTING
_Q = Line.SAMPLING
LEGAL: frozenset[tuple[str, str]] = frozenset(
    {
        ("", VAULT),
        (VAULT, transit(Line.INVENTORY, _K)),
        (transit(Line.INVENTORY, _K), work(_K)),
        (work(_K), transit(_K, _I)),
        (work(_K), rejected(_K)),
        (work(_K), held(_K)),
        *(
            (place, outside)  # a recount found that there is no such card
            for place in (VAULT, transit(Line.INVENTORY, _K), work(_K))
            for outside in (MISSING_COUNTED, SURPLUS_COUNTED)
        ),
        # A correction of the return advised it after all, or a recount counted it.
        (held(_K), work(_K)),
        (held(_K), held(_K)),  # in doubt, and its order was cancelled meanwhile
        *((held(line), rejected(line)) for line in CARD_LINES),  # scrapped by two people
        ("", held(_K)),  # a card beyond the count: it was never signed for
        (transit(_K, _I), transit(_I, _S)),
        (transit(_K, _I), rejected(_I)),
        (transit(_K, _I), held(_I)),
        (transit(_I, _S), work(_S)),
        (work(_S), PACKING),
        (work(_S), held(_S)),  # its order was cancelled or held by card management
        (held(_S), held(_S)),  # an order on hold is cancelled
        (held(_S), work(_S)),  # released
        (work(_S), DRAWN),
        (DRAWN, READ_AGAIN),
        (DRAWN, rejected(_Q)),
        (READ_AGAIN, PACKING),
        (work(_S), held(_S)),  # its lot was refused
        (READ_AGAIN, held(_S)),
        (held(_S), DRAWN),  # every card of a refused lot is read again
        (PACKING, PACKED),
        (PACKING, held(_S)),  # its order was stopped before its package was closed
        (PACKED, "courier"),
    }
)


STOCKED: frozenset[str] = frozenset(
    {VAULT, transit(Line.INVENTORY, _K), work(_K), transit(_K, _I), transit(_I, _S), work(_S)}
    | {DRAWN}
    | {held(line) for line in CARD_LINES}
)
"""Places whose cards are counted by a stock-take. (What is being packed is counted by its package;
what is rejected stays so, wherever it lies.)"""
STOCK_MOVES = frozenset(
    pair
    for place in STOCKED
    for pair in ((place, held(Line(owner(place)))), (held(Line(owner(place))), place))
)
"""There and back: missed, and found again."""


def is_legal(source: str, target: str) -> bool:
    """Whether a body may go from `source` ("" = it was not there) to `target`."""
    pair = source, "courier" if target.startswith("courier/") else target
    return pair in LEGAL or pair in STOCK_MOVES
