"""Corrections of a factory return at the doors where the return itself comes in."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from counterparts.return_file import drop, file_bytes, record_line
from domain.codes import Code
from stubs.card_management_pb2 import FactoryReturnRecord
from tests.gateways.surroundings import BATCH, good_records, open_hall
from tests.gateways.test_card_management_door import file_of, send
from tests.gateways.test_inbox import opened


def test_a_correction_has_the_same_rules_at_both_doors(tmp_path: Path) -> None:
    """Refused records sent again: what is right by now is taken, what is still wrong refused, what
    was never refused corrects nothing; by gRPC and by a file with the same receipt."""
    sent = good_records(6)
    wrong = [FactoryReturnRecord.FromString(r.SerializeToString()) for r in sent[:5]]
    for r in wrong[:3]:
        r.bank_code = "999"
    again = [sent[0], wrong[1], sent[2], sent[5]]

    async def by_stream() -> list[Any]:
        async with open_hall(tmp_path / "stream", real_inventory=True) as (_, channel):
            raw = [r.SerializeToString() for r in wrong]
            assert (await send(channel, file_of(raw))).taken == 2
            raw = [r.SerializeToString() for r in again]
            receipt = await send(channel, file_of(raw, file_id="F2", corrects="F1"))
        refused = [(r.record_number, r.order_id, r.field, r.code) for r in receipt.refused]
        return [receipt.records, receipt.taken, refused]

    async def by_file() -> list[Any]:
        async with opened(tmp_path / "file") as box:
            drop(box.path, "F", file_bytes("F1", BATCH, map(record_line, wrong)))
            await box.inbox.look()
            lines = map(record_line, again)
            drop(box.path, "G", file_bytes("F2", BATCH, lines, corrects="F1"))
            await box.inbox.look()
            header, *refused, _ = box.result("G")
            orders = box.place.watching.one("select count(*) as n from orders")
            assert orders == {"n": 4}
        return [int(header[7]), int(header[8]), [(int(r[1]), *r[2:5]) for r in refused]]

    for name in ("stream", "file"):
        (tmp_path / name).mkdir()
    expected = [
        4, 2,
        [(2, sent[1].order_id, "bank_code", Code.UNKNOWN_BANK),
         (4, sent[5].order_id, "", Code.NOTHING_TO_CORRECT)],
    ]  # fmt: skip
    assert asyncio.run(by_stream()) == expected
    assert asyncio.run(by_file()) == expected
