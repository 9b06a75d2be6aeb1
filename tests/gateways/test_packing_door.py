"""The packing table through the doors: numbers on faces become orders, what differs is said by
order and place, and no number is kept, logged or answered."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from centre.scan import scan_package
from counterparts.packer import Packer
from domain.bodies import Body
from domain.changes import Changes, Insert
from domain.codes import Code
from domain.factory_return import index_text
from stubs.common_pb2 import Receipt
from stubs.operator_pb2 import ClosePackageRequest, OpenPackagesRequest
from stubs.operator_pb2_grpc import OperatorStub
from tests.gateways.surroundings import Hall, good_records, index_of, open_hall

PACKAGE, OTHER = "B1-P0001", "B1-P0002"
BRANCH = "102-430102"
RECORDS = good_records(4)
NUMBERS = [r.social_card_number for r in RECORDS]
"""Cards 0 to 2 are in PACKAGE with a temporary one of carton T1; card 3 is in OTHER."""


@asynccontextmanager
async def table(directory: Path) -> AsyncIterator[tuple[Hall, grpc.aio.Channel]]:
    """Doors of a centre with two open packages."""
    async with open_hall(directory) as (hall, channel):
        ledger = hall.place.ledger
        inserts = [Insert(name, rows) for name, rows in _rows().items()]
        # Its lines are open: what they begin with is written before them, by another.
        ledger.commit(Changes("setting", "1", inserts=inserts), ledger.open_epoch("setting"))
        yield hall, channel


def _rows() -> dict[str, list[dict[str, Any]]]:
    bodies = [
        _body(f"C1.{n + 1:04d}", r.order_id, PACKAGE if n < 3 else OTHER)
        for n, r in enumerate(RECORDS)
    ]
    bodies.append(_body("T1.0001", "", PACKAGE, "temporary_card"))
    orders = [
        {"order_id": r.order_id, "batch_id": "B1", "bank": "102", "branch": BRANCH,
         "carton_id": "C1", "identification_code": r.identification_code, "has_temporary": 0}
        for r in RECORDS
    ]  # fmt: skip
    index = [
        {"kind": "social_card_number", "order_id": r.order_id,
         "value": index_of(index_text("social_card_number", r.social_card_number))}
        for r in RECORDS
    ]  # fmt: skip
    packages = [
        {"package_id": p, "batch_id": "B1", "bank": "102", "kind": "social_security_card",
         "destination": BRANCH, "has_temporary": 0, "state": "open"}
        for p in (PACKAGE, OTHER)
    ]  # fmt: skip
    return {"orders": orders, "number_index": index, "body": bodies, "package": packages}


def _body(
    body_id: str, order_id: str, package: str, kind: str = "social_security_card"
) -> dict[str, Any]:
    return Body(
        body_id, kind, "102", "B1", body_id[:2], "sorting/packing", order_id=order_id,
        identification_code=body_id, destination=BRANCH, package_id=package,
    ).row()  # fmt: skip


def test_a_scan_is_compared_and_no_number_stays(tmp_path: Path) -> None:
    """One call of the provider a package; differences by the place of the scan and by order id;
    the same again is `repeated`; neither log nor receipt holds a number."""

    async def run() -> None:
        async with table(tmp_path) as (hall, channel):
            centre = OperatorStub(channel)
            first = (await centre.ListOpenPackages(OpenPackagesRequest())).packages[0]
            assert (first.package_id, first.count, first.without_number) == (PACKAGE, 4, 1)
            assert list(first.carton_ids) == ["T1"]

            async def close(scans: Sequence[str], counted: int, package: str = PACKAGE) -> Receipt:
                request = ClosePackageRequest(
                    package_id=package, social_card_numbers=scans, counted_without_number=counted
                )
                return await centre.ClosePackage(request)

            with capture_logs([merge_contextvars]) as logs:
                scans = [NUMBERS[0], NUMBERS[3], NUMBERS[0], "no number", "9" * 5000]
                wrong = await close(scans, 0)
                assert hall.provider.calls == ["index"]
                assert (wrong.accepted, wrong.code) == (False, Code.PACKAGE_DIFFERS)
                assert [(r.record_number, r.order_id, r.code) for r in wrong.refused] == [
                    (2, RECORDS[3].order_id, Code.SCAN_FOREIGN),
                    (3, RECORDS[0].order_id, Code.SCAN_TWICE),
                    (4, "", Code.SCAN_FOREIGN),
                    (5, "", Code.SCAN_FOREIGN),
                    (0, RECORDS[1].order_id, Code.SCAN_MISSING),
                    (0, RECORDS[2].order_id, Code.SCAN_MISSING),
                    (0, "", Code.COUNT_DIFFERS),
                ]
                assert OTHER in wrong.refused[0].reason
                closed = await close(NUMBERS[:3], 1)
                assert (closed.accepted, closed.records) == (True, 4)
                assert (await close(NUMBERS[:3], 1)).repeated
                # A number that was scanned where the package's label belongs, and no label at all.
                label = await close([], 0, NUMBERS[1])
                assert label.code == Code.PACKAGE_UNKNOWN
                assert (await close([], 0, "NOPE")).code == Code.PACKAGE_UNKNOWN
                assert (await close([], 0, "")).code == Code.FIELD_MISSING
                assert (await close(["1"] * 1001, 0)).code == Code.FILE_TOO_LARGE
            counted = [e for e in logs if e["event"] == "package.counted"]
            assert [e["log_level"] for e in counted[:2]] == ["warning", "info"]
            assert counted[0]["package_id"] == PACKAGE
            said = repr(logs) + repr(wrong) + repr(closed) + repr(label)
            assert not any(number in said for number in NUMBERS)

    asyncio.run(run())


def test_a_hand_scanner_types_into_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One number a line, as it may be typed, until an empty line; the count is shown, no number."""

    async def run() -> None:
        async with table(tmp_path) as (hall, _):
            typed = "\n".join([NUMBERS[0], f" {NUMBERS[1]} ", NUMBERS[2], "", NUMBERS[3]])
            monkeypatch.setattr("sys.stdin", io.StringIO(typed))
            receipt = await asyncio.to_thread(scan_package, hall.address, PACKAGE, 1)
            assert (receipt.accepted, receipt.records) == (True, 4)
            monkeypatch.setattr("sys.stdin", io.StringIO(typed))
            again = await asyncio.to_thread(scan_package, hall.address, PACKAGE, 1)
            assert again.repeated

    asyncio.run(run())
    said = "".join(capsys.readouterr())
    assert "3/3" in said
    assert not any(number in said for number in NUMBERS)


