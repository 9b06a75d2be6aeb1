"""A whole floor in one process: the real lines, a real ledger, a real token, virtual chips.

What is left out is what lies between them: Ray, gRPC and PC/SC. `Station` runs a chip's sessions
as an agent does, one segment at a time, and can stop dead at any APDU.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from actors.hsm.leases import LeaseTerms
from actors.hsm.pkcs11_provider import Pkcs11Provider
from actors.hsm.replacement import KeyReplacement
from actors.inventory import Inventory
from actors.lots import LotPlan
from actors.qa.inspection import Inspection
from actors.qa.sample_reading import SampleReading
from actors.sorting import Sorting
from centre.wiring import now
from counterparts.factory import Delivery, make_delivery
from domain.card.profile import Profile, load_profile
from domain.card.segment import Answers, Segment, StepAnswer
from domain.changes import Changes, Committed
from domain.factory_return import INDEXED, FactoryRecord, RecordChecker, index_text, plaintext
from domain.lines import FactoryReturn, KeyProvider, Note, NoteCarton, SealedRecord, SignFor
from domain.places import Line
from domain.provider import Answer, Request
from domain.turns import NoAnswer, Opening, Restart, StationTurn, Verdict, Wait
from ledger.chip_records import LedgerChipRecords
from ledger.commit import Ledger
from ledger.queries import Queries
from proof.scanning import scan_packages
from station_agents.virtual.card import VirtualCard
from station_agents.virtual.memory import Change
from station_agents.virtual.social_memory import KeyWritten
from station_agents.virtual.tray_file import Plastic, read_tray
from tests.conformance.card_side import take_temporary_keys
from tests.hsm.place import DES3, WRAPPED, bring_formal_keys, make_home

PROFILE = "ssc-3des"
LEASE = timedelta(minutes=10)


class Door:
    """`LedgerDoor` straight into a ledger of this process."""

    def __init__(self, ledger: Ledger, line: str) -> None:
        self._ledger = ledger
        self._epoch = ledger.open_epoch(line)

    async def commit(self, changes: Changes) -> Committed:
        return self._ledger.commit(changes, self._epoch)

    async def reclaim(self) -> bool:
        return self._ledger.reclaim()


class Nearby:
    """`KeyProvider` straight into a provider of this process."""

    def __init__(self, provider: Pkcs11Provider) -> None:
        self._provider = provider
        self.requests: list[Request] = []

    async def perform(self, requests: Sequence[Request]) -> list[Answer]:
        self.requests.extend(requests)
        return self._provider.perform(requests)

    async def seal(self, batch_id: str, records: Sequence[tuple[str, bytes]]) -> list[bytes]:
        return self._provider.seal(batch_id, records)

    async def unseal(self, batch_id: str, records: Sequence[tuple[str, bytes]]) -> list[bytes]:
        return self._provider.unseal(batch_id, records)

    async def index(self, values: Sequence[str]) -> list[str]:
        return self._provider.index(values)

    async def sign(self, digests: Sequence[bytes]) -> list[bytes]:
        return self._provider.sign(digests)


class PowerCut(Exception):
    """The station was told to stop dead here."""


@dataclass
class SmallFloor:
    """Everything of one centre. `restart_lines` is what a killed actor does: a new epoch, and
    nothing remembered but the ledger."""

    place: Path
    ledger: Ledger
    queries: Queries
    provider: Pkcs11Provider
    keys: Nearby
    lots: LotPlan | None = None
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    profile: Profile = field(default_factory=lambda: load_profile(PROFILE))
    inventory: Inventory = field(init=False)
    replacement: KeyReplacement = field(init=False)
    inspection: Inspection = field(init=False)
    sampling: SampleReading = field(init=False)
    sorting: Sorting = field(init=False)

    @classmethod
    def make(
        cls,
        place: Path,
        lots: LotPlan | None = None,
        profile_id: str = PROFILE,
        formal: Mapping[str, bytes] | None = None,
    ) -> SmallFloor:
        """`formal`: the province's masters by usage; without them nobody knows them."""
        profile = load_profile(profile_id)
        place.mkdir(parents=True, exist_ok=True)
        home = make_home(place, DES3 if profile.suite == "3des" else WRAPPED)
        bring_formal_keys(home, formal)
        (place / "transport.pem").write_bytes(home.transport_public_key)
        ledger = Ledger(place / "ledger.db", now)
        queries = Queries(place / "ledger.db")
        provider = Pkcs11Provider(
            home.config, profile, LedgerChipRecords(place / "ledger.db"), home.masters
        )
        floor = cls(place, ledger, queries, provider, Nearby(provider), lots, profile=profile)
        floor.restart_lines()
        return floor

    def restart_lines(self) -> None:
        stamp = secrets.token_hex(4)
        self.inventory = Inventory(Door(self.ledger, Line.INVENTORY), self.queries)
        common = (self.keys, self.queries, self.profile)
        self.replacement = KeyReplacement(
            Door(self.ledger, Line.KEY_REPLACEMENT),
            *common,
            f"k{stamp}",
            secrets.token_bytes,
            LeaseTerms(lambda: self.clock(), LEASE),
        )
        self.inspection = Inspection(
            Door(self.ledger, Line.INSPECTION), *common, f"i{stamp}", secrets.token_bytes
        )
        self.sampling = SampleReading(
            Door(self.ledger, Line.SAMPLING), *common, f"q{stamp}", secrets.token_bytes
        )
        self.sorting = Sorting(
            Door(self.ledger, Line.SORTING), self.queries, f"s{stamp}", self.lots
        )

    async def scan_packages(self) -> int:
        """A person scans every open package; how many."""
        return await scan_packages(self.sorting, self.queries)

    async def sort(self) -> bool:
        """Sorting and the people at its tables do what they can; whether there was anything."""
        worked = False
        while await self.sorting.step() or await self.scan_packages():
            worked = True
        return worked

    def close(self) -> None:
        self.provider.close()
        self.queries.close()
        self.ledger.close()

    def deliver(self, seed: int, cards: int) -> Delivery:
        """A delivery of the factory stand-in, taken and signed for."""
        pem = (self.place / "transport.pem").read_bytes()
        delivery = make_delivery(seed, cards, self.place / f"delivery-{seed}", pem)
        asyncio.run(self.take(delivery))
        return delivery

    async def take(self, delivery: Delivery, *, keys: bool = True) -> None:
        if keys:
            take_temporary_keys(self.provider, delivery.key_block.read_bytes())
        await self.inventory.accept_return(await self.sealed_return(delivery))
        await self.inventory.accept_note(note_of(delivery))
        await self.inventory.sign_for(count(delivery))

    async def sealed_return(self, delivery: Delivery) -> FactoryReturn:
        return await seal_return(delivery, self.keys)

    def chips(self, delivery: Delivery) -> list[Chip]:
        return [
            Chip(plastic, self.profile)
            for t in delivery.trays
            for plastic in read_tray(t)[0].cards.values()
        ]


