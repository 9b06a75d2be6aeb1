"""A delivery of the factory: the same from the same seed, whole or not there, and wrong only
where `truth.json` says."""

import json
import math
from collections import Counter
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest
from Crypto.Cipher import PKCS1_OAEP
from Crypto.Hash import SHA1
from Crypto.PublicKey import RSA

from counterparts import factory, files
from counterparts.factory import Delivery, DeliveryDiffers, make_delivery
from counterparts.faults import RECORD_FAULTS, WRONG_BANK, Fault
from counterparts.people import People
from domain.card.profile import Profile, is_identification_code, load_profile
from domain.numbers import (
    is_bank_card_number,
    is_identity_number,
    is_name,
    is_social_card_number,
)
from domain.registers import is_branch, load_banks, load_divisions
from station_agents.virtual.card import VirtualCard
from station_agents.virtual.tray_rows import memory_from
from tests.conformance.chip_terminal import ecb

Row = dict[str, Any]
TRANSPORT = RSA.generate(2048)
PEM = TRANSPORT.public_key().export_key()


@pytest.fixture(scope="module", params=[("ssc-3des", 60), ("ssc-3des", 3000), ("ssc-sm4", 60)],
                ids=lambda param: f"{param[0]}-{param[1]}")  # fmt: skip
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Delivery:
    profile, cards = request.param
    return make_delivery(7, cards, tmp_path_factory.mktemp("home"), PEM, profile=profile)


@pytest.fixture(scope="module")
def profile(made: Delivery) -> Profile:
    head, *_ = files.read_lines(made.trays[0])
    return load_profile(head["profile"])


def chips_of(delivery: Delivery) -> dict[str, Row]:
    chips: dict[str, Row] = {}
    for tray in delivery.trays:
        head, *cards = files.read_lines(tray)
        assert head["format"] == "tray/2"
        assert head["tray_id"] == tray.stem
        for card in cards:
            assert card["card"] not in chips
            chips[card["card"]] = card
    return chips


def orders_of(delivery: Delivery) -> dict[str, Row]:
    return {row["order_id"]: row for row in files.read_lines(delivery.factory_return)}


def masters_of(delivery: Delivery, profile: Profile) -> dict[str, bytes]:
    """The temporary masters, unwrapped as a token does, their check values compared."""
    block = json.loads(delivery.key_block.read_text())
    opener = PKCS1_OAEP.new(TRANSPORT, hashAlgo=SHA1)
    masters = {k["usage"]: opener.decrypt(bytes.fromhex(k["wrapped"])) for k in block["keys"]}
    for k in block["keys"]:
        first = ecb(profile.suite, masters[k["usage"]], bytes(profile.block))[:3]
        assert first.hex().upper() == k["check_value"]
    assert (block["format"], block["suite"]) == (1, profile.suite)
    assert block["batch_id"] == delivery.batch_id
    return masters


def derive(suite: str, key: bytes, factor: bytes) -> bytes:
    return ecb(suite, key, factor + bytes(b ^ 0xFF for b in factor))


def holder_of(profile: Profile, order: Row) -> Row:
    names = ("identity_number", "name", "sex", "nation", "birth_place", "birth_date")
    return {
        f"{profile.fields[n].tag:02X}": profile.fields[n]
        .encode(profile.fields[n].fit(order[n]))
        .hex()
        .upper()
        for n in names
    }


def tree(directory: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()
    }


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    """The same seed gives the same files to the byte, sealed keys included; another seed gives
    other people, chips and keys."""
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        make_delivery(seed, 120, tmp_path / name, PEM)
    a, b, c = (tree(tmp_path / name) for name in "abc")
    assert a == b
    assert a.keys() == c.keys()
    assert not [name for name in a if a[name] == c[name]]


def test_repeat_does_nothing(tmp_path: Path) -> None:
    """A finished delivery is found, not made again; one of other arguments is refused."""
    first = make_delivery(3, 60, tmp_path, PEM, trays=2)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    assert make_delivery(3, 60, tmp_path, PEM, trays=2) == first
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before
    for seed, cards, trays in ((4, 60, 2), (3, 61, 2), (3, 60, 1)):
        with pytest.raises(DeliveryDiffers):
            make_delivery(seed, cards, tmp_path, PEM, trays=trays)


