"""What leaves: lists and the centre return come out of the ledger whole, and a return is sent
until card management has taken it, whatever fails in between."""

from __future__ import annotations

import asyncio
import csv
import hashlib
import json
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from actors.sorting import Sorting
from counterparts.received import serve as serve_card_management
from domain import lines
from domain.bodies import Body
from domain.changes import Away, Changes, Insert
from domain.factory_return import plaintext
from domain.lines import SortingLine
from gateways.card_management import record_from_wire
from gateways.outbox import Outbox, run_outbox
from stubs.card_management_pb2_grpc import (
    CentreReturnsServicer,
    add_CentreReturnsServicer_to_server,
)
from stubs.common_pb2 import Receipt
from tests.gateways.surroundings import (
    BATCH,
    LedgerDoor,
    Place,
    PlainProvider,
    good_records,
    until,
)

ORDERS = 620
RETURN = f"RETURN-{BATCH}-1"
BRANCH, WINDOW = "102-430102", "window-430103"
NAMES = ["阿依古丽·买买提", "𠮷田"]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A ledger in which a batch has left: orders shipped to a branch, one temporary card to a
    window, one chip of a refused record, one that nobody knows."""
    place = Place.make(tmp_path)
    LedgerDoor(place.ledger, "sorting")
    rows = _rows()
    place.ledger.commit(
        Changes("sorting", "setting", inserts=[Insert(t, r) for t, r in rows.items()]), 1
    )
    yield place
    place.close()


def _rows() -> dict[str, list[dict[str, Any]]]:
    raw = [r.SerializeToString() for r in good_records(ORDERS)]
    records = [r for r in map(record_from_wire, raw) if r is not None]
    personal, bodies, lines = [], [], []
    for n, r in enumerate(records):
        package = f"P{1 + n // 200}"
        plain = json.loads(plaintext(r)) | {"social_card_number": f"A{n:08d}"}
        if n < len(NAMES):
            plain["name"] = NAMES[n]
        sealed = f"{BATCH}|{r.order_id}|".encode() + json.dumps(plain).encode()
        personal.append(
            {
                "order_id": r.order_id, "batch_id": BATCH, "expires_on": "2026-04-01",
                "sealed": b64encode(sealed).decode(),
            }
        )  # fmt: skip
        bodies.append(_body(f"C1.{n + 1:04d}", r.order_id, BRANCH, package))
        lines.append(_line(r.order_id, "", "", "shipped", "", package))
    bodies.append(_body("T1.0001", "", WINDOW, "P9", "temporary_card"))
    lines += [
        _line("", "T1.0001", "temporary_card", "shipped", "", "P9"),
        # A refused record that repeated the order id of a good one.
        _line(records[0].order_id, "", "", "surplus", "REPEATED_NUMBER", ""),
        _line("", "C1.9999", "social_security_card", "surplus", "NOT_IN_RETURN", ""),
    ]
    for position, line in enumerate(lines, start=1):
        line |= {"file_id": RETURN, "position": position, "batch_id": BATCH}
        line |= {"revision": 0, "superseded_by": 0}
    return {
        "personal": personal,
        "body": bodies,
        "package": [
            *(_package(p, BRANCH, int(p == "P1")) for p in ("P1", "P2", "P3", "P4")),
            _package("P9", WINDOW, 0, "temporary_card"),
        ],
        "return_line": lines,
        "outbox": [
            {"id": RETURN, "kind": "centre_return", "batch_id": BATCH, "acknowledged": 0},
            {"id": f"LISTS-{BATCH}", "kind": "lists", "batch_id": BATCH, "acknowledged": 0},
        ],
    }


def _body(
    body_id: str, order_id: str, destination: str, package: str, kind: str = "social_security_card"
) -> dict[str, Any]:
    return Body(
        body_id, kind, "102", BATCH, body_id[:2], f"courier/{destination}",
        order_id=order_id, destination=destination, package_id=package,
        identification_code=f"code of {body_id}",
    ).row()  # fmt: skip


def _package(
    package: str, destination: str, temporary: int, kind: str = "social_security_card"
) -> dict[str, Any]:
    return {
        "package_id": package, "batch_id": BATCH, "bank": "102", "kind": kind,
        "destination": destination, "has_temporary": temporary, "state": "closed",
    }  # fmt: skip


def _line(
    order_id: str, body_id: str, kind: str, result: str, reason: str, package: str
) -> dict[str, Any]:
    return {
        "order_id": order_id, "body_id": body_id, "kind": kind, "bank": "102",
        "branch": BRANCH if order_id else "", "result": result, "reason": reason,
        "final": int(result == "shipped"), "package_id": package,
    }  # fmt: skip


class Acknowledging:
    """The real sorting line, which is away the first `away` times."""

    def __init__(self, place: Place, away: int = 0) -> None:
        self._sorting = Sorting(LedgerDoor(place.ledger, "sorting"), place.queries, "sorting:test")
        self.away = away

    async def step(self) -> bool:
        return False

    async def close_package(self, command: lines.ClosePackage) -> lines.Receipt:
        raise NotImplementedError

    async def command_orders(self, command: lines.OrdersCommand) -> lines.Receipt:
        raise NotImplementedError

    async def acknowledge(self, outbox_ids: Sequence[str]) -> None:
        if self.away:
            self.away -= 1
            raise Away("sorting loads")
        await self._sorting.acknowledge(outbox_ids)


@asynccontextmanager
async def dispatching(
    place: Place,
    sorting: SortingLine,
    address: str = "",
    provider: PlainProvider | None = None,
) -> AsyncIterator[asyncio.Event]:
    """The dispatcher at work; set the event to let it look at once."""
    look = asyncio.Event()
    task = asyncio.create_task(
        run_outbox(
            queries=place.queries,
            provider=provider or PlainProvider(),
            sorting=sorting,
            out=place.path.parent,
            card_management=address,
            look=look,
            idle_seconds=0.05,
        )
    )
    try:
        yield look
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def is_open(place: Place, outbox_id: str) -> bool:
    row = place.watching.one("select acknowledged from outbox where id = ?", outbox_id)
    return row is not None and not row["acknowledged"]


def read_return(place: Place) -> list[dict[str, Any]]:
    path = place.path.parent / "return" / f"{RETURN}.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_return_says_what_became_of_each(place: Place) -> None:
    """One line per order with its card number, one per body without order; the body of a refused
    record has its order id and no number, though another order has that id."""
    outbox = Outbox(place.queries, PlainProvider(), Acknowledging(place), place.path.parent, "")
    assert asyncio.run(outbox.dispatch())
    lines = read_return(place)
    records = good_records(ORDERS)
    assert len(lines) == ORDERS + 3
    assert lines[0] == {
        "line": 1, "supersedes": [],
        "order_id": records[0].order_id, "social_card_number": "A00000000", "result": "shipped",
        "reason": "", "final": True, "bank": "102", "branch": BRANCH, "package": "P1",
    }  # fmt: skip
    assert [line["order_id"] for line in lines[:ORDERS]] == [r.order_id for r in records]
    assert lines[-3] == {
        "line": ORDERS + 1, "supersedes": [],
        "body_id": "T1.0001", "kind": "temporary_card", "result": "shipped", "reason": "",
        "final": True, "bank": "102", "branch": "", "package": "P9",
    }  # fmt: skip
    assert lines[-2]["order_id"] == records[0].order_id
    assert (lines[-2]["social_card_number"], lines[-2]["result"]) == ("", "surplus")
    assert lines[-1]["body_id"] == "C1.9999"
    path = place.path.parent / "return" / f"{RETURN}.jsonl"
    assert path.stat().st_mode & 0o077 == 0
    assert is_open(place, RETURN)


def test_the_return_is_there_in_gb18030_too(place: Place) -> None:
    """The same lines in the same order, with words for people, and a trailer that proves that the
    file is whole. Written again, it is the same."""
    outbox = Outbox(place.queries, PlainProvider(), Acknowledging(place), place.path.parent, "")
    assert asyncio.run(outbox.dispatch())
    path = place.path.parent / "return" / f"{RETURN}.txt"
    data = path.read_bytes()
    *raw, last = data.splitlines(keepends=True)
    header, *records = [line.decode("gb18030").rstrip("\n").split("|") for line in raw]
    assert header == ["H", "CENTRE-RETURN-2", RETURN, BATCH, "0"]
    names = ("order_id", "social_card_number", "result", "reason", "bank", "branch", "package")
    places = (1, 2, 3, 4, 6, 7, 8)
    lines = read_return(place)
    assert [[r[n] for n in places] for r in records] == [
        [line.get(name, "") for name in names] for line in lines
    ]
    assert [r[5] == "1" for r in records] == [line["final"] for line in lines]
    assert records[-3][9:11] == ["T1.0001", "temporary_card"]
    assert records[-1][11:] == ["多卡：识别码不在回盘", str(ORDERS + 3), ""]
    digest = hashlib.sha256(b"".join(raw)).hexdigest()
    assert last.decode() == f"T|{len(lines)}|{digest}\n"
    assert path.stat().st_mode & 0o077 == 0
    again = Outbox(place.queries, PlainProvider(), Acknowledging(place), place.path.parent, "")
    assert asyncio.run(again.dispatch())
    assert path.read_bytes() == data


def read_table(path: Path) -> list[list[str]]:
    assert path.read_bytes().startswith(b"\xef\xbb\xbf")
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.reader(file))


def test_lists_say_where_each_card_lies(place: Place) -> None:
    """Per destination: a place in a package for each card, names masked (a rare first character
    whole), headers Chinese first, and the packages with their counts. Then they are settled."""
    provider = PlainProvider()
    outbox = Outbox(place.queries, provider, Acknowledging(place), place.path.parent, "")
    assert asyncio.run(outbox.dispatch())
    lists = place.path.parent / "lists" / BATCH
    assert sorted(p.name for p in lists.iterdir()) == [
        f"{destination}-{name}"
        for destination in (BRANCH, WINDOW)
        for name in ("packing.csv", "packing.pdf", "sorting.csv", "sorting.pdf")
    ]  # fmt: skip
    header, *rows = read_table(lists / f"{BRANCH}-sorting.csv")
    assert header[0].startswith("包号")
    records = good_records(ORDERS)
    assert rows[0] == ["P1", "1", "A00000000", "阿*", records[0].order_id]
    assert rows[1] == ["P1", "2", "A00000001", "𠮷*", records[1].order_id]
    assert rows[200][:3] == ["P2", "1", "A00000200"]
    assert len(rows) == ORDERS
    assert read_table(lists / f"{WINDOW}-sorting.csv")[1:] == [["P9", "1", "", "", ""]]
    packing = read_table(lists / f"{BRANCH}-packing.csv")[1:]
    assert [row[:2] for row in packing] == [["P1", "200"], ["P2", "200"], ["P3", "200"],
                                            ["P4", "20"]]  # fmt: skip
    assert [("临时卡" in row[2]) for row in packing] == [True, False, False, False]
    assert not is_open(place, f"LISTS-{BATCH}")
    assert 0 < provider.largest_call <= 64 * 1024


def test_a_record_that_does_not_open_holds_up_no_other(place: Place) -> None:
    """Its number is missing in the return, the log names the order, the rest is there."""
    provider = PlainProvider()
    records = good_records(ORDERS)
    provider.unsealable = {records[3].order_id}
    outbox = Outbox(place.queries, provider, Acknowledging(place), place.path.parent, "")
    with capture_logs([merge_contextvars]) as logs:
        assert asyncio.run(outbox.dispatch())
    numbers = [line["social_card_number"] for line in read_return(place)[:ORDERS]]
    assert [n for n, number in enumerate(numbers) if not number] == [3]
    assert {e["order_id"] for e in logs if e["event"] == "record.unsealable"} == {
        records[3].order_id
    }


def test_a_return_is_sent_until_it_is_taken(
    place: Place, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    """Nobody listens at first, which the log shows; then card management takes it, once."""

    async def run() -> None:
        address = f"127.0.0.1:{free_port()}"
        with capture_logs([merge_contextvars]) as logs:
            async with dispatching(place, Acknowledging(place), address):
                await until(lambda: sum(e["event"] == "outbox.waiting" for e in logs) >= 2)
                assert is_open(place, RETURN)
                with serve_card_management(address, tmp_path):
                    await until(lambda: not is_open(place, RETURN))
        waiting = [e for e in logs if e["event"] == "outbox.waiting"]
        assert {(e["outbox_id"], e["reason"]) for e in waiting} == {(RETURN, "UNAVAILABLE")}
        received = (tmp_path / "received" / f"{RETURN}.jsonl").read_text(encoding="utf-8")
        taken = [json.loads(line) for line in received.splitlines()]
        assert [(t["order_id"], t["body_id"], t["result"]) for t in taken] == [
            (line.get("order_id", ""), line.get("body_id", ""), line["result"])
            for line in read_return(place)
        ]
        assert (taken[0]["package_id"], taken[0]["branch_code"]) == ("P1", BRANCH)

    asyncio.run(run())


def test_a_crash_before_the_acknowledgement_sends_it_again(place: Place, tmp_path: Path) -> None:
    """Card management has it, the line does not know: written and sent again by a dispatcher that
    remembers nothing, the file is the same and the receiver answers `repeated`."""

    async def run() -> None:
        out = place.path.parent
        sorting = Acknowledging(place, away=2)
        with serve_card_management("127.0.0.1:0", tmp_path) as serving:
            first = Outbox(place.queries, PlainProvider(), sorting, out, serving.address)
            assert not await first.dispatch()
            assert is_open(place, RETURN)
            assert (tmp_path / "received" / f"{RETURN}.jsonl").exists()
            with capture_logs([merge_contextvars]) as logs:
                again = Outbox(place.queries, PlainProvider(), sorting, out, serving.address)
                assert await again.dispatch()
        assert not is_open(place, RETURN)
        assert [e["repeated"] for e in logs if e["event"] == "outbox.acknowledged"] == [True]

    asyncio.run(run())


class Unwilling(CentreReturnsServicer):
    """Refuses every file."""

    async def SubmitCentreReturn(self, request_iterator: Any, context: Any) -> Receipt:
        async for _ in request_iterator:
            continue
        return Receipt(accepted=False, code="DIGEST_DIFFERS")


def test_a_refused_return_stays_and_holds_up_no_list(place: Place) -> None:
    """A receipt that does not accept acknowledges nothing, and the log says its code."""

    async def run() -> None:
        server = grpc.aio.server()
        add_CentreReturnsServicer_to_server(Unwilling(), server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        with capture_logs([merge_contextvars]) as logs:
            async with dispatching(place, Acknowledging(place), f"127.0.0.1:{port}"):
                await until(lambda: sum(e["event"] == "outbox.waiting" for e in logs) >= 2)
                assert is_open(place, RETURN)
                assert not is_open(place, f"LISTS-{BATCH}")
        await server.stop(0)
        reasons = {e["reason"] for e in logs if e["event"] == "outbox.waiting"}
        assert reasons == {"DIGEST_DIFFERS"}

    asyncio.run(run())


def test_no_log_line_holds_a_person(place: Place) -> None:
    """Neither when all goes well nor when the provider fails with a text of its own."""

    async def run() -> None:
        provider = PlainProvider()
        provider.fault = ValueError("阿依古丽 A00000000")
        with capture_logs([merge_contextvars]) as logs:
            async with dispatching(place, Acknowledging(place), "", provider) as look:
                await until(lambda: any(e["event"] == "outbox.waiting" for e in logs))
                provider.fault = None
                look.set()
                await until(lambda: not is_open(place, f"LISTS-{BATCH}"))
        text = repr(logs)
        assert "阿依古丽" not in text
        assert "A00000" not in text

    asyncio.run(run())