async def seal_return(delivery: Delivery, keys: KeyProvider) -> FactoryReturn:
    """What the gateway makes of a delivery's factory return."""
    return await seal_records(records_of(delivery), delivery.file_id, delivery.batch_id, keys)


def records_of(delivery: Delivery) -> list[FactoryRecord]:
    lines = delivery.factory_return.read_text(encoding="utf-8").splitlines()
    return [FactoryRecord(**json.loads(line)) for line in lines]


async def seal_records(
    records: Sequence[FactoryRecord],
    file_id: str,
    batch_id: str,
    keys: KeyProvider,
    corrects: str = "",
) -> FactoryReturn:
    checker = RecordChecker(load_profile(PROFILE))
    taken, refused = [], []
    for number, record in enumerate(records, start=1):
        refusal = checker.check(number, record)
        if refusal is None:
            taken.append((number, record))
        else:
            refused.append(refusal)
    sealed = await keys.seal(batch_id, [(r.order_id, plaintext(r)) for _, r in taken])
    texts = [index_text(kind, getattr(r, kind)) for _, r in taken for kind in INDEXED]
    values = iter(await keys.index(texts))
    accepted = tuple(
        SealedRecord(
            number,
            r.order_id,
            r.bank_code,
            r.branch_code,
            r.carton_id,
            r.identification_code,
            r.has_temporary_card,
            blob,
            tuple((kind, next(values)) for kind in INDEXED),
        )
        for (number, r), blob in zip(taken, sealed, strict=True)
    )
    return FactoryReturn(file_id, batch_id, "d1", accepted, tuple(refused), "2099-01-01", corrects)


