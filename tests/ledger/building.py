"""A small ledger as a real floor leaves it: every row comes out of a line's decision and a commit.

Inventory and sorting are the lines themselves. Key replacement and inspection are played without
chips: the same `CartonWork`, the same events, one outcome for each card instead of a session.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature

from actors.hsm.carton_work import CartonWork
from actors.inventory import Inventory
from actors.lots import LotPlan
from actors.qa.inspection import DONE as INSPECTED_PLACE
from actors.sorting import Sorting
from domain.bodies import Body, Writing
from domain.changes import Changes, Committed, EventType, Row
from domain.codes import Code
from domain.lines import (
    ClosePackage,
    FactoryReturn,
    Note,
    NoteCarton,
    OrderAct,
    OrdersCommand,
    Receipt,
    RefusedRecord,
    SealedRecord,
    SignFor,
)
from domain.places import DRAWN, READ_AGAIN, Kind, Line, transit
from ledger import heads
from ledger.commit import Ledger
from ledger.queries import Queries
from proof.scanning import scan_packages
from tests.ledger.acts import people_act
from tests.ledgers import new_ledger

REPLACED = transit(Line.KEY_REPLACEMENT, Line.INSPECTION)
START = datetime(2024, 3, 1, 8, 0, tzinfo=UTC)
EXPIRES = "2024-06-01"
SOCIAL, TEMPORARY = Kind.SOCIAL_SECURITY_CARD, Kind.TEMPORARY_CARD


class Clock:
    """A commit every 10 ms."""

    def __init__(self) -> None:
        self._ticks = count(1)

    def __call__(self) -> str:
        at = START + timedelta(milliseconds=10 * next(self._ticks))
        return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Door:
    """`LedgerDoor` straight into a ledger of this process. With `cut`, the line dies after that
    many more commits: they took effect and nobody was told."""

    def __init__(self, ledger: Ledger, line: str) -> None:
        self._ledger = ledger
        self._epoch = ledger.open_epoch(line)
        self.cut: int | None = None

    async def commit(self, changes: Changes) -> Committed:
        committed = self._ledger.commit(changes, self._epoch)
        self.cut = None if self.cut is None else self.cut - 1
        if self.cut is not None and self.cut <= 0:
            raise Killed
        return committed

    async def reclaim(self) -> bool:
        return self._ledger.reclaim()


class Killed(Exception):
    """The line died here."""


def code_of(number: int, area: str = "430100") -> str:
    return f"{area}D156000005{number:016X}"


def record(
    number: int,
    *,
    bank: str = "102",
    branch: str = "102-430102",
    carton: str = "C1",
    batch: str = "B1",
    has_temporary: bool = False,
) -> SealedRecord:
    """An accepted record; its numbers are made of `number`, so another's are other ones."""
    return SealedRecord(
        number,
        f"{batch}-{number:06d}",
        bank,
        branch,
        carton,
        code_of(number),
        has_temporary,
        f"sealed {batch} {number}".encode(),
        (("social_card_number", f"s{number:060d}"), ("identity_number", f"i{number:060d}")),
    )


def factory_return(
    records: Sequence[SealedRecord],
    refused: Sequence[RefusedRecord] = (),
    *,
    file_id: str = "F1",
    batch: str = "B1",
    digest: str = "d1",
) -> FactoryReturn:
    return FactoryReturn(file_id, batch, digest, tuple(records), tuple(refused), EXPIRES)


def note(
    cartons: Sequence[NoteCarton], *, delivery_id: str = "D1", batch: str = "B1", digest: str = "n1"
) -> Note:
    return Note(delivery_id, batch, "factory", digest, tuple(cartons))


