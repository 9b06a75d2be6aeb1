"""What stands around the doors in these tests: orders as card management has them, a provider
and lines that only record, a ledger of the test's own, and open doors on a free port."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import grpc

from actors.custody import Custody
from actors.inventory import Inventory
from actors.sorting import Sorting
from counterparts.files import factory_record, order_row
from counterparts.orders import plan_batch
from counterparts.people import People
from domain.card.profile import load_profile
from domain.changes import Changes, Committed
from domain.lines import BackupMade, ChipLine, FactoryReturn, Note, Receipt, SignFor
from domain.provider import Answer, RecordUnsealable, Request
from domain.turns import CentreTurn, StationTurn, Verdict
from gateways.doors import Doors, serve
from gateways.floor import Floor, Limits
from ledger.commit import Ledger
from ledger.queries import Queries
from stubs.card_management_pb2 import FactoryReturnRecord
from tests.lines.custody import KeyShelf, SteppingClock, custody_line

PROFILE = load_profile("ssc-3des")
BATCH = "B1"


def good_records(count: int, seed: int = 1, batch_id: str = BATCH) -> list[FactoryReturnRecord]:
    """Records without fault, of several banks and branches."""
    random = Random(seed)
    plan = plan_batch(batch_id, count, People(random), random)
    return [factory_record(order_row(order)) for order in plan.orders]


class PlainProvider:
    """Seals by writing the batch and order before the text, so that a wrong pair shows."""

    def __init__(self) -> None:
        self.largest_call = 0
        self.calls: list[str] = []
        self.unsealable: set[str] = set()
        self.fault: Exception | None = None

    def _called(self, name: str, size: int) -> None:
        self.calls.append(name)
        self.largest_call = max(self.largest_call, size)
        if self.fault is not None:
            raise self.fault

    async def seal(self, batch_id: str, records: Sequence[tuple[str, bytes]]) -> list[bytes]:
        self._called("seal", sum(len(plain) for _, plain in records))
        return [f"{batch_id}|{order_id}|".encode() + plain for order_id, plain in records]

    async def unseal(self, batch_id: str, records: Sequence[tuple[str, bytes]]) -> list[bytes]:
        self._called("unseal", sum(len(sealed) for _, sealed in records))
        opened = []
        for order_id, sealed in records:
            head = f"{batch_id}|{order_id}|".encode()
            if order_id in self.unsealable or not sealed.startswith(head):
                raise RecordUnsealable(order_id)
            opened.append(sealed.removeprefix(head))
        return opened

    async def index(self, values: Sequence[str]) -> list[str]:
        self._called("index", sum(len(v) for v in values))
        return [index_of(v) for v in values]

    async def perform(self, requests: Sequence[Request]) -> list[Answer]:
        raise NotImplementedError

    async def sign(self, digests: Sequence[bytes]) -> list[bytes]:
        raise NotImplementedError


def index_of(text: str) -> str:
    return hmac.new(b"index key of the test", text.encode(), hashlib.sha256).hexdigest()


class RecordingInventory:
    """Takes everything and keeps it. A return may be kept waiting by `gate`."""

    def __init__(self) -> None:
        self.returns: list[FactoryReturn] = []
        self.notes: list[Note] = []
        self.signed: list[SignFor] = []
        self.recounted: list[tuple[str, int]] = []
        self.backups: list[BackupMade] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.entered = asyncio.Event()
        self.fault: Exception | None = None

    def _check(self) -> None:
        if self.fault is not None:
            raise self.fault

    async def accept_return(self, file: FactoryReturn) -> Receipt:
        self._check()
        self.entered.set()
        await self.gate.wait()
        self.returns.append(file)
        total = len(file.records) + len(file.refused)
        return Receipt(True, records=total, taken=len(file.records), refused=file.refused)

    async def accept_correction(self, file: FactoryReturn) -> Receipt:
        return await self.accept_return(file)

    async def accept_note(self, note: Note) -> Receipt:
        self._check()
        self.notes.append(note)
        return Receipt(True, records=len(note.cartons), taken=len(note.cartons))

    async def sign_for(self, command: SignFor) -> Receipt:
        self._check()
        self.signed.append(command)
        return Receipt(True, records=len(command.counts), taken=len(command.counts))

    async def recount(self, carton_id: str, counted: int) -> Receipt:
        self._check()
        self.recounted.append((carton_id, counted))
        return Receipt(True, records=1, taken=1)

    async def record_backup(self, made: BackupMade) -> Receipt:
        self._check()
        self.backups.append(made)
        return Receipt(True)

    async def remove_backup(self, backup_id: str) -> Receipt:
        self._check()
        return Receipt(True)


def verdict_for(turn: StationTurn) -> CentreTurn:
    return CentreTurn(turn.presentation, turn.number, turn.stage, Verdict("", "good", "OK"))


class RecordingLine:
    """A chip line that may be kept waiting by `gate`, and fails while `fault` is set."""

    def __init__(self) -> None:
        self.calls: list[list[StationTurn]] = []
        self.fault: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.in_flight = 0
        self.most_in_flight = 0
        self.entered = asyncio.Event()

    async def turns(self, turns: Sequence[StationTurn]) -> list[CentreTurn]:
        self.calls.append(list(turns))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        self.entered.set()
        try:
            await self.gate.wait()
            if self.fault is not None:
                raise self.fault
            return [verdict_for(t) for t in turns]
        finally:
            self.in_flight -= 1


class LedgerDoor:
    """A line's way into a ledger of this process."""

    def __init__(self, ledger: Ledger, line: str) -> None:
        self._ledger = ledger
        self._epoch = ledger.open_epoch(line)

    async def commit(self, changes: Changes) -> Committed:
        return self._ledger.commit(changes, self._epoch)

    async def reclaim(self) -> bool:
        return self._ledger.reclaim()