def note_of(delivery: Delivery) -> Note:
    note = json.loads(delivery.delivery_note.read_text(encoding="utf-8"))
    cartons = tuple(
        NoteCarton(
            c["carton_id"],
            c["bank_code"],
            c["kind"],
            c["count"],
            f"window-{c['destination']}" if c.get("destination") else "",
        )
        for c in note["cartons"]
    )
    return Note(delivery.delivery_id, delivery.batch_id, note["factory_id"], "d2", cartons)


def count(delivery: Delivery) -> SignFor:
    """The counting machine's result."""
    counts = {c.carton_id: 0 for c in note_of(delivery).cartons}
    for tray in delivery.trays:
        for plastic in read_tray(tray)[0].cards.values():
            counts[plastic.carton_id] += 1
    return SignFor(delivery.delivery_id, counts)


class Chip:
    """A virtual card whose changes of memory are counted and can be cut."""

    def __init__(self, plastic: Plastic, profile: Profile | None = None) -> None:
        self.plastic = plastic
        self.stack = ""
        self.writes = 0
        self.written: Counter[int] = Counter()
        """How often each key was written, by its id."""
        self.card = VirtualCard(
            profile or load_profile(PROFILE),
            plastic.memory,
            plastic.atr,
            self._persist,
            silent=plastic.silent,
        )

    def _persist(self, change: Change) -> None:
        self.writes += 1
        if isinstance(change, KeyWritten):
            self.written[change.key_id] += 1


@dataclass
class Station:
    """Runs one chip through its sessions. `cut_at`: the number of the APDU (1, 2, ...) at which
    power goes, before it or, with `after`, after the chip has executed it. `reset_at`: the APDU
    before which the chip loses its power unseen and gets it back at once."""

    floor: SmallFloor
    cut_at: int = 0
    after: bool = False
    reset_at: int = 0
    apdus: int = 0
    turns: int = 0
    first: str = Line.KEY_REPLACEMENT
    """The stage at which a chip is opened."""

    async def run(self, chip: Chip) -> Verdict:
        """Until a verdict that ejects. Raises PowerCut."""
        stage = self.first
        while True:
            verdict = await self.present(chip, stage)
            if verdict is None:
                stage = self.first
            elif verdict.next_stage:
                stage = verdict.next_stage
            else:
                chip.stack = verdict.stack
                return verdict

    def line(self, stage: str) -> Any:
        return {
            Line.KEY_REPLACEMENT: self.floor.replacement,
            Line.INSPECTION: self.floor.inspection,
            Line.SAMPLING: self.floor.sampling,
        }[Line(stage)]

    async def present(self, chip: Chip, stage: str) -> Verdict | None:
        """One presentation; None if the centre asks to begin anew."""
        line = self.line(stage)
        plastic, number = chip.plastic, 0
        presentation = secrets.token_hex(8)
        atr = chip.card.power_on()
        content: Any = (
            Opening(atr, plastic.carton_id, plastic.face_number, plastic.card_id)
            if atr
            else NoAnswer(plastic.carton_id, plastic.face_number, plastic.card_id)
        )
        while True:
            self.turns += 1
            turn = StationTurn("station-1", "R0", presentation, number, stage, content)
            reply = (await line.turns([turn]))[0].content
            if isinstance(reply, Verdict):
                return reply
            if isinstance(reply, Restart):
                return None
            if isinstance(reply, Wait):
                await self.wait(reply)
                continue
            content = self.execute(chip, reply)
            number += 1

    async def wait(self, told: Wait) -> None:
        """On a floor where nothing fails no chip has to wait."""
        raise AssertionError(f"the line waits: {told.code}")

    def execute(self, chip: Chip, segment: Segment) -> Answers:
        done: list[StepAnswer] = []
        for step in segment.steps:
            self.apdus += 1
            if self.apdus == self.cut_at and not self.after:
                raise PowerCut
            if self.apdus == self.reset_at:
                chip.card.power_on()
            answer = chip.card.process(step.apdu)
            if self.apdus == self.cut_at:
                raise PowerCut
            done.append(StepAnswer(int.from_bytes(answer[-2:], "big"), answer[:-2]))
            if Answers(tuple(done)).failed_step(segment):
                break
        return Answers(tuple(done))
