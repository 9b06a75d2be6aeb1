"""The card factory: makes a delivery, from a seed, and hands in its delivery note.

    python -m counterparts.factory --out DIR --seed 7 --cards 3000 --transport-key PEM

DIR/sent holds what the counterparts send (factory return, delivery note, sealed keys) and, for
tests only, `truth.json`; DIR/trays holds the plastic. There is a `sent` only once all is there.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from threading import Event
from typing import Any

import structlog

from counterparts import files
from counterparts.chips import (
    Chip,
    key_block,
    make_masters,
    social_card,
    temporary_card,
    tray_line,
    with_temporary_keys,
)
from counterparts.faults import (
    BESIDE,
    FEWEST_CARDS,
    RECORD_FAULTS,
    RELEASES,
    SEEDS_WITH_A_WEAK_SERIES,
    STOPS,
    Fault,
    Planted,
    Spoiler,
    choose,
    silence_one,
    spoil_record,
    weaken_series,
)
from counterparts.orders import Plan, plan_batch
from counterparts.people import People
from counterparts.return_file import CORRECTION, file_bytes, record_line
from counterparts.submission import persist, submit_delivery_note
from domain.card.profile import load_profile
from stubs.common_pb2 import Receipt

_log = structlog.get_logger("counterparts.factory")

FACTORY_ID = "F01"
PROFILE = "ssc-3des"
FEWEST_FOR_SILENT_TEMPORARY = 1_000
HALF_CARDS = 5
ONLY_CARDS, ONLY_RETURN = "only-cards", "only-return"
"""Directories of the deliveries of which one half never comes."""
_STAGING = ".delivery.partial"


class DeliveryDiffers(Exception):
    """The directory holds another delivery: of another seed, size, profile or transport key."""


@dataclass(frozen=True)
class Delivery:
    """A finished delivery. `cards`: card id in a tray by order id (an order without a card, or
    with another's, is not there); `faults`: what was planted, each with `fault`, `order_id`,
    `carton_id`, `identification_code` and `other_order_id` as in `Planted`, and `card`, the id
    of the chip that lies there (empty: none)."""

    out_dir: Path
    batch_id: str
    delivery_id: str
    file_id: str
    trays: tuple[Path, ...]
    cards: dict[str, str]
    faults: tuple[dict[str, str], ...]

    @property
    def sent(self) -> Path:
        return self.out_dir / "sent"

    @property
    def factory_return(self) -> Path:
        return self.sent / "factory_return.jsonl"

    @property
    def delivery_note(self) -> Path:
        return self.sent / "delivery_note.json"

    @property
    def key_block(self) -> Path:
        return self.sent / "temporary_keys.json"

    def planted(self, fault: Fault) -> list[dict[str, str]]:
        return [f for f in self.faults if f["fault"] == fault]


def make_delivery(
    seed: int,
    cards: int,
    out_dir: Path,
    transport_public_key_pem: bytes,
    *,
    trays: int = 1,
    profile: str = PROFILE,
) -> Delivery:
    """Make a delivery of `cards` ordered cards and 2 % temporary ones, or find it made: the same
    arguments give the same bytes, and a repeat does nothing. Killed at any moment, it leaves no
    `sent`, and the next call begins anew. Raises DeliveryDiffers if the directory holds another
    delivery, ValueError for arguments that make none."""
    if cards < 1 or trays < 1:
        raise ValueError("a delivery has at least one card and one tray")
    made_from = {
        "seed": seed,
        "cards": cards,
        "trays": trays,
        "profile": profile,
        "transport_key": hashlib.sha256(transport_public_key_pem).hexdigest(),
    }
    marker = out_dir / "sent" / ".complete"
    if marker.exists():
        if json.loads(marker.read_text(encoding="utf-8"))["made_from"] != made_from:
            raise DeliveryDiffers(
                f"{out_dir} holds a delivery of another seed, size, profile or key"
            )
        return load_delivery(out_dir)
    staging = out_dir / _STAGING
    shutil.rmtree(staging, ignore_errors=True)
    (staging / "sent").mkdir(parents=True)
    (staging / "trays").mkdir()
    _Factory(seed, cards, staging, profile).make(made_from, transport_public_key_pem, trays)
    _put_in_place(staging, out_dir)
    return load_delivery(out_dir)


def load_delivery(out_dir: Path) -> Delivery:
    """A finished delivery as it lies on disk. FileNotFoundError if it is not finished."""
    made = json.loads((out_dir / "sent" / ".complete").read_text(encoding="utf-8"))
    truth = json.loads((out_dir / "sent" / "truth.json").read_text(encoding="utf-8"))
    return Delivery(
        out_dir,
        made["batch_id"],
        made["delivery_id"],
        made["file_id"],
        tuple(out_dir / "trays" / name for name in made["trays"]),
        truth["cards"],
        tuple(truth["faults"]),
    )


def _put_in_place(staging: Path, out_dir: Path) -> None:
    """Trays first: where there is a `sent`, everything is there."""
    trays, sent = out_dir / "trays", out_dir / "sent"
    if trays.exists():
        # Left by a call that was killed before `sent` came; nobody can have used them.
        for leftover in trays.glob("tray-*.jsonl"):
            leftover.unlink()
    (staging / "trays").rename(trays)
    (staging / "sent").rename(sent)
    staging.rmdir()
    files.sync_directory(out_dir)


class _Factory:
    """One delivery in the making. Each purpose draws from a random stream of its own, so that a
    change in one leaves the others as they were."""

    def __init__(self, seed: int, cards: int, staging: Path, profile: str) -> None:
        self._seed = seed
        self._cards = cards
        self._sent = staging / "sent"
        self._trays = staging / "trays"
        self._profile = load_profile(profile)
        self._people = People(self._random("people"))

    def _random(self, purpose: str) -> Random:
        return Random(f"{purpose}/{self._seed}/{self._cards}")

    def make(self, made_from: dict[str, Any], transport_key: bytes, trays: int) -> None:
        batch_id, delivery_id = f"B{self._seed:06d}", f"D{self._seed:06d}"
        plan = plan_batch(batch_id, self._cards, self._people, self._random("plan"))
        planted = choose(plan.orders, self._random("faults"))
        correction = _correction(plan, planted)
        plan = _with_record_faults(plan, planted)
        random = self._random("keys")
        masters = make_masters(self._profile, random)
        made, later_faults = self._chips(plan, planted)
        chips = with_temporary_keys(self._profile, masters, [chip for chip, _ in made])
        faults_of = [fault for _, fault in made]
        tray_names, ids = self._write_trays(chips, plan, trays)
        block = key_block(self._profile, masters, FACTORY_ID, batch_id, transport_key, random)
        twice = {p.order_id for p in planted if p.fault is Fault.RECORD_TWICE}
        records = [*plan.orders, *(o for o in plan.orders if o.order_id in twice)]
        files.write_lines(
            self._sent / "factory_return.jsonl", (files.order_row(o) for o in records)
        )
        note = files.note_row(delivery_id, batch_id, FACTORY_ID, plan.cartons)
        files.write_whole(self._sent / "delivery_note.json", files.to_json(note) + "\n")
        files.write_whole(self._sent / "temporary_keys.json", files.to_json(block) + "\n")
        files.write_whole(self._sent / "temporary_keys.letter", files.key_letter(block))
        for name, acts in (("stops.json", STOPS), ("releases.json", RELEASES)):
            commands = files.to_json(_commands(planted, acts)) + "\n"
            files.write_whole(self._sent / name, commands)
        truth = _truth(self._seed, planted + later_faults, chips, faults_of, ids)
        files.write_whole(self._sent / "truth.json", files.to_json(truth) + "\n")
        (self._sent / CORRECTION).write_bytes(correction)
        complete = {
            "made_from": made_from,
            "batch_id": batch_id,
            "delivery_id": delivery_id,
            "file_id": return_id(batch_id),
            "corrects": sum(p.fault is Fault.SENT_AGAIN for p in planted),
            "trays": tray_names,
            "damaged_cartons": [p.carton_id for p in planted if p.fault is Fault.CARTON_DAMAGED],
        }
        files.write_whole(self._sent / ".complete", files.to_json(complete) + "\n")

    def _chips(
        self, plan: Plan, planted: Sequence[Planted]
    ) -> tuple[list[tuple[Chip, Planted | None]], list[Planted]]:
        """The chips that lie in the cartons, each with the fault that it shows; and the faults of
        weak chips and of a temporary card, if there are any."""
        orders = {o.order_id: o for o in plan.orders}
        by_order = {p.order_id: p for p in planted}
        random = self._random("chips")
        spoiler = Spoiler(self._profile, self._people, random)
        made: list[tuple[Chip, Planted | None]] = []
        for order in plan.orders:
            chip: Chip | None = social_card(self._profile, order)
            fault = by_order.get(order.order_id)
            if fault is not None and chip is not None:
                chip = spoiler.spoil(chip, fault, order, orders.get(fault.other_order_id))
            if fault is not None and fault.fault is Fault.SURPLUS_CARD:
                made.append((spoiler.stranger(order), fault))
            if fault is not None and fault.fault in BESIDE:
                fault = None
            if chip is not None:
                made.append((chip, fault))
        later: list[Planted] = []
        if self._seed in SEEDS_WITH_A_WEAK_SERIES and self._cards >= FEWEST_CARDS:
            later += weaken_series(made, plan.orders, self._random("weak"))
        blanks = [temporary_card(self._profile, c.carton_id, code) for c, code in plan.temporary]
        silent: list[Planted] = []
        if self._cards >= FEWEST_FOR_SILENT_TEMPORARY:
            silent.append(silence_one(blanks, random))
        made += [(b, silent[0] if b.silent else None) for b in blanks]
        return made, later + silent

    def _write_trays(
        self, chips: Sequence[Chip], plan: Plan, trays: int
    ) -> tuple[list[str], dict[int, str]]:
        """Whole cartons, dealt out to the trays by size, cards shuffled within each. Answers the
        names of the files, and the card id by place in `chips`."""
        random = self._random("trays")
        by_carton: dict[str, list[int]] = {c.carton_id: [] for c in plan.cartons}
        for n, chip in enumerate(chips):
            by_carton[chip.carton_id].append(n)
        loads: list[list[int]] = [[] for _ in range(trays)]
        for carton in sorted(by_carton.values(), key=len, reverse=True):
            random.shuffle(carton)
            min(loads, key=len).extend(carton)
        names, ids = [], {}
        for number, load in enumerate(loads, start=1):
            ids.update({n: f"T{number}-{place:06d}" for place, n in enumerate(load, start=1)})
            head = {"format": "tray/2", "tray_id": f"tray-{number}", "profile": self._profile.id}
            lines = (tray_line(self._profile, ids[n], chips[n]) for n in load)
            files.write_lines(self._trays / f"tray-{number}.jsonl", (head, *lines))
            names.append(f"tray-{number}.jsonl")
        return names, ids


def return_id(batch_id: str) -> str:
    return f"FR-{batch_id}"


def _correction(plan: Plan, planted: Sequence[Planted]) -> bytes:
    """The file with which the records that are sent again follow, as they should have been."""
    again = {p.order_id for p in planted if p.fault is Fault.SENT_AGAIN}
    lines = [
        record_line(files.factory_record(files.order_row(o)))
        for o in plan.orders
        if o.order_id in again
    ]
    file_id = return_id(plan.batch_id)
    return file_bytes(f"{file_id}-C1", plan.batch_id, lines, corrects=file_id)


def _with_record_faults(plan: Plan, planted: Sequence[Planted]) -> Plan:
    orders = {o.order_id: o for o in plan.orders}
    for p in planted:
        if p.fault in RECORD_FAULTS:
            other = orders.get(p.other_order_id)
            orders[p.order_id] = spoil_record(orders[p.order_id], p, other)
    return Plan(plan.batch_id, tuple(orders.values()), plan.temporary, plan.cartons)


def _commands(planted: Sequence[Planted], acts: Mapping[Fault, str]) -> list[dict[str, Any]]:
    """What card management will do with orders, one command for each of `acts`."""
    return [
        {
            "act": act,
            "command_id": f"{act}-{stopped[0].rpartition('-')[0]}",
            "order_ids": stopped,
        }
        for fault, act in acts.items()
        if (stopped := [p.order_id for p in planted if p.fault is fault])
    ]


def _truth(
    seed: int,
    planted: Sequence[Planted],
    chips: Sequence[Chip],
    faults_of: Sequence[Planted | None],
    ids: dict[int, str],
) -> dict[str, Any]:
    card_of = {fault: ids[n] for n, fault in enumerate(faults_of) if fault is not None}
    return {
        "seed": seed,
        "cards": {c.order_id: ids[n] for n, c in enumerate(chips) if c.order_id},
        "faults": [{**asdict(p), "card": card_of.get(p, "")} for p in planted],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m counterparts.factory", description="卡厂 card factory (stand-in)"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--cards", type=int, default=3_000)
    parser.add_argument("--trays", type=int, default=1)
    parser.add_argument(
        "--halves",
        action="store_true",
        help="make two small deliveries beside it, of which only one half will ever come",
    )
    parser.add_argument("--transport-key", type=Path, required=True, metavar="PEM")
    parser.add_argument(
        "--door", metavar="HOST:PORT", help="hand the delivery note in at the centre's door too"
    )
    options = parser.parse_args(arguments)
    delivery = make_delivery(
        options.seed,
        options.cards,
        options.out,
        options.transport_key.read_bytes(),
        trays=options.trays,
    )
    noted = [delivery]
    if options.halves:
        key = options.transport_key.read_bytes()
        only_cards, _ = (
            make_delivery(options.seed + step, HALF_CARDS, options.out / name, key)
            for name, step in ((ONLY_CARDS, 1), (ONLY_RETURN, 2))
        )
        noted.append(only_cards)
    for each in noted:
        ids = {"delivery_id": each.delivery_id, "batch_id": each.batch_id}
        _log.info("delivery_made", **ids)
        if options.door:
            receipt = _hand_in_note(each, options.door)
            _log.info("delivery_note_answered", code=receipt.code, repeated=receipt.repeated, **ids)
            if not receipt.accepted:
                raise SystemExit(1)


def _hand_in_note(delivery: Delivery, door: str) -> Receipt:
    """Submit the delivery note until it is answered, and keep the receipt beside it."""
    receipt = persist(lambda: submit_delivery_note(door, delivery.delivery_note), Event())
    if receipt is None:
        raise RuntimeError("nobody stops this, so there is an answer")
    files.write_whole(
        delivery.sent / "receipt-delivery-note.json",
        files.to_json(files.receipt_row(receipt)) + "\n",
    )
    return receipt


if __name__ == "__main__":
    main()