@pytest.mark.parametrize("killed_at", range(1, 9))
def test_killed_leaves_no_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    """Wherever the making ends early, there is no `sent`, and the next call makes the same
    delivery as one that was not disturbed."""
    whole = make_delivery(3, 60, tmp_path / "whole", PEM)
    real_write, real_rename = files.write_whole, Path.rename
    count = 0

    def step() -> None:
        nonlocal count
        count += 1
        if count == killed_at:
            raise KeyboardInterrupt

    def write(path: Path, text: str) -> None:
        step()
        real_write(path, text)

    def rename(path: Path, target: Path) -> Path:
        step()
        return real_rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_whole", write)
        patch.setattr(Path, "rename", rename)
        with pytest.raises(KeyboardInterrupt):
            make_delivery(3, 60, tmp_path / "killed", PEM)
    assert not (tmp_path / "killed" / "sent").exists()
    make_delivery(3, 60, tmp_path / "killed", PEM)
    assert tree(tmp_path / "killed") == tree(whole.out_dir)


def test_note_and_cartons(made: Delivery) -> None:
    """3 banks, 12 branches, 4 each; cartons of one bank and kind, at most 250; the note counts
    what was ordered, and the plastic is one short in the short carton and one too many in the
    one with a surplus card only."""
    orders, chips = orders_of(made), chips_of(made)
    note = json.loads(made.delivery_note.read_text())
    files.delivery_note(note)
    cartons = {c["carton_id"]: c for c in note["cartons"]}
    assert len(cartons) == len(note["cartons"])
    social = [c for c in cartons.values() if c["kind"] == "social_security_card"]
    temporary = [c for c in cartons.values() if c["kind"] == "temporary_card"]
    assert sum(c["count"] for c in social) == len(orders)
    assert sum(c["count"] for c in temporary) == math.ceil(len(orders) * 0.02)
    assert all(0 < c["count"] <= 250 for c in cartons.values())
    assert all(c["destination"] in load_divisions() for c in temporary)
    assert not any(c["destination"] for c in social)
    unknown = {f["order_id"] for f in made.faults if f["fault"] in WRONG_BANK}
    for order_id, order in orders.items():
        if order_id not in unknown:
            assert cartons[order["carton_id"]]["bank_code"] == order["bank_code"]
            assert is_branch(order["branch_code"])
    branches = {o["branch_code"] for i, o in orders.items() if i not in unknown}
    assert Counter(b[:3] for b in branches) == Counter(
        {c["bank_code"]: 4 for c in cartons.values()}
    )
    plastic = Counter(chip["carton_id"] for chip in chips.values())
    short = Counter(f["carton_id"] for f in made.planted(Fault.CARTON_SHORT))
    noted = Counter({c["carton_id"]: c["count"] for c in cartons.values()})
    surplus = Counter(f["carton_id"] for f in made.planted(Fault.SURPLUS_CARD))
    assert plastic + short == noted + surplus


def test_the_correction_has_the_records_that_are_sent_again(made: Delivery) -> None:
    """Each with the bank of its carton, and else as it was; it names the return."""
    note = json.loads(made.delivery_note.read_text())
    banks = {c["carton_id"]: c["bank_code"] for c in note["cartons"]}
    head, *lines, _ = (made.sent / "correction.txt").read_text("gb18030").splitlines()
    assert head.split("|")[2:] == [f"{made.file_id}-C1", made.batch_id, made.file_id]
    orders = orders_of(made)
    again = {f["order_id"] for f in made.planted(Fault.SENT_AGAIN)}
    assert {line.split("|")[1] for line in lines} == again
    for line in lines:
        _, order_id, bank, branch, carton, code, *rest = line.split("|")
        wrong = orders[order_id]
        assert bank == banks[carton] != wrong["bank_code"]
        assert branch == bank + wrong["branch_code"][3:]
        assert (carton, code, rest[-1]) == (
            wrong["carton_id"], wrong["identification_code"], wrong["name"]
        )  # fmt: skip


def test_faults_stand_apart(made: Delivery) -> None:
    """As many faults as the size asks for, each with an order of its own, and a carton of its
    own where there are enough."""
    count = Counter(Fault(f["fault"]) for f in made.faults)
    expected: Counter[Fault] = Counter(
        f for f in Fault if f not in (Fault.SILENT_TEMPORARY, Fault.WEAK_CHIP)
    )
    expected[Fault.ORDER_CANCELLED] += 1
    if len(orders_of(made)) == 3000:
        expected += Counter([Fault.SILENT_CHIP, Fault.SILENT_TEMPORARY])
        cartons = {o["carton_id"] for o in orders_of(made).values()}
        hit_cartons = [f["carton_id"] for f in made.faults if f["order_id"]]
        assert len(set(hit_cartons)) == min(len(hit_cartons), len(cartons))
    assert count == expected
    hit = [f["order_id"] for f in made.faults if f["order_id"]]
    assert len(set(hit)) == len(hit)
    assert not set(hit) & {f["other_order_id"] for f in made.faults}


