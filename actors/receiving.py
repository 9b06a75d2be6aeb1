"""What inventory decides about what comes in: factory return, delivery note, counted cartons.

Plain functions: what is known goes in, a `Writing` with all its consequences comes out.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from domain.bodies import Body, Writing
from domain.changes import Event, EventType, Update
from domain.codes import Code
from domain.groups import Group, GroupKey
from domain.lines import (
    FactoryReturn,
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
from ledger.digests import digest_of

ISSUED = transit(Line.INVENTORY, Line.KEY_REPLACEMENT)
NOTHING = Group()


def advise(writing: Writing, key: GroupKey, count: int, before: Group) -> None:
    """`count` more bodies are advised. What was counted already beyond the advice stops being
    surplus; the rest is missing until it is signed for."""
    surplus = max(0, before.counted - before.advised)
    source = Account(FACTORY_ADVISED, key.kind, key.bank)
    found = min(count, surplus)
    writing.move_outside(source, Account(SURPLUS_COUNTED, key.kind, key.bank), found)
    writing.move_outside(source, Account(MISSING_COUNTED, key.kind, key.bank), count - found)
    writing.settle(key, before, replace(before, advised=before.advised + count))


def decide_return(
    file: FactoryReturn,
    repeated: set[str],
    groups: Mapping[tuple[str, str], Group],
    vault: Sequence[Body],
) -> tuple[Writing, Receipt]:
    """Take a whole factory return. `repeated`: numbers that the ledger has from other files.
    `vault`: bodies of the batch that wait for this return."""
    writing, receipt = _take(file, *_split(file, repeated), groups)
    for body in vault:
        writing.change(body, EventType.BODY_ISSUED, place=ISSUED)
    return writing, receipt


def decide_correction(
    file: FactoryReturn,
    repeated: set[str],
    groups: Mapping[tuple[str, str], Group],
    uncorrected: Sequence[Mapping[str, Any]],
    here: Container[str] | None = None,
) -> tuple[Writing, Receipt]:
    """Take a correction: those of its records that stand for a refused record of the return, by
    order id or identification code. `uncorrected`: refused records of the batch. `here`: the
    identification codes of the cards to which the batch, its return written, is still open."""
    sound, refused = _split(file, repeated)
    here = {r.identification_code for r in sound} if here is None else here
    why = "the return is out, and no such card is here"
    late = [
        _refuse(r, "", Code.BATCH_CLOSED, why) for r in sound if r.identification_code not in here
    ]
    sound = [r for r in sound if r.identification_code in here]
    matched = _match(file.corrects, sound, uncorrected)
    taken = [r for r in sound if r.record_number in matched]
    strange = [
        _refuse(r, "", Code.NOTHING_TO_CORRECT, "no refused record of the return is like it")
        for r in sound
        if r.record_number not in matched
    ]
    writing, receipt = _take(file, taken, _in_order([*refused, *late, *strange]), groups)
    rows = []
    for record in taken:
        for file_id, number in matched[record.record_number]:
            data = {"file_id": file_id, "record": number, "corrected_by": file.file_id}
            writing.event(Event(EventType.RECORD_CORRECTED, order_id=record.order_id, data=data))
            rows.append(
                {
                    "file_id": file_id,
                    "record_number": number,
                    "corrected_by": file.file_id,
                    "expect_corrected_by": "",
                }
            )
    column = ("corrected_by",)
    writing.update(Update("refused_record", ("file_id", "record_number"), column, column, rows))
    return writing, receipt


def _match(
    corrects: str, records: Sequence[SealedRecord], uncorrected: Sequence[Mapping[str, Any]]
) -> dict[int, list[tuple[str, int]]]:
    """The refused records (file, number) that each record of a correction stands for, by its own
    number: one of the return `corrects`, and what earlier corrections tried in vain for it. Order
    ids decide first; what they leave goes by identification code, and one that could not be read at
    all by any record that is like no other. Each is corrected once."""
    by_order: dict[str, set[tuple[str, int]]] = {}
    by_chip: dict[str, set[tuple[str, int]]] = {}
    no_order, nameless = set(), []
    for bad in uncorrected:
        place = bad["file_id"], bad["record_number"]
        if bad["order_id"]:
            by_order.setdefault(bad["order_id"], set()).add(place)
        else:
            no_order.add(place)
        if bad["identification_code"]:
            by_chip.setdefault(bad["identification_code"], set()).add(place)
        elif not bad["order_id"] and bad["file_id"] == corrects:
            nameless.append(place)
    matched: dict[int, set[tuple[str, int]]] = {}
    for record in records:
        matched[record.record_number] = by_order.pop(record.order_id, set())
    corrected = {place for found in matched.values() for place in found}
    for record in records:
        found = matched[record.record_number]
        by_code = by_chip.pop(record.identification_code, set()) - corrected
        # A refused record with another order id is another's, if this one has its own.
        has_its_own = any(file_id == corrects for file_id, _ in found)
        found |= by_code & no_order if has_its_own else by_code
        if not found and nameless:
            found.add(nameless.pop(0))
    return {
        number: sorted(found)
        for number, found in matched.items()
        if any(file_id == corrects for file_id, _ in found)
    }


def _take(
    file: FactoryReturn,
    taken: Sequence[SealedRecord],
    refused: tuple[RefusedRecord, ...],
    groups: Mapping[tuple[str, str], Group],
) -> tuple[Writing, Receipt]:
    """The orders of a return or correction, and what is refused of it."""
    writing = Writing(Line.INVENTORY, f"return:{file.file_id}")
    receipt = Receipt(
        True, records=len(file.records) + len(file.refused), taken=len(taken), refused=refused
    )
    row = {
        "file_id": file.file_id,
        "batch_id": file.batch_id,
        "digest": file.digest,
        "records": receipt.records,
    }
    if file.corrects:
        data = {**row, "corrects": file.corrects}
        writing.event(Event(EventType.CORRECTION_ACCEPTED, data=data))
    else:
        writing.event(Event(EventType.RETURN_ACCEPTED, data=row))
    writing.insert("file_in", {**row, "kind": kind_of(file), "closed": 0})
    for record in taken:
        _advise_order(writing, file, record)
    for bad in refused:
        bad_row = _refused_row(file, bad)
        said = {"file_id": file.file_id, "record": bad.record_number, "code": bad.code}
        # The digest alone: what a sender put into a faulty record may be anything, and events
        # stay for ever.
        said["row"] = digest_of([bad_row])
        writing.event(Event(EventType.RECORD_REFUSED, data=said))
        writing.insert("refused_record", bad_row)
    for bank, count in sorted(Counter(r.bank_code for r in taken).items()):
        key = GroupKey(file.batch_id, bank, Kind.SOCIAL_SECURITY_CARD)
        advise(writing, key, count, groups.get(key[1:], NOTHING))
    writing.reply = receipt_to_json(receipt)
    return writing, receipt


def kind_of(file: FactoryReturn) -> str:
    """As which kind the table `file_in` holds it."""
    return "correction" if file.corrects else "factory_return"


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
        reason = "this number came in an earlier file"
        refused.append(_refuse(record, again[0], Code.REPEATED_NUMBER, reason))
    return taken, _in_order(refused)


def _refuse(record: SealedRecord, field: str, code: str, reason: str) -> RefusedRecord:
    return RefusedRecord(
        record.record_number,
        record.order_id,
        field,
        code,
        reason,
        record.bank_code,
        record.carton_id,
        record.identification_code,
    )


def _in_order(refused: Iterable[RefusedRecord]) -> tuple[RefusedRecord, ...]:
    return tuple(sorted(refused, key=lambda r: r.record_number))


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
        writing.insert("number_index", {"kind": kind, "value": value, "order_id": record.order_id})


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
        "corrected_by": "",
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
        Event(EventType.NOTE_ACCEPTED, data={**delivery, "digest": note.digest, "cartons": cartons})
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
        key = GroupKey(note.batch_id, bank, Kind.TEMPORARY_CARD)
        advise(writing, key, count, groups.get(key[1:], NOTHING))
    count = len(note.cartons)
    file = {"file_id": note.delivery_id, "kind": "delivery_note", "batch_id": note.batch_id}
    writing.insert("file_in", {**file, "digest": note.digest, "records": count, "closed": 0})
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
    after = dict(groups)
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
        batch_id = str(carton["batch_id"])
        for number in range(1, counted + 1):
            body = Body(
                f"{carton_id}.{number:04d}",
                kind,
                bank,
                batch_id,
                carton_id,
                VAULT,
                destination=str(carton["destination"]),
            )
            group = after.get((bank, kind), NOTHING)
            after[bank, kind] = replace(group, counted=group.counted + 1)
            source = MISSING_COUNTED if group.counted < group.advised else SURPLUS_COUNTED
            writing.receive(body, Account(source, kind, bank))
            if issue:
                writing.change(body, EventType.BODY_ISSUED, place=ISSUED)
        if counted:
            before = groups.get((bank, kind), NOTHING)
            writing.settle(GroupKey(batch_id, bank, kind), before, after[bank, kind])
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
