"""The inventory line: what comes in, and what is issued to the floor (articles 11(10), 31).

It takes the factory return, its corrections and the delivery note, signs for cartons by their
blind count, counts them anew when somebody doubts it, and issues the bodies to key replacement as
soon as both the cards and the return are there. What it took in of personal data it destroys when
their time is over, and it lists the copies that were made of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from structlog.contextvars import bind_contextvars, bound_contextvars

from actors.floor_acts import carry_out
from actors.keeping import Keeping
from actors.receiving import (
    NOTHING,
    decide_correction,
    decide_note,
    decide_return,
    decide_sign_for,
    kind_of,
    receipt_from_json,
)
from actors.recount import Counted, decide_recount, recount_problem
from actors.stock import count
from domain.bodies import Writing
from domain.changes import Away
from domain.codes import Code
from domain.lines import (
    BackupMade,
    CarriedOut,
    ConfirmedAct,
    FactoryReturn,
    LedgerDoor,
    Note,
    Receipt,
    SignFor,
    StockCount,
)
from domain.places import VAULT, Line
from ledger.counts import carton_rows, recounts, signed_counts
from ledger.keeping import destroyed_batches
from ledger.queries import Queries
from ledger.returns import all_in_lines, held_strangers, returns_written


class Inventory:
    """The line itself: reads what the decision needs, decides, commits. One command at a time."""

    def __init__(
        self, ledger: LedgerDoor, queries: Queries, keeping: Keeping | None = None
    ) -> None:
        """`keeping` None: nothing of this floor ever expires (tests, bench)."""
        self._ledger = ledger
        self._queries = queries
        self._keeping = keeping
        self._one_at_a_time = asyncio.Lock()

    @asynccontextmanager
    async def _command(self, **about: str) -> AsyncIterator[None]:
        """One at a time; what is logged meanwhile names what the command is about."""
        async with self._one_at_a_time:
            with bound_contextvars(**about):
                yield

    async def accept_return(self, file: FactoryReturn) -> Receipt:
        """Take a factory return once. The same file again is answered with the first receipt
        (`repeated`); ID_REUSED or BATCH_TAKEN refuse another."""
        async with self._command(batch_id=file.batch_id, file_id=file.file_id):
            known = self._known(file.file_id, kind_of(file), file.digest)
            if known:
                return known
            q = self._queries
            if q.batch_return(file.batch_id):
                return Receipt(False, Code.BATCH_TAKEN, "another return of this batch was taken")
            vault = q.bodies("b.batch_id = ? and b.place = ?", file.batch_id, VAULT)
            groups = q.groups(file.batch_id)
            return await self._commit(*decide_return(file, self._repeated(file), groups, vault))

    async def accept_correction(self, file: FactoryReturn) -> Receipt:
        """Take a correction of a return once, record by record: what stands for no refused record
        of it is refused as NOTHING_TO_CORRECT, and the whole if `corrects` is not the return of
        the batch. Once the centre return is written, only records whose card is held here are
        taken; the others are BATCH_CLOSED."""
        async with self._command(batch_id=file.batch_id, file_id=file.file_id):
            known = self._known(file.file_id, kind_of(file), file.digest)
            if known:
                return known
            q = self._queries
            returned = q.batch_return(file.batch_id)
            if returned is None or returned["file_id"] != file.corrects:
                reason = f"{file.corrects} is not the return of {file.batch_id}"
                return Receipt(False, Code.NOTHING_TO_CORRECT, reason)
            if destroyed_batches(q, [file.batch_id]):
                reason = f"the personal data of {file.batch_id} were destroyed"
                return Receipt(False, Code.BATCH_CLOSED, reason)
            written = returns_written(q, file.batch_id)
            here = held_strangers(q, file.batch_id) if written else None
            uncorrected, groups = q.uncorrected(file.batch_id), q.groups(file.batch_id)
            writing, receipt = decide_correction(
                file, self._repeated(file), groups, uncorrected, here
            )
            _guard_returns(writing, file.batch_id, written)
            return await self._commit(writing, receipt)

    def _repeated(self, file: FactoryReturn) -> set[str]:
        return self._queries.repeated_numbers(
            [value for r in file.records for _, value in r.numbers],
            [r.identification_code for r in file.records],
            [r.order_id for r in file.records],
        )

    async def _commit(self, writing: Writing, receipt: Receipt) -> Receipt:
        """A file of which nothing can be taken leaves no trace: it may be mended and come again."""
        if not receipt.taken:
            return replace(receipt, accepted=False, code=Code.NOTHING_TAKEN)
        committed = await self._ledger.commit(writing.changes())
        return replace(receipt, repeated=committed.repeated)

    async def accept_note(self, note: Note) -> Receipt:
        """Take a delivery note once."""
        async with self._command(batch_id=note.batch_id, delivery_id=note.delivery_id):
            known = self._known(note.delivery_id, "delivery_note", note.digest)
            if known:
                return known
            if self._queries.is_closed(note.batch_id):
                return Receipt(False, Code.BATCH_CLOSED, f"the return of {note.batch_id} is out")
            again = self._queries.known_cartons([c.carton_id for c in note.cartons])
            if again:
                return Receipt(False, Code.ID_REUSED, f"carton {again[0]} is on another note")
            writing = decide_note(note, self._queries.groups(note.batch_id))
            _guard_returns(writing, note.batch_id, 0)
            committed = await self._ledger.commit(writing.changes())
            return receipt_from_json(committed.reply, repeated=committed.repeated)

    async def sign_for(self, command: SignFor) -> Receipt:
        """Sign for a delivery once; other counts for a signed delivery are refused."""
        async with self._command(delivery_id=command.delivery_id):
            delivery = self._queries.delivery(command.delivery_id)
            if delivery is None:
                return Receipt(False, Code.DELIVERY_UNKNOWN, command.delivery_id)
            cartons = self._queries.cartons_of_delivery(command.delivery_id)
            problem = _count_problem(command, cartons)
            if problem:
                return problem
            if delivery["state"] == "signed":
                # As it was signed for, whatever recounts said since.
                if signed_counts(self._queries, command.delivery_id) == command.counts:
                    return Receipt(True, records=len(cartons), taken=len(cartons), repeated=True)
                return Receipt(False, Code.DELIVERY_SIGNED, command.delivery_id)
            batch_id = delivery["batch_id"]
            bind_contextvars(batch_id=batch_id)
            issue = self._queries.batch_return(batch_id) is not None
            groups = self._queries.groups(batch_id)
            writing = decide_sign_for(command, cartons, groups, issue=issue)
            committed = await self._ledger.commit(writing.changes())
            return receipt_from_json(committed.reply, repeated=committed.repeated)

    async def recount(self, carton_id: str, counted: int) -> Receipt:
        """Count a carton of a signed delivery anew, wherever its cards lie by now. The count that
        it has already is answered `repeated`. Once the centre return is written, a count may take
        up the cards beyond the old one, and bring no others (BATCH_CLOSED)."""
        async with self._one_at_a_time:
            q = self._queries
            carton = q.carton(carton_id)
            if carton is None:
                code = Code.CARTON_NOT_COUNTED if q.known_cartons([carton_id]) else None
                return Receipt(False, code or Code.CARTON_UNKNOWN, carton_id)
            written = returns_written(q, carton.batch_id)
            key = carton.bank, carton.kind
            known = Counted(
                carton,
                q.bodies("b.carton_id = ? and b.place not like 'factory/%'", carton_id),
                carton_rows(q, carton_id),
                recounts(q, carton_id),
                q.groups(carton.batch_id).get(key, NOTHING),
                q.batch_return(carton.batch_id) is not None,
            )
            if counted == carton.counted == len(known.bodies):
                return Receipt(True, records=1, taken=1, repeated=True)
            problem = recount_problem(known, counted)
            if problem:
                return problem
            if written and counted > len(known.bodies):
                return Receipt(False, Code.BATCH_CLOSED, f"the return of {carton.batch_id} is out")
            if written and not all_in_lines(q, carton_id):
                return Receipt(False, Code.BUSY, "the revision of the return is being written")
            writing = decide_recount(known, counted)
            _guard_returns(writing, carton.batch_id, written)
            await self._ledger.commit(writing.changes())
            return Receipt(True, records=1, taken=1)

    async def count_stock(self, command: StockCount) -> Receipt:
        """Compare what was scanned with the books, and keep what differs (`actors.stock`)."""
        async with self._command():
            return await count(Line.INVENTORY, self._ledger, self._queries, command)

    async def step(self) -> bool:
        """Let go what is kept long enough (`actors.keeping`); whether there is more to do."""
        async with self._one_at_a_time:
            return self._keeping is not None and await self._keeping.step()

    async def record_backup(self, made: BackupMade) -> Receipt:
        async with self._one_at_a_time:
            return await self._keeper.record_backup(made)

    async def remove_backup(self, backup_id: str) -> Receipt:
        async with self._one_at_a_time:
            return await self._keeper.remove_backup(backup_id)

    @property
    def _keeper(self) -> Keeping:
        if self._keeping is None:
            raise Away("this floor keeps no register of backups")
        return self._keeping

    async def carry_out(self, act: ConfirmedAct) -> CarriedOut:
        """Do what two people have confirmed, once (`actors.floor_acts`)."""
        async with self._command(act_id=act.act_id):
            return await carry_out(Line.INVENTORY, self._ledger, self._queries, act)

    def _known(self, file_id: str, kind: str, digest: str) -> Receipt | None:
        """The answer to a file whose id was used before."""
        known = self._queries.file_in(file_id)
        if known is None:
            return None
        if known["kind"] != kind or known["digest"] != digest:
            return Receipt(False, Code.ID_REUSED, f"{file_id} was used for other content")
        prefix = "note" if kind == "delivery_note" else "return"
        stored = self._queries.reply(Line.INVENTORY, f"{prefix}:{file_id}")
        return receipt_from_json(stored, repeated=True)


def _guard_returns(writing: Writing, batch_id: str, written: int) -> None:
    """Sorting may write a return of the batch while this is decided."""
    writing.guard("outbox", {"batch_id": batch_id, "kind": "centre_return"}, written)


def _count_problem(command: SignFor, cartons: Sequence[Mapping[str, object]]) -> Receipt | None:
    noted = {str(c["carton_id"]) for c in cartons}
    unknown = sorted(set(command.counts) - noted)
    if unknown:
        return Receipt(False, Code.CARTON_UNKNOWN, f"{unknown[0]} is not on the delivery note")
    uncounted = sorted(noted - set(command.counts))
    if uncounted:
        return Receipt(False, Code.CARTON_NOT_COUNTED, f"{uncounted[0]} has no count")
    if any(n < 0 for n in command.counts.values()):
        return Receipt(False, Code.BAD_FORMAT, "a count is negative")
    return None