@dataclass
class Building:
    """A ledger in a folder, its lines, and the key that signs its heads."""

    folder: Path
    url: str
    ledger: Ledger
    queries: Queries
    key: ec.EllipticCurvePrivateKey
    doors: dict[str, Door] = field(default_factory=dict)
    prefixes: int = 0
    lots: LotPlan | None = None

    @classmethod
    def make(
        cls, folder: Path, now: Callable[[], str] | None = None, lots: LotPlan | None = None
    ) -> Building:
        folder.mkdir(parents=True, exist_ok=True)
        url = new_ledger(folder)
        key = ec.generate_private_key(ec.SECP256R1())
        building = cls(folder, url, Ledger(url, now or Clock()), Queries(url), key, lots=lots)
        building.restart()
        return building

    @property
    def head_file(self) -> Path:
        return self.folder / "heads.jsonl"

    @property
    def public_key(self) -> bytes:
        return self.key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def restart(self) -> None:
        """New epochs, new instances: nothing is remembered but the ledger."""
        self.prefixes += 1
        self.doors = {str(line): Door(self.ledger, line) for line in Line}
        self.inventory = Inventory(self.doors[Line.INVENTORY], self.queries)
        door = self.doors[Line.SORTING]
        self.sorting = Sorting(door, self.queries, f"s{self.prefixes}", self.lots)
        self.cartons = CartonWork(self.queries)
        self.commands = 0

    def close(self) -> None:
        self.queries.close()
        self.ledger.close()

    # What the world does.

    def take_return(self, file: FactoryReturn) -> Receipt:
        return asyncio.run(self.inventory.accept_return(file))

    def take_correction(self, file: FactoryReturn) -> Receipt:
        return asyncio.run(self.inventory.accept_correction(file))

    def take_note(self, delivery: Note) -> Receipt:
        return asyncio.run(self.inventory.accept_note(delivery))

    def sign_for(self, delivery_id: str, **counts: int) -> Receipt:
        return asyncio.run(self.inventory.sign_for(SignFor(delivery_id, counts)))

    def recount(self, carton_id: str, counted: int) -> Receipt:
        return asyncio.run(self.inventory.recount(carton_id, counted))

    def orders(self, act: OrderAct, command_id: str, *order_ids: str) -> Receipt:
        command = OrdersCommand(command_id, act, order_ids)
        return asyncio.run(self.sorting.command_orders(command))

    def writing(self, line: Line) -> Writing:
        self.commands += 1
        return Writing(line, f"{line}-{self.prefixes}:{self.commands}")

    def commit(self, writing: Writing) -> Committed:
        changes = writing.changes()
        return asyncio.run(self.doors[changes.line].commit(changes))

    def replace_keys(self, carton: str, number: int, order_id: str = "", branch: str = "") -> None:
        """A chip goes through key replacement: released in one commit, done in the next."""
        self.cartons.load([carton], [carton])
        writing = self.writing(Line.KEY_REPLACEMENT)
        body = self.cartons.take(carton, writing)
        assert body is not None
        body = self.release(writing, body, number, order_id, branch)
        self.commit(writing)
        writing = self.writing(Line.KEY_REPLACEMENT)
        writing.change(body, EventType.KEYS_REPLACED, {"station": "S1"}, place=REPLACED)
        self.commit(writing)

    def replace_keys_together(self, carton: str, records: Sequence[SealedRecord]) -> None:
        """A whole carton, released and done in one commit."""
        self.cartons.load([carton])
        writing = self.writing(Line.KEY_REPLACEMENT)
        for r in records:
            body = self.cartons.take(carton, writing)
            assert body is not None
            body = self.release(writing, body, r.record_number, r.order_id, r.branch_code)
            writing.change(body, EventType.KEYS_REPLACED, {"station": "S1"}, place=REPLACED)
        self.commit(writing)

    def release(
        self, writing: Writing, body: Body, number: int, order_id: str, branch: str
    ) -> Body:
        return writing.change(
            body,
            EventType.KEY_WRITE_RELEASED,
            {"station": "S1", "reader": "R1", "keys": ["MK"]},
            identification_code=code_of(number),
            order_id=order_id,
            destination=branch or body.destination,
            lease=body.lease + 1,
            released=True,
        )

    def set_apart(
        self, carton: str, code: str, number: int | None = None, order_id: str = ""
    ) -> str:
        """A card does not go on; answers its stack."""
        self.cartons.load([carton], [carton])
        writing = self.writing(Line.KEY_REPLACEMENT)
        stack = self.cartons.set_apart(
            writing,
            carton,
            code,
            None,
            identification_code="" if number is None else code_of(number),
            order_id=order_id,
            ticket="",
            station="S1",
        )
        self.commit(writing)
        return stack

    def inspect(self, *, bad: frozenset[str] = frozenset(), at_once: int = 5) -> None:
        """Everything that waits for inspection passes, but the bodies of the orders in `bad`."""
        waiting = "b.place = ? order by b.body_id limit ?"
        while bodies := self.queries.bodies(waiting, REPLACED, at_once):
            writing = self.writing(Line.INSPECTION)
            for body in bodies:
                if body.order_id in bad:
                    writing.change(
                        body,
                        EventType.BODY_REJECTED,
                        {"detail": "name"},
                        place="inspection/rejected",
                        condition=Code.DATA_DIFFERS,
                        live=False,
                    )
                else:
                    writing.change(
                        body, EventType.INSPECTED, {"station": "S1"}, place=INSPECTED_PLACE
                    )
            self.commit(writing)

    def read_sample(self, *, bad: int = 0, of: Sequence[str] | None = None) -> int:
        """Every drawn card (of these cartons) is read again; the first `bad` of them are not in
        order. Answers how many."""
        writing = self.writing(Line.SAMPLING)
        drawn = [
            b
            for b in self.queries.bodies("b.place = ? order by b.body_id", DRAWN)
            if of is None or b.carton_id in of
        ]
        for number, body in enumerate(drawn):
            if number < bad:
                writing.change(
                    body,
                    EventType.BODY_REJECTED,
                    {"detail": "name"},
                    place="sampling/rejected",
                    condition=Code.DATA_DIFFERS,
                    live=False,
                )
            else:
                writing.change(body, EventType.SAMPLE_PASSED, {"station": "S1"}, place=READ_AGAIN)
        self.commit(writing)
        return len(drawn)

    def sort(self) -> None:
        """Sorting does what it can, and packages are scanned: to the end if the batch is
        complete."""
        self.sort_unscanned()
        while self.scan_packages():
            self.sort_unscanned()

    def sort_unscanned(self) -> None:
        """Sorting does what it can by itself: packages stay open."""
        while asyncio.run(self.sorting.step()):
            pass

    def scan_packages(self) -> int:
        return asyncio.run(scan_packages(self.sorting, self.queries))

    def close_package(self, package_id: str, *order_ids: str, without_number: int = 0) -> Receipt:
        command = ClosePackage(package_id, order_ids, without_number)
        return asyncio.run(self.sorting.close_package(command))

    def acknowledge(self, *outbox_ids: str) -> None:
        asyncio.run(self.sorting.acknowledge(outbox_ids))

    def sign_heads(self) -> int:
        """As the floor does: sign, keep outside, record."""
        links = heads.unsigned_heads(self.queries)
        signed = [heads.signed_head(link, self.sign(link)) for link in links]
        heads.append_head_file(self.head_file, signed)
        self.ledger.record_heads(signed)
        return len(signed)

    def sign(self, link: Row) -> bytes:
        digest = heads.head_digest(link["line"], link["number"], link["hash"], link["at"])
        r, s = decode_dss_signature(self.key.sign(digest, ec.ECDSA(Prehashed(hashes.SHA256()))))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")


