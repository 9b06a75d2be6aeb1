"""The inventory line: what comes in, and what is issued to the floor (articles 11(10), 31).

It takes the factory return and the delivery note, signs for cartons by their blind count, and
issues the bodies to key replacement as soon as both the cards and the return are there.
"""

from __future__ import annotations

import asyncio
import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from domain.bodies import Body, Writing
from domain.changes import Event, EventType, Update
from domain.codes import Code
from domain.lines import (
    FactoryReturn,
    LedgerDoor,
    Note,
    Receipt,
    RefusedRecord,
    SealedRecord,
    SignFor,
)
from domain.places import (
    FACTORY_ADVISED,
    MISSING_COUNTED,
    SURPLUS_COUNTED,
    VAULT,
    Account,
    Kind,
    Line,
    transit,
)
from domain.provider import KeyAccepted
from ledger.digests import digest_of
from ledger.queries import Group, Queries

ISSUED = transit(Line.INVENTORY, Line.KEY_REPLACEMENT)
NOTHING = Group(0, 0, 0)


def advise(writing: Writing, bank: str, kind: str, count: int, before: Group) -> None:
    """`count` more bodies are advised. What was counted already beyond the advice stops being
    surplus; the rest is missing until it is signed for."""
    surplus = max(0, before.counted - before.advised)
    source = Account(FACTORY_ADVISED, kind, bank)
    found = min(count, surplus)
    writing.move_outside(source, Account(SURPLUS_COUNTED, kind, bank), found)
    writing.move_outside(source, Account(MISSING_COUNTED, kind, bank), count - found)


def decide_return(
    file: FactoryReturn,
    repeated: set[str],
    groups: Mapping[tuple[str, str], Group],
    vault: Sequence[Body],
) -> tuple[Writing, Receipt]:
    """Take a whole factory return. `repeated`: numbers that the ledger has from other files.
    `vault`: bodies of the batch that wait for this return."""
    taken, refused = _split(file, repeated)
    writing = Writing(Line.INVENTORY, f"return:{file.file_id}")
    receipt = Receipt(
        True, records=len(file.records) + len(file.refused), taken=len(taken), refused=refused
    )
    writing.event(
        Event(
            EventType.RETURN_ACCEPTED,
            data={
                "file_id": file.file_id,
                "batch_id": file.batch_id,
                "digest": file.digest,
                "records": receipt.records,
            },
        )
    )
    for record in taken:
        _advise_order(writing, file, record)
    for bad in refused:
        row = _refused_row(file, bad)
        data = {"file_id": file.file_id, "record": bad.record_number, "code": bad.code}
        # The digest alone: what a sender put into a faulty record may be anything, and events
        # stay for ever.
        data["row"] = digest_of([row])
        writing.event(Event(EventType.RECORD_REFUSED, data=data))
        writing.insert("refused_record", row)
    for bank, count in sorted(Counter(r.bank_code for r in taken).items()):
        kind = Kind.SOCIAL_SECURITY_CARD
        advise(writing, bank, kind, count, groups.get((bank, kind), NOTHING))
    for body in vault:
        writing.change(body, EventType.BODY_ISSUED, place=ISSUED)
    writing.insert(
        "file_in",
        {
            "file_id": file.file_id,
            "kind": "factory_return",
            "batch_id": file.batch_id,
            "digest": file.digest,
            "records": receipt.records,
        },
    )
    writing.reply = receipt_to_json(receipt)
    return writing, receipt


def _split(
    file: FactoryReturn, repeated: set[str]
) -> tuple[list[SealedRecord], tuple[RefusedRecord, ...]]:
    taken, refused = [], list(file.refused)
    for record in file.records:
        fields = [("order_id", record.order_id), *record.numbers]
        fields.append(("identification_code", record.identification_code))
        again = [name for name, value in fields if value in repeated]
        if not again:
            taken.append(record)
            continue
        refused.append(
            RefusedRecord(
                record.record_number,
                record.order_id,
                again[0],
                Code.REPEATED_NUMBER,
                "this number came in an earlier file",
                record.bank_code,
                record.carton_id,
                record.identification_code,
            )
        )
    return taken, tuple(sorted(refused, key=lambda r: r.record_number))


def _advise_order(writing: Writing, file: FactoryReturn, record: SealedRecord) -> None:
    row = {
        "order_id": record.order_id,
        "batch_id": file.batch_id,
        "bank": record.bank_code,
        "branch": record.branch_code,
        "carton_id": record.carton_id,
        "identification_code": record.identification_code,
        "has_temporary": int(record.has_temporary_card),
    }
    personal = {
        "order_id": record.order_id,
        "batch_id": file.batch_id,
        "sealed": base64.b64encode(record.sealed).decode(),
        "expires_on": file.expires_on,
    }
    numbers = sorted(set(record.numbers))
    data = {k: v for k, v in row.items() if k != "order_id"} | {
        "personal": digest_of([personal]),
        "expires_on": file.expires_on,
        "numbers": digest_of(numbers),
    }
    writing.event(Event(EventType.ORDER_ADVISED, order_id=record.order_id, data=data))
    writing.insert("orders", row)
    writing.insert("personal", personal)
    for kind, value in numbers:
        writing.insert(
            "number_index", {"kind": kind, "value": value, "order_id": record.order_id}
        )


