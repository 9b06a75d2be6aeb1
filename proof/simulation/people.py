"""Counterparts and people of a simulated floor. Each asks until it is answered, as the real ones
do, and now and then asks once more; and each makes the mistakes that people make.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random

from counterparts.factory import Delivery, make_delivery
from domain.changes import Away, Refused
from domain.factory_return import FactoryRecord
from domain.lines import ClosePackage, Note, NoteCarton, OrderAct, OrdersCommand, Receipt, SignFor
from domain.places import DRAWN, VAULT, Line, transit, work
from gateways.factory_returns import FramedReturn, take_return
from gateways.floor import Floor
from gateways.return_file import read_file
from ledger.queries import Queries
from proof.simulation.faults import Faults
from proof.simulation.plastic import Card, Feeder, Truth
from proof.simulation.promises import Promises
from station_agents.virtual.tray_file import read_tray

LOOK_SECONDS = 120.0
"""Between two rounds of the people who feed again and pack."""


@dataclass
class Floors:
    """What people have before them: the door (`floor`), their eyes into the ledger, the feeders
    of the stations and the cards."""

    floor: Floor
    queries: Queries
    feeders: list[Feeder]
    sampling: Feeder
    promises: Promises
    faults: Faults
    cartons: list[str] = field(default_factory=list)

    @property
    def random(self) -> Random:
        return self.faults.random

    async def persist(
        self, line: str, command_id: str, ask: Callable[[], Awaitable[Receipt]]
    ) -> Receipt:
        """Ask until there is an answer, and sometimes again after that: it must be the same."""
        receipt = await self.until_answered(ask)
        self.promises.acknowledged(line, command_id, receipt)
        said = f"{receipt.code}, {receipt.taken} of {receipt.records}"
        self.faults.trace.note("people", f"{command_id}: {said}")
        if receipt.accepted and self.faults.chance(0.1):
            again = await self.until_answered(ask)
            if _wire(again) != _wire(receipt):
                self.promises.broken(4, f"{command_id} is answered otherwise when it comes again")
        return receipt

    async def until_answered(self, ask: Callable[[], Awaitable[Receipt]]) -> Receipt:
        pause = 0.2
        while True:
            try:
                return await ask()
            except (Away, Refused):
                await asyncio.sleep(pause)
                pause = min(2 * pause, 10.0)


def _wire(receipt: Receipt) -> list[object]:
    """What of a receipt goes over the wire, but for `repeated`."""
    refused = [(r.record_number, r.order_id, r.field, r.code, r.reason) for r in receipt.refused]
    return [receipt.accepted, receipt.records, receipt.taken, refused]


class DeliveryOfDay:
    """One delivery, from the factory return to the cards in the hoppers, and what card management
    decides about its orders meanwhile."""

    def __init__(self, floors: Floors, delivery: Delivery, cards: list[Card]) -> None:
        self._on, self._delivery, self._cards = floors, delivery, cards

    async def run(self) -> None:
        comes = [self._send_return, self._send_note]
        self._on.random.shuffle(comes)
        for coming in comes:
            await coming()
            await asyncio.sleep(self._on.random.uniform(0, 300))
        truly = {c.carton_id: 0 for c in self._note().cartons}
        for card in self._cards:
            truly[card.plastic.carton_id] += 1
        self._on.cartons.extend(truly)
        counted = self._count(truly)
        sign = SignFor(self._delivery.delivery_id, counted)
        await self._on.persist(
            Line.INVENTORY,
            f"sign:{sign.delivery_id}",
            partial(self._on.floor.inventory.sign_for, sign),
        )
        for card in self._cards:
            self._on.random.choice(self._on.feeders).feed(card)
        await asyncio.gather(
            *(self._recount(c, n, counted[c] != n) for c, n in truly.items()),
            self._decide("stops.json", 30, 600),
            self._decide("releases.json", 900, 2400),
            self._correct(),
        )
        await self._settle()

    async def _settle(self) -> None:
        """All cards were fed, and bodies are left that nobody saw: their cartons were counted, or
        scanned, wrongly. What was seen of a carton is what it has."""
        while any(card.lies.startswith("station") for card in self._cards):  # noqa: ASYNC110
            await asyncio.sleep(LOOK_SECONDS)
        for r in self._on.queries.rows(
            "select carton_id, count(*) as bodies,"
            " sum(case when place in (?, ?, ?) and identification_code = '' and ticket = ''"
            "  then 1 else 0 end) as unseen"
            " from body where batch_id = ? and place not like 'factory/%'"
            " group by carton_id order by carton_id",
            VAULT, transit(Line.INVENTORY, Line.KEY_REPLACEMENT), work(Line.KEY_REPLACEMENT),
            self._delivery.batch_id,
        ):  # fmt: skip
            if r["unseen"]:
                await self._count_again(r["carton_id"], r["bodies"] - r["unseen"])

    def _note(self) -> Note:
        note = json.loads(self._delivery.delivery_note.read_text("utf-8"))
        cartons = tuple(
            NoteCarton(
                c["carton_id"], c["bank_code"], c["kind"], c["count"],
                f"window-{c['destination']}" if c.get("destination") else "",
            )
            for c in note["cartons"]
        )  # fmt: skip
        return Note(
            self._delivery.delivery_id, self._delivery.batch_id, note["factory_id"], "note", cartons
        )

    async def _send_note(self) -> None:
        note = self._note()
        await self._on.persist(
            Line.INVENTORY, f"note:{note.delivery_id}",
            lambda: self._on.floor.inventory.accept_note(note),
        )  # fmt: skip

    async def _send_return(self) -> None:
        lines = self._delivery.factory_return.read_text("utf-8").splitlines()
        records = [FactoryRecord(**json.loads(line)) for line in lines]
        file = FramedReturn(self._delivery.file_id, self._delivery.batch_id, "return", records)
        await self._on.persist(
            Line.INVENTORY, f"return:{file.file_id}", lambda: take_return(self._on.floor, file)
        )

    async def _correct(self) -> None:
        await asyncio.sleep(self._on.random.uniform(60, 1800))
        data = (self._delivery.sent / "correction.txt").read_bytes()
        file = read_file(data, 1_000)
        await self._on.persist(
            Line.INVENTORY, f"return:{file.file_id}", lambda: take_return(self._on.floor, file)
        )

    def _count(self, truly: dict[str, int]) -> dict[str, int]:
        """The blind count: sometimes a card too many or too few, or two cartons mixed up."""
        counted, faults = dict(truly), self._on.faults
        if faults.chance(5 * faults.rates.scan) and len(counted) > 1:
            one, other = self._on.random.sample(sorted(counted), 2)
            counted[one], counted[other] = counted[other], counted[one]
            faults.trace.fault("two cartons mixed up", "operator", f"{one} {other}")
        for carton_id in sorted(counted):
            if faults.chance(5 * faults.rates.scan):
                wrong = max(0, counted[carton_id] + self._on.random.choice((-2, -1, 1, 2)))
                faults.trace.fault("miscounted", "operator", carton_id)
                counted[carton_id] = wrong
        return counted

    async def _recount(self, carton_id: str, count: int, wrong: bool) -> None:
        """Whoever doubts a count counts again while the carton is in work."""
        if not wrong and not self._on.faults.chance(0.2):
            return
        await asyncio.sleep(self._on.random.uniform(1, 300))
        await self._count_again(carton_id, count)

    async def _count_again(self, carton_id: str, count: int) -> None:
        receipt = await self._on.until_answered(
            lambda: self._on.floor.inventory.recount(carton_id, count)
        )
        self._on.faults.trace.note("people", f"recount of {carton_id}: {receipt.code}")

    async def _decide(self, name: str, earliest: float, latest: float) -> None:
        """Card management stops or releases orders."""
        await asyncio.sleep(self._on.random.uniform(earliest, latest))
        for said in json.loads((self._delivery.sent / name).read_text("utf-8")):
            command = OrdersCommand(
                said["command_id"], OrderAct(said["act"]), tuple(said["order_ids"])
            )
            await self._on.persist(
                Line.SORTING, f"orders:{command.command_id}",
                partial(self._on.floor.sorting.command_orders, command),
            )  # fmt: skip


def load_delivery(
    seed: int, cards: int, place: Path, transport_key: bytes, make_card: Callable[..., Card]
) -> tuple[Delivery, list[Card]]:
    """A delivery of the factory stand-in with its plastic, in the order of its trays."""
    delivery = make_delivery(seed, cards, place, transport_key)
    records = [json.loads(r) for r in delivery.factory_return.read_text("utf-8").splitlines()]
    by_face = {r["social_card_number"]: r["order_id"] for r in records}
    note = json.loads(delivery.delivery_note.read_text("utf-8"))
    bank_of = {c["carton_id"]: c["bank_code"] for c in note["cartons"]}
    # The record of a bank that is not registered is sent again, with the bank of its carton.
    branch_of = {r["order_id"]: bank_of[r["carton_id"]] + r["branch_code"][3:] for r in records}
    fault_of = {f["card"]: f["fault"] for f in delivery.faults if f["card"]}
    order_of = {card: order for order, card in delivery.cards.items()}
    found = []
    for plastic in (p for tray in delivery.trays for p in read_tray(tray)[0].cards.values()):
        order_id = order_of.get(plastic.card_id, "")
        found.append(
            make_card(
                f"{delivery.batch_id}/{plastic.card_id}",
                plastic,
                Truth(
                    order_id,
                    by_face.get(plastic.face_number, ""),
                    branch_of.get(order_id, ""),
                    fault_of.get(plastic.card_id, ""),
                ),
            )
        )
    return delivery, found


class Table:
    """Whoever stands at the stacks: feeds again what the centre wants to see again, and packs."""

    def __init__(self, on: Floors) -> None:
        self._on = on

    async def run(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self._feed_again()
            await self._pack()

    def _feed_again(self) -> None:
        """Samples that were drawn, and cards on a stack that are in work again (corrected,
        recounted, or set apart by a session whose answer was lost)."""
        wanted = {
            r["identification_code"]: r["place"]
            for r in self._on.queries.rows(
                "select identification_code, place from body where identification_code <> ''"
                " and (place in (?, ?, ?) or condition = 'IN_DOUBT')",
                DRAWN, work(Line.KEY_REPLACEMENT), transit(Line.KEY_REPLACEMENT, Line.INSPECTION),
            )
        }  # fmt: skip
        for code in sorted(wanted):
            card = self._on.promises.cards.get(code)
            if card is None or card.lies not in ("good", "held", "rejected"):
                continue
            drawn = wanted[code] == DRAWN
            feeder = self._on.sampling if drawn else self._on.random.choice(self._on.feeders)
            self._on.faults.trace.note("people", f"fed again at {feeder.name}", card.ticket, code)
            feeder.feed(card)

    async def _pack(self) -> None:
        for package in self._on.queries.packages("p.state = 'open'"):
            bodies = self._on.queries.bodies("b.package_id = ?", package["package_id"])
            await self._scan(package["package_id"], [b.order_id for b in bodies])

    async def _scan(self, package_id: str, listed: list[str]) -> None:
        """Find the cards of a list on the good stack by their faces, and scan them."""
        by_face: dict[str, Card] = {}
        for card in self._on.promises.tickets.values():
            if card.lies == "good" and card.truth.face_order:
                by_face.setdefault(card.truth.face_order, card)
        found = [by_face[o] for o in listed if o and o in by_face]
        faults = self._on.faults
        if found and faults.chance(5 * faults.rates.scan):
            faults.trace.fault("packed wrongly", "packer", package_id)
            if faults.chance(0.5):
                found.pop()
            else:
                others = [c for o, c in by_face.items() if o not in listed]
                found[-1] = faults.random.choice(others) if others else found[0]
        orders = tuple(c.truth.face_order for c in found)
        command = ClosePackage(package_id, orders, sum(not o for o in listed))
        self._on.promises.packed[package_id].append({c.ticket for c in found})
        receipt = await self._on.persist(
            Line.SORTING, f"close:{package_id}",
            lambda: self._on.floor.sorting.close_package(command),
        )  # fmt: skip
        if receipt.accepted:
            for card in found:
                card.lies = package_id
