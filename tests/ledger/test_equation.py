"""The equation of the centre holds at every commit, whatever happens in whatever order."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from domain.codes import UNADVISED, Code
from domain.lines import NoteCarton, OrderAct, RefusedRecord, SealedRecord
from ledger.summary import COUNTS, summary
from ledger.verify import verify
from tests.ledger.building import (
    SOCIAL,
    TEMPORARY,
    Building,
    code_of,
    factory_return,
    note,
    record,
)

BANKS = ("102", "105")
APART = sorted(
    {*UNADVISED, Code.CHIP_SILENT, Code.FORMAL_KEYS_FOREIGN, Code.KEYS_MIXED} - {Code.OVER_COUNT}
)


@dataclass
class Delivered:
    """What the world knows of one delivery."""

    delivery_id: str
    batch: str
    cartons: list[NoteCarton]
    signed: bool = False


@dataclass
class Batch:
    """`waiting`: accepted records whose card was not read yet, by bank."""

    batch: str
    records: list[SealedRecord]
    taken: bool = False
    waiting: dict[str, list[SealedRecord]] = field(default_factory=dict)


class Floor(RuleBasedStateMachine):
    """Batches come in, in any order of files; cartons are short or too full; cards go on, are set
    apart for any reason, are more than were counted; lines are restarted."""

    @initialize()
    def open(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="cc-"))
        self.b = Building.make(self.folder)
        self.batches: list[Batch] = []
        self.deliveries: list[Delivered] = []
        self.numbers = 0
        self.plan((3, 2), 2)

    def number(self) -> int:
        self.numbers += 1
        return self.numbers

    @precondition(lambda self: len(self.batches) < 3)
    @rule(sizes=st.tuples(st.integers(0, 4), st.integers(0, 4)), deliveries=st.integers(1, 2))
    def plan_another(self, sizes: tuple[int, int], deliveries: int) -> None:
        self.plan(sizes, deliveries)

    def plan(self, sizes: tuple[int, int], deliveries: int) -> None:
        """A batch and its delivery notes; nothing of it is here yet."""
        name = f"B{len(self.batches)}"
        records = [
            record(self.number(), bank=bank, branch=f"{bank}-430102", batch=name)
            for bank, size in zip(BANKS, sizes, strict=True)
            for _ in range(size)
        ]
        self.batches.append(Batch(name, records))
        for n in range(deliveries):
            d = f"{name}D{n}"
            cartons = [NoteCarton(f"{d}-{bank}", bank, SOCIAL, size, "") for bank, size in
                       zip(BANKS, sizes, strict=True)]  # fmt: skip
            cartons.append(NoteCarton(f"{d}-T", "102", TEMPORARY, 1, "430102"))
            self.deliveries.append(Delivered(d, name, cartons))
            self.b.take_note(note(cartons, delivery_id=d, batch=name, digest=d))

    @precondition(lambda self: any(not b.taken for b in self.batches))
    @rule(data=st.data(), refused=st.integers(0, 2))
    def take_return(self, data: st.DataObject, refused: int) -> None:
        batch = data.draw(st.sampled_from([b for b in self.batches if not b.taken]))
        bad = [
            RefusedRecord(900 + n, f"{batch.batch}-bad{n}", "name", Code.BAD_FORMAT, "", "102",
                          "", code_of(self.number()))
            for n in range(refused)
        ]  # fmt: skip
        name = batch.batch
        file = factory_return(batch.records, bad, file_id=name, batch=name, digest=name)
        self.b.take_return(file)
        batch.taken = True
        for bank in BANKS:
            batch.waiting[bank] = [r for r in batch.records if r.bank_code == bank]

    @precondition(lambda self: any(not d.signed for d in self.deliveries))
    @rule(data=st.data())
    def sign_for(self, data: st.DataObject) -> None:
        delivery = data.draw(st.sampled_from([d for d in self.deliveries if not d.signed]))
        counts = {
            c.carton_id: data.draw(st.integers(max(0, c.count - 2), c.count + 2))
            for c in delivery.cartons
        }
        self.b.sign_for(delivery.delivery_id, **counts)
        delivery.signed = True

    @precondition(lambda self: any(d.signed for d in self.deliveries))
    @rule(data=st.data(), by=st.integers(-2, 2))
    def recount(self, data: st.DataObject, by: int) -> None:
        """Somebody doubts the count of a carton; key replacement has its own picture of it."""
        signed = [c for d in self.deliveries if d.signed for c in d.cartons]
        carton = data.draw(st.sampled_from(signed))
        there = self.b.queries.carton_quota(carton.carton_id)
        self.b.recount(carton.carton_id, max(0, there + by))

    def workable(self) -> list[tuple[Batch, NoteCarton]]:
        taken = {b.batch: b for b in self.batches if b.taken}
        return [
            (taken[d.batch], c)
            for d in self.deliveries
            if d.signed and d.batch in taken
            for c in d.cartons
        ]

    @precondition(lambda self: self.workable())
    @rule(
        data=st.data(),
        fates=st.lists(st.none() | st.sampled_from(APART), min_size=1, max_size=6),
        known=st.booleans(),
        restart=st.booleans(),
    )
    def read_chips(
        self, data: st.DataObject, fates: list[Code | None], known: bool, restart: bool
    ) -> None:
        """Some cards of a carton, maybe after every line was killed and rebuilt."""
        if restart:
            self.b.restart()
        batch, carton = data.draw(st.sampled_from(self.workable()))
        for fate in fates:
            self.read_chip(batch, carton, fate, known)

    def read_chip(self, batch: Batch, carton: NoteCarton, apart: Code | None, known: bool) -> None:
        """On it goes, or apart; beyond the count it is held."""
        mine = batch.waiting[carton.bank_code] if carton.kind == SOCIAL else []
        order = (
            mine.pop() if mine and (apart is None or (known and apart not in UNADVISED)) else None
        )
        number, order_id, branch = self.number(), "", ""
        if order is not None:
            number, order_id = order.record_number, order.order_id
            branch = order.branch_code
        self.b.cartons.load([carton.carton_id], [carton.carton_id])
        if not self.b.cartons.issued(carton.carton_id):
            return
        left = self.b.queries.bodies(
            "b.carton_id = ? and b.identification_code = '' and b.order_id = ''"
            " and (b.place like '%/work' or b.place like 'transit/inventory%')",
            carton.carton_id,
        )
        if apart is None and left and (order is not None or carton.kind == TEMPORARY):
            self.b.replace_keys(carton.carton_id, number, order_id, branch)
        else:
            reason = apart or Code.NOT_IN_RETURN
            self.b.set_apart(carton.carton_id, reason, number, order_id)

    @precondition(lambda self: self.workable())
    @rule(bad=st.booleans(), sort=st.booleans())
    def inspect(self, bad: bool, sort: bool) -> None:
        waiting = self.b.queries.bodies("b.place = 'transit/key_replacement>inspection'")
        failed = {waiting[0].order_id} - {""} if bad and waiting else set()
        self.b.inspect(bad=frozenset(failed), at_once=2)
        if sort:
            self.b.sort()

    @precondition(lambda self: any(b.taken and b.records for b in self.batches))
    @rule(data=st.data(), act=st.sampled_from(OrderAct))
    def command_orders(self, data: st.DataObject, act: OrderAct) -> None:
        """Card management changes its mind, in time or too late."""
        records = [r for b in self.batches if b.taken for r in b.records]
        chosen = data.draw(st.lists(st.sampled_from(records), min_size=1, max_size=3))
        self.b.orders(act, f"K{self.number()}", *(r.order_id for r in chosen))

    @invariant()
    def the_equation_holds(self) -> None:
        if not hasattr(self, "b"):
            return
        totals = summary(self.b.queries)
        assert totals["reconciled"], totals
        assert totals["advised"] + totals["surplus"] == totals["received"] + totals["missing"]
        inside = ("shipped", "rejected", "held", "in_work", "destroyed")
        assert totals["received"] == sum(totals[name] for name in inside)
        parts = [summary(self.b.queries, b.batch) for b in self.batches]
        for part in parts:
            assert part["reconciled"], part
        for name in COUNTS:
            assert sum(part[name] for part in parts) == totals[name], name

    def teardown(self) -> None:
        if not hasattr(self, "b"):
            return
        self.b.close()
        report = verify(self.b.url, None, None)
        shutil.rmtree(self.folder)
        assert report.ok, report.finding


TestFloor = Floor.TestCase
TestFloor.settings = settings(max_examples=10, stateful_step_count=30)