def test_records_wrong_only_where_planted(made: Delivery) -> None:
    """Every record is well formed and its numbers are its own, but for the planted ones;
    each of these has exactly the fault that it should have."""
    orders = orders_of(made)
    planted = {f["order_id"]: f for f in made.faults if f["fault"] in RECORD_FAULTS}
    seen: set[str] = set()
    for order_id, o in orders.items():
        fault = planted.get(order_id, {}).get("fault")
        assert (o["bank_code"] not in load_banks()) == (fault in WRONG_BANK)
        assert is_identity_number(o["identity_number"]) == (fault != Fault.BAD_CHECK_DIGIT)
        assert (o["identity_number"] in seen) == (fault == Fault.REPEATED_IDENTITY)
        fresh = (o["social_card_number"], o["bank_card_number"], o["identification_code"])
        assert not seen.intersection(fresh)
        seen.update(fresh, [o["identity_number"]])
        assert is_social_card_number(o["social_card_number"])
        assert is_bank_card_number(o["bank_card_number"])
        assert is_identification_code(o["identification_code"])
        assert is_name(o["name"])
        assert o["identity_number"][:6] == o["birth_place"]
        assert o["identity_number"][6:14] == o["birth_date"]
        assert int(o["identity_number"][16]) % 2 == int(o["sex"]) % 2
        assert files.factory_row(files.factory_record(o)) == o
    lines = Counter(row["order_id"] for row in files.read_lines(made.factory_return))
    twice = {f["order_id"] for f in made.planted(Fault.RECORD_TWICE)}
    assert {order_id for order_id, n in lines.items() if n > 1} == twice
    for f in made.planted(Fault.REPEATED_IDENTITY):
        assert (
            orders[f["order_id"]]["identity_number"]
            == orders[f["other_order_id"]]["identity_number"]
        )


def test_chips_wrong_only_where_planted(made: Delivery, profile: Profile) -> None:
    """Every chip holds its order's data and the diversified temporary keys, every order has its
    chip in its carton, but for the planted faults, each of which is the one that truth names."""
    orders, chips, masters = orders_of(made), chips_of(made), masters_of(made, profile)
    fault_of = {f["card"]: f for f in made.faults if f["card"]}
    order_of = {card: order_id for order_id, card in made.cards.items()}
    by_code = {o["identification_code"]: o for o in orders.values()}
    for card, chip in chips.items():
        fault = fault_of.get(card, {}).get("fault")
        code = chip["social"]["records"]["05"]["01"]
        assert chip["atr"].endswith(code[16:])
        assert len(bytes.fromhex(chip["atr"])) == 4 + 13
        assert chip["silent"] == (fault in (Fault.SILENT_CHIP, Fault.SILENT_TEMPORARY))
        expected = {
            slot.key_id: derive(
                profile.suite,
                derive(profile.suite, masters[slot.usage], code[:6].encode() + b"sx"),
                bytes.fromhex(code[16:]),
            )
            for slot in profile.keys
        }
        foreign = fault == Fault.FOREIGN_FORMAL_KEYS
        assert [k["id"] for k in chip["social"]["keys"]] == list(expected)
        for key in chip["social"]["keys"]:
            assert key["version"] == (1 if foreign else 0)
            assert (bytes.fromhex(key["value"]) == expected[key["id"]]) == (not foreign)
            assert key["tries"] == key["tries_left"] > 0
        if chip["social"]["records"]["05"]["02"] == b"2".hex():
            assert chip["face_number"] == ""
            assert not chip["social"]["records"]["06"]
            assert "07" not in chip["social"]["records"]["05"]
            assert code not in by_code
            continue
        stranger = fault in (Fault.NOT_IN_RETURN, Fault.SURPLUS_CARD)
        assert (code not in by_code) == stranger
        assert chip["face_number"].encode().hex().upper() == chip["social"]["records"]["05"]["07"]
        if stranger:
            assert chip["face_number"] not in {o["social_card_number"] for o in orders.values()}
            continue
        order = by_code[code]
        assert order_of[card] == order["order_id"]
        assert chip["carton_id"] == order["carton_id"]
        assert chip["face_number"] == order["social_card_number"]
        holder = order
        if fault == Fault.OTHER_PERSON:
            holder = orders[fault_of[card]["other_order_id"]]
            assert holder["identity_number"] != order["identity_number"]
        assert chip["social"]["records"]["06"] == holder_of(profile, holder)
    without = {
        f["order_id"] for f in made.faults if f["fault"] in ("carton_short", "not_in_return")
    }
    assert orders.keys() - made.cards.keys() == without