BRANCHES = {"102": ("102-430102", "102-430121"), "105": ("105-430102",)}
REFUSED = RefusedRecord(
    90, "B1-000090", "bank_card_number", Code.BAD_CHECK_DIGIT, "bad", "102", "C1", code_of(90)
)


def one_of_each(folder: Path) -> Building:
    """A whole batch in which everything that can befall a card befalls one: advised 22 cards of
    two banks and 2 temporary ones; a short carton, a refused record, a card that is not in the
    return, one beyond the count, a silent one, foreign keys, one that inspection rejects, a
    cancelled order; people act on keys. Heads are signed twice, and before the last commits."""
    b = Building.make(folder)
    records = [
        record(n, branch=BRANCHES["102"][n % 2], carton="C1", has_temporary=n % 5 == 0)
        for n in range(1, 13)
    ]
    records += [
        record(n, bank="105", branch="105-430102", carton="C2", has_temporary=n == 15)
        for n in range(13, 23)
    ]
    b.take_return(factory_return(records, [REFUSED]))
    b.take_note(
        note(
            [
                NoteCarton("C1", "102", SOCIAL, 13, ""),
                NoteCarton("C2", "105", SOCIAL, 10, ""),
                NoteCarton("T1", "102", TEMPORARY, 2, "430102"),
            ]
        )
    )
    b.sign_for("D1", C1=13, C2=9, T1=2)  # C2 is one card short
    b.sign_heads()
    for r in records[:10]:
        b.replace_keys("C1", r.record_number, r.order_id, r.branch_code)
    b.set_apart("C1", Code.BAD_CHECK_DIGIT, 90)  # the body of the refused record
    b.set_apart("C1", Code.CHIP_SILENT, None, records[10].order_id)
    b.set_apart("C1", Code.NOT_IN_RETURN, 91)  # stands in the place of record 12
    for r in records[12:20]:
        b.replace_keys("C2", r.record_number, r.order_id, r.branch_code)
    b.set_apart("C2", Code.FORMAL_KEYS_FOREIGN, 21, records[20].order_id)
    b.set_apart("C2", Code.OVER_COUNT, 22, records[21].order_id)  # the tenth card after all
    b.replace_keys("T1", 201)
    b.replace_keys("T1", 202)
    b.orders(OrderAct.CANCEL, "K1", records[10].order_id)
    b.inspect(bad=frozenset({records[3].order_id}))
    people_act(folder, b.ledger)
    b.sign_heads()
    b.sort()
    b.acknowledge("RETURN-B1-1")
    return b