def test_a_packer_works_by_the_list_and_the_stack(tmp_path: Path) -> None:
    """A package whose card is not on the stack stays open, is not scanned again as it is, and
    closes when the card comes. Nothing is scanned before its list is printed, nor while the centre
    does not answer; no card lies in two packages, also for a packer who comes back."""
    stack: list[dict[str, str]] = []
    lists = tmp_path / "lists"

    def put(number: str, carton: str = "C1") -> None:
        ticket = f"tray/{len(stack)}"
        stack.append({"face_number": number, "carton_id": carton, "ticket": ticket})

    def packer() -> Packer:
        return Packer(lists, tmp_path / "packer.jsonl", lambda _: {"cards": list(stack)})

    async def run() -> None:
        async with table(tmp_path) as (hall, _):

            async def pack(who: Packer) -> dict[str, tuple[bool, list[str]]]:
                answers = await asyncio.to_thread(lambda: list(who.pack(hall.address)))
                return {p: (r.accepted, [x.code for x in r.refused]) for p, r in answers}

            who = packer()
            for number in (NUMBERS[3], NUMBERS[0], NUMBERS[1]):
                put(number)
            put("", "T1")
            put("", "T2")
            assert await pack(who) == {}
            print_list(lists)
            assert await pack(who) == {
                PACKAGE: (False, [Code.SCAN_MISSING]),
                OTHER: (True, []),
            }
            assert await pack(who) == {}
            put(NUMBERS[2])
            assert await pack(packer()) == {PACKAGE: (True, [])}
            assert await pack(packer()) == {}
        assert list(packer().pack(hall.address)) == []

    asyncio.run(run())


def print_list(lists: Path) -> None:
    (lists / "B1").mkdir(parents=True)
    with (lists / "B1" / f"{BRANCH}-sorting.csv").open("w", encoding="utf-8-sig") as file:
        writer = csv.writer(file)
        writer.writerow(("包号", "序号", "社会保障卡号", "姓名", "制卡单号"))
        for n, number in enumerate(NUMBERS):
            writer.writerow((PACKAGE if n < 3 else OTHER, n, number, "张*", RECORDS[n].order_id))
        writer.writerow((PACKAGE, 4, "", "", ""))