@dataclass
class Place:
    """A ledger in a temporary directory, with its writer, the reader of the parts under test,
    and one for looking from outside."""

    path: Path
    ledger: Ledger
    queries: Queries
    watching: Queries

    @classmethod
    def make(cls, directory: Path) -> Place:
        path = directory / "ledger.db"
        ledger = Ledger(path, lambda: "2026-01-01T00:00:00.000+00:00")
        return cls(path, ledger, Queries(path), Queries(path))

    def inventory(self) -> Inventory:
        """The real line over this ledger."""
        return Inventory(LedgerDoor(self.ledger, "inventory"), self.queries)

    def sorting(self) -> Sorting:
        """The real line over this ledger."""
        return Sorting(LedgerDoor(self.ledger, "sorting"), self.queries, "s1")

    def custody(self) -> Custody:
        """The real line over this ledger, with passwords that cost little."""
        door = LedgerDoor(self.ledger, "custody")
        return custody_line(door, self.queries, KeyShelf(), SteppingClock())

    def close(self) -> None:
        self.queries.close()
        self.watching.close()
        self.ledger.close()


@dataclass
class Hall:
    """Open doors and what stands behind them."""

    place: Place
    address: str = ""
    doors: Doors | None = None
    provider: PlainProvider = field(default_factory=PlainProvider)
    inventory: RecordingInventory = field(default_factory=RecordingInventory)
    chip_lines: dict[str, RecordingLine] = field(default_factory=dict)


@asynccontextmanager
async def open_hall(
    directory: Path,
    *,
    limits: Limits | None = None,
    real_inventory: bool = False,
    stages: Sequence[str] = (),
    listen: str = "127.0.0.1:0",
) -> AsyncIterator[tuple[Hall, grpc.aio.Channel]]:
    """Doors on a free port (or `listen`), and a channel to them."""
    hall = Hall(Place.make(directory), chip_lines={stage: RecordingLine() for stage in stages})
    lines: dict[str, ChipLine] = dict(hall.chip_lines)
    floor = Floor(
        inventory=hall.place.inventory() if real_inventory else hall.inventory,
        sorting=hall.place.sorting(),
        custody=hall.place.custody(),
        provider=hall.provider,
        chip_lines=lines,
        queries=hall.place.queries,
        profile=PROFILE,
        limits=limits or Limits(),
    )
    try:
        doors = await serve(floor, listen)
    except OSError:
        hall.place.close()
        raise
    hall.address, hall.doors = doors.address, doors
    try:
        async with grpc.aio.insecure_channel(doors.address) as channel:
            yield hall, channel
    finally:
        await doors.stop(0.2)
        hall.place.close()


async def until(holds: Callable[[], bool], seconds: float = 10.0) -> None:
    """Until `holds`, looked at every few milliseconds; TimeoutError."""
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110  # what is waited for has no event of its own
            await asyncio.sleep(0.005)