def _refused_row(file: FactoryReturn, bad: RefusedRecord) -> dict[str, str | int]:
    return {
        "file_id": file.file_id,
        "record_number": bad.record_number,
        "order_id": bad.order_id,
        "batch_id": file.batch_id,
        "bank": bad.bank_code,
        "carton_id": bad.carton_id,
        "identification_code": bad.identification_code,
        "field": bad.field,
        "code": bad.code,
    }


def decide_note(note: Note, groups: Mapping[tuple[str, str], Group]) -> Writing:
    """Take a delivery note. Its temporary cards are advised by it; the others by the return."""
    writing = Writing(Line.INVENTORY, f"note:{note.delivery_id}")
    delivery = {
        "delivery_id": note.delivery_id,
        "batch_id": note.batch_id,
        "factory_id": note.factory_id,
    }
    cartons = [
        {
            "carton_id": carton.carton_id,
            "bank": carton.bank_code,
            "kind": carton.kind,
            "noted": carton.count,
            "destination": carton.destination,
        }
        for carton in note.cartons
    ]
    writing.event(
        Event(
            EventType.NOTE_ACCEPTED, data={**delivery, "digest": note.digest, "cartons": cartons}
        )
    )
    writing.insert("delivery", {**delivery, "state": "advised"})
    for row in cartons:
        place = {"delivery_id": note.delivery_id, "batch_id": note.batch_id, "counted": 0}
        writing.insert("carton", {**row, **place})
    temporary: Counter[str] = Counter()
    for carton in note.cartons:
        if carton.kind == Kind.TEMPORARY_CARD:
            temporary[carton.bank_code] += carton.count
    for bank, count in sorted(temporary.items()):
        kind = Kind.TEMPORARY_CARD
        advise(writing, bank, kind, count, groups.get((bank, kind), NOTHING))
    writing.insert(
        "file_in",
        {
            "file_id": note.delivery_id,
            "kind": "delivery_note",
            "batch_id": note.batch_id,
            "digest": note.digest,
            "records": len(note.cartons),
        },
    )
    count = len(note.cartons)
    writing.reply = receipt_to_json(Receipt(True, records=count, taken=count))
    return writing


def decide_sign_for(
    command: SignFor,
    cartons: Sequence[Mapping[str, str | int]],
    groups: Mapping[tuple[str, str], Group],
    *,
    issue: bool,
) -> Writing:
    """Sign for every carton of a delivery by its count: each card becomes a body in the vault,
    and goes on to key replacement at once if the return is there (`issue`)."""
    writing = Writing(Line.INVENTORY, f"sign:{command.delivery_id}")
    missing = {key: max(0, g.advised - g.counted) for key, g in groups.items()}
    updates = []
    for carton in cartons:
        carton_id, bank, kind = str(carton["carton_id"]), str(carton["bank"]), str(carton["kind"])
        counted = command.counts[carton_id]
        writing.event(
            Event(
                EventType.CARTON_SIGNED_FOR,
                data={
                    "delivery_id": command.delivery_id,
                    "carton_id": carton_id,
                    "noted": carton["noted"],
                    "counted": counted,
                },
            )
        )
        updates.append({"carton_id": carton_id, "counted": counted})
        for number in range(1, counted + 1):
            body = Body(
                f"{carton_id}.{number:04d}",
                kind,
                bank,
                str(carton["batch_id"]),
                carton_id,
                VAULT,
                destination=str(carton["destination"]),
            )
            short = missing.get((bank, kind), 0)
            missing[bank, kind] = max(0, short - 1)
            source = MISSING_COUNTED if short else SURPLUS_COUNTED
            writing.receive(body, Account(source, kind, bank))
            if issue:
                writing.change(body, EventType.BODY_ISSUED, place=ISSUED)
    writing.update(Update("carton", ("carton_id",), ("counted",), (), updates))
    writing.update(
        Update(
            "delivery",
            ("delivery_id",),
            ("state",),
            ("state",),
            [{"delivery_id": command.delivery_id, "state": "signed", "expect_state": "advised"}],
        )
    )
    writing.reply = receipt_to_json(Receipt(True, records=len(cartons), taken=len(cartons)))
    return writing


