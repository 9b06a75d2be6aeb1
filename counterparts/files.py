"""Files of the counterparts: JSON lines, written whole or not at all; records to and from gRPC.

The JSON names of a record are the field names of its message.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from google.protobuf.message import Message

from counterparts.orders import Carton, Order
from stubs.card_management_pb2 import CentreReturnRecord, FactoryReturnRecord
from stubs.common_pb2 import Receipt
from stubs.factory_pb2 import CartonLine, DeliveryNote


def to_json(value: Any) -> str:
    """One line, text as it is."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def write_whole(path: Path, text: str) -> None:
    """Write `text` to `path` so that, whenever the process dies, there is the old file or none,
    or the new one, and after the return the new one is on disk."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    sync_directory(path.parent)


def key_letter(block: Mapping[str, Any]) -> str:
    """The letter that goes another way than a key block: usage and check value, a line each."""
    return "".join(f"{key['usage']} {key['check_value']}\n" for key in block["keys"])


def sync_directory(path: Path) -> None:
    """Make what was renamed in a directory durable."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    write_whole(path, "".join(f"{to_json(row)}\n" for row in rows))


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def message_row(message: Message) -> dict[str, Any]:
    """The scalar fields of a message by name, those with default values too."""
    return {f.name: getattr(message, f.name) for f in message.DESCRIPTOR.fields}


def order_row(order: Order) -> dict[str, Any]:
    """An order as a line of `factory_return.jsonl`."""
    person = order.person
    return {
        "order_id": order.order_id,
        "bank_code": order.bank_code,
        "branch_code": order.branch_code,
        "carton_id": order.carton_id,
        "identification_code": order.identification_code,
        "social_card_number": order.social_card_number,
        "bank_card_number": order.bank_card_number,
        "identity_number": person.identity_number,
        "name": person.name,
        "sex": person.sex,
        "nation": person.nation,
        "birth_place": person.birth_place,
        "birth_date": person.birth_date,
        "has_temporary_card": order.has_temporary_card,
    }


def factory_record(row: Mapping[str, Any]) -> FactoryReturnRecord:
    """A line of `factory_return.jsonl` as a message. ValueError for an unknown name."""
    return FactoryReturnRecord(**row)


def factory_row(record: FactoryReturnRecord) -> dict[str, Any]:
    """The inverse of `factory_record`."""
    return message_row(record)


def centre_record(row: Mapping[str, Any]) -> CentreReturnRecord:
    """A line of a centre return as a message. ValueError for an unknown name."""
    return CentreReturnRecord(**row)


def centre_row(record: CentreReturnRecord) -> dict[str, Any]:
    """The inverse of `centre_record`."""
    return {**message_row(record), "supersedes": list(record.supersedes)}


def note_row(
    delivery_id: str, batch_id: str, factory_id: str, cartons: Iterable[Carton]
) -> dict[str, Any]:
    """`delivery_note.json`."""
    return {
        "delivery_id": delivery_id,
        "batch_id": batch_id,
        "factory_id": factory_id,
        "cartons": [
            {
                "carton_id": c.carton_id,
                "bank_code": c.bank_code,
                "kind": c.kind,
                "count": c.count,
                "destination": c.destination,
            }
            for c in cartons
        ],
    }


def delivery_note(row: Mapping[str, Any]) -> DeliveryNote:
    """`delivery_note.json` as a message."""
    return DeliveryNote(**{**row, "cartons": [CartonLine(**line) for line in row["cartons"]]})


def receipt_row(receipt: Receipt) -> dict[str, Any]:
    """A receipt as it is kept: ids and codes, no value of a record."""
    return {**message_row(receipt), "refused": [message_row(r) for r in receipt.refused]}


def serialize(record: Message) -> bytes:
    return record.SerializeToString(deterministic=True)


def digest(records: Iterable[bytes]) -> bytes:
    """SHA-256 over every record, each preceded by its length as 4 bytes big endian."""
    h = hashlib.sha256()
    for record in records:
        h.update(len(record).to_bytes(4, "big"))
        h.update(record)
    return h.digest()
