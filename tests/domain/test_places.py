"""Places, accounts and movements: the tree in which every body has one place."""

from __future__ import annotations

import pytest

from domain.places import (
    FACTORY_ADVISED,
    LEGAL,
    MISSING_COUNTED,
    MISSING_READ,
    PACKED,
    SHREDDER,
    SURPLUS_COUNTED,
    SURPLUS_READ,
    VAULT,
    Account,
    Kind,
    Line,
    Movement,
    Standing,
    courier,
    held,
    is_legal,
    owner,
    rejected,
    standing,
    transit,
    work,
)

INSIDE = [VAULT, PACKED, *(f(line) for line in Line for f in (work, rejected, held))]
OUTSIDE = [FACTORY_ADVISED, SURPLUS_COUNTED, SURPLUS_READ, MISSING_COUNTED, MISSING_READ]
ALL = [*INSIDE, *OUTSIDE, SHREDDER, courier("102-430102"), transit(Line.INSPECTION, Line.SORTING)]
SOCIAL = Kind.SOCIAL_SECURITY_CARD


@pytest.mark.parametrize("place", ALL)
def test_every_place_has_one_standing_and_one_owner(place: str) -> None:
    """Each place counts once in the equation, and one line alone posts out of it."""
    assert isinstance(standing(place), Standing)
    assert owner(place) in set(Line)


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        (FACTORY_ADVISED, Standing.ADVISED),
        (SURPLUS_READ, Standing.SURPLUS),
        (MISSING_COUNTED, Standing.MISSING),
        (VAULT, Standing.IN_WORK),
        (PACKED, Standing.IN_WORK),
        (transit(Line.INVENTORY, Line.KEY_REPLACEMENT), Standing.IN_WORK),
        (work(Line.SORTING), Standing.IN_WORK),
        (rejected(Line.INSPECTION), Standing.REJECTED),
        (held(Line.KEY_REPLACEMENT), Standing.HELD),
        (courier("430102"), Standing.SHIPPED),
        (SHREDDER, Standing.DESTROYED),
    ],
)
def test_standing(place: str, expected: Standing) -> None:
    """How each kind of place counts."""
    assert standing(place) is expected


@pytest.mark.parametrize(
    "place", ["", "nowhere", "inventory", "inventory/cellar", "factory/other", "sorting/"]
)
def test_a_place_that_is_not_in_the_tree_is_an_error(place: str) -> None:
    """Nothing counts silently as something."""
    with pytest.raises(ValueError):
        standing(place)


def test_the_sender_posts_into_transit_and_the_receiver_takes() -> None:
    """So no two lines write rows of one account."""
    assert owner(transit(Line.INVENTORY, Line.KEY_REPLACEMENT)) == Line.KEY_REPLACEMENT


def test_every_legal_transition_leads_somewhere_and_out() -> None:
    """From the vault every body can reach the courier; nothing leaves courier, or comes back to
    where it was unless it was held; every end is an account of the equation."""
    following: dict[str, set[str]] = {}
    goes_on = {
        ("sorting/held", "sorting/work"),
        ("sorting/held", "sorting/held"),
        ("key_replacement/held", "key_replacement/work"),
    }
    for source, target in LEGAL - goes_on:
        following.setdefault(source, set()).add(target)
    reached, open_ = {VAULT}, [VAULT]
    while open_:
        for target in following.get(open_.pop(), set()) - reached:
            reached.add(target)
            open_.append(target)
    assert "courier" in reached
    assert "courier" not in following
    # Each place but an end leads on, and none is its own successor but by being held.
    following = {p: t for p, t in following.items() if not p.endswith("/held")}
    for place in reached - {"courier"}:
        if standing(place) is Standing.IN_WORK:
            assert following[place]
        seen, ahead = set(), list(following.get(place, ()))
        while ahead:
            at = ahead.pop()
            if at not in seen:
                seen.add(at)
                ahead.extend(following.get(at, ()))
        assert place not in seen


@pytest.mark.parametrize("source", ["", *ALL])
def test_a_courier_takes_only_what_is_packed(source: str) -> None:
    """Whatever the destination, nothing goes out unpacked."""
    assert is_legal(source, courier("102-430102")) is (source == PACKED)


def test_a_movement_keeps_kind_and_bank_and_moves_something() -> None:
    """Bodies do not change what they are by going somewhere."""
    vault = Account(VAULT, SOCIAL, "102")
    with pytest.raises(ValueError):
        Movement(vault, Account(PACKED, SOCIAL, "105"), 1)
    with pytest.raises(ValueError):
        Movement(vault, Account(PACKED, Kind.WHITE_CARD, "102"), 1)
    for count in (0, -1):
        with pytest.raises(ValueError):
            Movement(vault, Account(PACKED, SOCIAL, "102"), count)