def receipt_to_json(receipt: Receipt) -> dict[str, object]:
    """A receipt as it is stored with its command: what a repeat is answered with."""
    return {
        "records": receipt.records,
        "taken": receipt.taken,
        "refused": [
            [r.record_number, r.order_id, r.field, r.code, r.reason] for r in receipt.refused
        ],
    }


def receipt_from_json(stored: Mapping[str, object], *, repeated: bool) -> Receipt:
    """The inverse of `receipt_to_json`."""
    refused = stored["refused"]
    assert isinstance(refused, list)
    return Receipt(
        True,
        records=int(str(stored["records"])),
        taken=int(str(stored["taken"])),
        refused=tuple(RefusedRecord(*r) for r in refused),
        repeated=repeated,
    )


class Inventory:
    """The line itself: reads what the decision needs, decides, commits. One command at a time."""

    def __init__(self, ledger: LedgerDoor, queries: Queries) -> None:
        self._ledger = ledger
        self._queries = queries
        self._one_at_a_time = asyncio.Lock()

    async def accept_return(self, file: FactoryReturn) -> Receipt:
        """Take a factory return once. The same file again is answered with the first receipt
        (`repeated`); ID_REUSED or BATCH_TAKEN refuse another."""
        async with self._one_at_a_time:
            known = self._known(file.file_id, file.digest)
            if known:
                return known
            q = self._queries
            if q.batch_return(file.batch_id):
                return Receipt(False, Code.BATCH_TAKEN, "another return of this batch was taken")
            repeated = q.repeated_numbers(
                [value for r in file.records for _, value in r.numbers],
                [r.identification_code for r in file.records],
                [r.order_id for r in file.records],
            )
            vault = q.bodies("b.batch_id = ? and b.place = ?", file.batch_id, VAULT)
            writing, receipt = decide_return(file, repeated, q.groups(file.batch_id), vault)
            committed = await self._ledger.commit(writing.changes())
            return replace(receipt, repeated=committed.repeated)

    async def accept_note(self, note: Note) -> Receipt:
        """Take a delivery note once."""
        async with self._one_at_a_time:
            known = self._known(note.delivery_id, note.digest)
            if known:
                return known
            again = self._queries.known_cartons([c.carton_id for c in note.cartons])
            if again:
                return Receipt(False, Code.ID_REUSED, f"carton {again[0]} is on another note")
            writing = decide_note(note, self._queries.groups(note.batch_id))
            committed = await self._ledger.commit(writing.changes())
            return receipt_from_json(committed.reply, repeated=committed.repeated)

    async def sign_for(self, command: SignFor) -> Receipt:
        """Sign for a delivery once; other counts for a signed delivery are refused."""
        async with self._one_at_a_time:
            delivery = self._queries.delivery(command.delivery_id)
            if delivery is None:
                return Receipt(False, Code.DELIVERY_UNKNOWN, command.delivery_id)
            cartons = self._queries.cartons_of_delivery(command.delivery_id)
            problem = _count_problem(command, cartons)
            if problem:
                return problem
            if delivery["state"] == "signed":
                same = all(c["counted"] == command.counts[c["carton_id"]] for c in cartons)
                if same:
                    return Receipt(True, records=len(cartons), taken=len(cartons), repeated=True)
                return Receipt(False, Code.DELIVERY_SIGNED, command.delivery_id)
            batch_id = delivery["batch_id"]
            issue = self._queries.batch_return(batch_id) is not None
            groups = self._queries.groups(batch_id)
            writing = decide_sign_for(command, cartons, groups, issue=issue)
            committed = await self._ledger.commit(writing.changes())
            return receipt_from_json(committed.reply, repeated=committed.repeated)

    async def record_keys(self, batch_id: str, keys: Sequence[KeyAccepted]) -> None:
        """Write down which temporary keys entered the token (labels and check values only)."""
        async with self._one_at_a_time:
            writing = Writing(Line.INVENTORY, f"keys:{batch_id}")
            for key in keys:
                writing.event(
                    Event(
                        EventType.KEYS_ACCEPTED,
                        data={
                            "batch_id": batch_id,
                            "label": key.label,
                            "version": key.version,
                            "check_value": key.check_value,
                        },
                    )
                )
            await self._ledger.commit(writing.changes())

    def _known(self, file_id: str, digest: str) -> Receipt | None:
        """The answer to a file whose id was used before."""
        known = self._queries.file_in(file_id)
        if known is None:
            return None
        if known["digest"] != digest:
            return Receipt(False, Code.ID_REUSED, f"{file_id} was used for other content")
        prefix = "return" if known["kind"] == "factory_return" else "note"
        stored = self._queries.reply(Line.INVENTORY, f"{prefix}:{file_id}")
        return receipt_from_json(stored, repeated=True)


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