def test_a_batch_card_carries_its_banks_side(made: Delivery) -> None:
    """The card number of the order stands on the chip, read as a terminal reads it; a temporary
    card has no bank's side."""
    orders, chips = orders_of(made), chips_of(made)
    faulty = {f["card"] for f in made.faults}
    sound = {made.cards[o]: row for o, row in orders.items() if o in made.cards}
    for card in [c for c in sound if c not in faulty][:60]:
        chip = VirtualCard(
            load_profile("ssc-3des"), memory_from(chips[card]), b"\x3b", lambda change: None
        )
        chip.power_on()
        assert chip.process(bytes.fromhex("00A4040008A000000333010101"))[-2:] == b"\x90\x00"
        record = chip.process(bytes.fromhex("00B2011400"))
        assert sound[card]["bank_card_number"] in record.hex()
    temporary = [c for c in chips.values() if not c["face_number"]]
    assert temporary
    assert not any("financial" in c for c in temporary)


def test_cards_are_shuffled_within_whole_cartons(tmp_path: Path) -> None:
    """A carton lies in one tray, its cards side by side and not in the order of the return; with
    several trays the cards are dealt out about evenly."""
    delivery = make_delivery(5, 1500, tmp_path, PEM, trays=2)
    tray_of: dict[str, Path] = {}
    sizes = []
    for tray in delivery.trays:
        _, *cards = files.read_lines(tray)
        sizes.append(len(cards))
        changes = [c["carton_id"] for c, n in pairwise(cards) if c["carton_id"] != n["carton_id"]]
        assert len(changes) == len(set(changes))
        for card in cards:
            assert tray_of.setdefault(card["carton_id"], tray) == tray
    assert abs(sizes[0] - sizes[1]) <= 250
    order_of = {card: order_id for order_id, card in delivery.cards.items()}
    in_tray_order = [order_of[c] for c in chips_of(delivery) if c in order_of]
    assert in_tray_order != sorted(in_tray_order)


def test_people_are_unique_and_varied() -> None:
    """20,000 persons: no number twice, and among the names rare characters, middle dots, and a
    few that do not fit 30 bytes."""
    people = People(Random("people"))
    homes = list(load_divisions())
    crowd = [people.person(homes[n % len(homes)]) for n in range(20_000)]
    assert len({p.identity_number for p in crowd}) == len(crowd)
    assert all(is_identity_number(p.identity_number) and is_name(p.name) for p in crowd)
    sizes = [len(p.name.encode("gb18030")) for p in crowd]
    assert 5 <= sum(size > 30 for size in sizes) <= 200
    assert sum(any(ord(c) > 0xFFFF for c in p.name) for p in crowd) > 50
    assert sum("·" in p.name for p in crowd) > 50


def test_a_weak_series_is_half_of_one_bank_s_sound_chips(tmp_path: Path) -> None:
    """In the delivery whose seed says so, and in no other: truth names each, and no sample of that
    bank's lot can miss them."""
    made = make_delivery(2, 120, tmp_path / "two", PEM)
    weak = {f["card"]: f for f in made.planted(Fault.WEAK_CHIP)}
    chips = chips_of(made)
    assert {card for card, chip in chips.items() if chip.get("weak")} == weak.keys()
    orders = orders_of(made)
    (bank,) = {orders[f["order_id"]]["bank_code"] for f in weak.values()}
    wrong = {f["order_id"] for f in made.faults} - {f["order_id"] for f in weak.values()}
    sound = [i for i, o in orders.items() if o["bank_code"] == bank and i not in wrong]
    assert len(weak) == math.ceil(len(sound) / 2)
    other = make_delivery(3, 120, tmp_path / "three", PEM)
    assert other.planted(Fault.WEAK_CHIP) == []


def test_small_delivery_is_sound(tmp_path: Path) -> None:
    """Below 60 cards nothing is planted; one card is a delivery; none is not."""
    one = make_delivery(1, 1, tmp_path / "one", PEM)
    assert one.faults == ()
    assert len(chips_of(one)) == 2
    with pytest.raises(ValueError):
        make_delivery(1, 0, tmp_path / "none", PEM)


def test_command_line(tmp_path: Path) -> None:
    """The command makes what the function makes."""
    key = tmp_path / "transport.pem"
    key.write_bytes(PEM)
    out = tmp_path / "home"
    factory.main(["--out", str(out), "--seed", "3", "--cards", "60", "--transport-key", str(key)])
    make_delivery(3, 60, tmp_path / "other", PEM)
    assert tree(out) == tree(tmp_path / "other")
