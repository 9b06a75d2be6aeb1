"""Card management against real gRPC servers: what it sends is whole and digested as the contract
says, it waits for a centre that is away, and it keeps each centre return once."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, Thread
from typing import Any

import grpc
import pytest
from Crypto.PublicKey import RSA

from counterparts import files
from counterparts.card_management import hand_in, hand_in_commands
from counterparts.factory import Delivery, make_delivery
from counterparts.received import serve
from counterparts.submission import (
    Tampering,
    persist,
    submit_delivery_note,
    submit_factory_return,
)
from domain.codes import Code
from stubs.card_management_pb2 import (
    CentreReturnPart,
    CentreReturnRecord,
    FactoryReturnPart,
    FactoryReturnRecord,
    FileHeader,
    FileTrailer,
    OrdersCommand,
    RecordChunk,
)
from stubs.card_management_pb2_grpc import (
    CardManagementServicer,
    CentreReturnsStub,
    add_CardManagementServicer_to_server,
)
from stubs.common_pb2 import Receipt
from stubs.factory_pb2 import DeliveryNote
from stubs.factory_pb2_grpc import FactoryServicer, add_FactoryServicer_to_server

ROOT = Path(__file__).parents[2]
PEM = RSA.generate(2048).public_key().export_key()


class Door(CardManagementServicer, FactoryServicer):
    """A centre's door that keeps what came, and may be busy at first."""

    def __init__(self, busy: int = 0) -> None:
        self.busy = busy
        self.parts: list[FactoryReturnPart] = []
        self.notes: list[DeliveryNote] = []
        self.commands: list[tuple[str, OrdersCommand]] = []

    def SubmitFactoryReturn(
        self, request_iterator: Iterator[FactoryReturnPart], context: grpc.ServicerContext
    ) -> Receipt:
        if self.busy:
            self.busy -= 1
            context.set_trailing_metadata((("grpc-retry-pushback-ms", "10"),))
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "busy")
        self.parts = list(request_iterator)
        return Receipt(accepted=True, code="OK", records=len(self.records))

    def SubmitDeliveryNote(self, request: DeliveryNote, context: grpc.ServicerContext) -> Receipt:
        self.notes.append(request)
        return Receipt(accepted=True, code="OK")

    def CancelOrders(self, request: OrdersCommand, context: grpc.ServicerContext) -> Receipt:
        return self._command("cancel", request)

    def HoldOrders(self, request: OrdersCommand, context: grpc.ServicerContext) -> Receipt:
        return self._command("hold", request)

    def ReleaseOrders(self, request: OrdersCommand, context: grpc.ServicerContext) -> Receipt:
        return self._command("release", request)

    def _command(self, act: str, request: OrdersCommand) -> Receipt:
        self.commands.append((act, request))
        return Receipt(accepted=True, code="OK", taken=len(request.order_ids))

    @property
    def records(self) -> list[bytes]:
        return [r for p in self.parts for r in p.chunk.records]

    @property
    def trailer(self) -> FileTrailer:
        return self.parts[-1].trailer


def start(door: Door, address: str = "127.0.0.1:0") -> tuple[grpc.Server, str]:
    server = grpc.server(ThreadPoolExecutor(2))
    add_CardManagementServicer_to_server(door, server)
    add_FactoryServicer_to_server(door, server)
    port = server.add_insecure_port(address)
    server.start()
    return server, f"127.0.0.1:{port}"


@pytest.fixture
def door() -> Iterator[tuple[Door, str]]:
    servicer = Door()
    server, address = start(servicer)
    yield servicer, address
    server.stop(0).wait()


@pytest.fixture(scope="module")
def delivery(tmp_path_factory: pytest.TempPathFactory) -> Delivery:
    """1,101 records: one stands twice."""
    return make_delivery(7, 1100, tmp_path_factory.mktemp("home"), PEM)


def submit(delivery: Delivery, address: str, tampering: Tampering | None = None) -> Receipt:
    return submit_factory_return(
        address,
        delivery.factory_return,
        delivery.file_id,
        delivery.batch_id,
        tampering=tampering,
    )


def test_factory_return_is_whole(delivery: Delivery, door: tuple[Door, str]) -> None:
    """Header, chunks of 500, trailer; the records say what the file says; the digest is SHA-256
    over records that are each preceded by their length."""
    seen, address = door
    assert submit(delivery, address).records == 1101
    kinds = [p.WhichOneof("part") for p in seen.parts]
    assert kinds == ["header", "chunk", "chunk", "chunk", "trailer"]
    assert [len(p.chunk.records) for p in seen.parts[1:4]] == [500, 500, 101]
    assert seen.parts[0].header.file_id == delivery.file_id
    assert seen.parts[0].header.batch_id == delivery.batch_id
    rows = [files.factory_row(FactoryReturnRecord.FromString(r)) for r in seen.records]
    assert rows == list(files.read_lines(delivery.factory_return))
    framed = b"".join(len(r).to_bytes(4, "big") + r for r in seen.records)
    assert seen.trailer.digest == hashlib.sha256(framed).digest()
    assert seen.trailer.count == 1101


def test_tampering(delivery: Delivery, door: tuple[Door, str]) -> None:
    """Each hook spoils what it names and nothing else: count, digest, trailer, content under a
    right digest, content that the digest does not fit."""
    seen, address = door
    submit(delivery, address)
    sound, trailer = seen.records, seen.trailer

    def shorter(records: list[bytes]) -> list[bytes]:
        return records[:-1]

    def swapped(records: list[bytes]) -> list[bytes]:
        return [records[1], records[0], *records[2:]]

    submit(delivery, address, Tampering(count=7))
    assert (seen.trailer.count, seen.trailer.digest) == (7, trailer.digest)
    submit(delivery, address, Tampering(digest=b"x" * 32))
    assert (seen.trailer.count, seen.trailer.digest) == (1101, b"x" * 32)
    assert seen.records == sound
    submit(delivery, address, Tampering(trailer=False))
    assert seen.parts[-1].WhichOneof("part") == "chunk"
    assert seen.records == sound
    submit(delivery, address, Tampering(alter=shorter))
    assert (seen.trailer.count, seen.trailer.digest) == (1100, files.digest(sound[:-1]))
    submit(delivery, address, Tampering(corrupt=swapped))
    assert seen.trailer == trailer
    assert seen.records == swapped(sound)


def test_delivery_note(delivery: Delivery, door: tuple[Door, str]) -> None:
    """The note arrives as it stands in the file."""
    seen, address = door
    assert submit_delivery_note(address, delivery.delivery_note).accepted
    row = json.loads(delivery.delivery_note.read_text())
    assert seen.notes == [files.delivery_note(row)]
    assert [c.carton_id for c in seen.notes[0].cartons] == [c["carton_id"] for c in row["cartons"]]


def test_what_lies_on_the_desk_is_handed_in_once(
    delivery: Delivery, door: tuple[Door, str], tmp_path: Path
) -> None:
    """Commands of a clerk reach the call of their act as they stand; what was answered is kept
    and not sent again."""
    seen, address = door
    stops = json.loads((delivery.sent / "stops.json").read_text())
    desk = tmp_path / "desk"
    desk.mkdir()
    (desk / "stops.json").write_text(json.dumps([*stops, {**stops[0], "act": "release"}]))
    for _ in range(2):
        hand_in_commands(tmp_path, address, Event())
    assert [(act, list(c.order_ids)) for act, c in seen.commands] == [
        ("cancel", stops[0]["order_ids"]),
        ("hold", stops[1]["order_ids"]),
        ("release", stops[0]["order_ids"]),
    ]
    kept = json.loads((tmp_path / "receipt-stops.json").read_text())
    assert [k["receipt"]["taken"] for k in kept] == [2, 1, 2]


def test_busy_and_absent_centre(tmp_path: Path) -> None:
    """A centre that is away, then busy, gets the file when it is there; the receipt is kept, and
    once it is accepted nothing is sent again. A stop ends the waiting."""
    made = make_delivery(1, 60, tmp_path / "home", PEM)
    server, address = start(Door())
    server.stop(0).wait()  # the port is free again, and nobody is there
    stop, seen, later = Event(), Door(busy=2), []
    pauses: list[tuple[str, float]] = []

    def on_pause(code: grpc.StatusCode, seconds: float) -> None:
        pauses.append((code.name, seconds))
        if len(pauses) == 2:
            later.append(start(seen, address)[0])

    receipt = persist(lambda: submit(made, address), stop, on_pause)
    assert receipt is not None
    assert receipt.accepted
    assert [name for name, _ in pauses][-2:] == ["RESOURCE_EXHAUSTED"] * 2
    assert pauses[0][0] == "UNAVAILABLE"
    assert [s for _, s in pauses] == sorted(s for _, s in pauses)
    assert hand_in(made.sent, address, stop) is not None
    kept = json.loads((made.sent / "receipt-factory-return.json").read_text())
    assert (kept["accepted"], kept["records"], kept["refused"]) == (True, 61, [])
    later[0].stop(0).wait()
    assert hand_in(made.sent, address, stop) is None
    (made.sent / "receipt-factory-return.json").unlink()
    waiting = Thread(target=hand_in, args=(made.sent, address, stop))
    waiting.start()
    stop.set()
    waiting.join(10)
    assert not waiting.is_alive()
    assert not (made.sent / "receipt-factory-return.json").exists()


def returned(count: int) -> list[bytes]:
    return [
        files.serialize(
            CentreReturnRecord(order_id=f"o{n}", result="shipped", final=True, line=n + 1)
        )
        for n in range(count)
    ]


def parts(file_id: str, records: list[bytes], **trailer: Any) -> list[CentreReturnPart]:
    whole = {"count": len(records), "digest": files.digest(records), **trailer}
    return [
        CentreReturnPart(header=FileHeader(file_id=file_id, batch_id="b")),
        *(CentreReturnPart(chunk=RecordChunk(records=records[n : n + 2]))
          for n in range(0, len(records), 2)),
        CentreReturnPart(trailer=FileTrailer(**whole)),
    ]  # fmt: skip


@pytest.fixture
def returns(tmp_path: Path) -> Iterator[tuple[CentreReturnsStub, Path]]:
    with serve("127.0.0.1:0", tmp_path) as serving, grpc.insecure_channel(serving.address) as c:
        yield CentreReturnsStub(c), tmp_path / "received"


def test_centre_return_is_kept_once(returns: tuple[CentreReturnsStub, Path]) -> None:
    """A return is on file when it is acknowledged; the same again says `repeated` and changes
    nothing; other content under its id is refused and changes nothing."""
    stub, directory = returns
    first = stub.SubmitCentreReturn(iter(parts("r1", returned(5))))
    assert (first.accepted, first.code, first.taken, first.repeated) == (True, "OK", 5, False)
    rows = list(files.read_lines(directory / "r1.jsonl"))
    assert [files.serialize(files.centre_record(row)) for row in rows] == returned(5)
    before = (directory / "r1.jsonl").stat().st_mtime_ns
    again = stub.SubmitCentreReturn(iter(parts("r1", returned(5))))
    assert (again.accepted, again.repeated) == (True, True)
    other = stub.SubmitCentreReturn(iter(parts("r1", returned(4))))
    assert (other.accepted, other.code) == (False, "ID_REUSED")
    assert (directory / "r1.jsonl").stat().st_mtime_ns == before
    assert [p.name for p in directory.iterdir()] == ["r1.jsonl"]


def test_centre_return_that_is_not_whole(returns: tuple[CentreReturnsStub, Path]) -> None:
    """Wrong count, wrong digest, missing trailer, parts out of place, unreadable records, an id
    that is a path: each is refused with its code, and nothing is kept."""
    stub, directory = returns
    good = parts("r2", returned(3))
    cases = [
        (parts("r2", returned(3), count=4), "COUNT_DIFFERS"),
        (parts("r2", returned(3), digest=b""), "DIGEST_DIFFERS"),
        (good[:-1], "TRAILER_MISSING"),
        ([], "TRAILER_MISSING"),
        (good[1:], "MALFORMED"),
        ([good[0], *good], "MALFORMED"),
        ([*good, good[1]], "MALFORMED"),
        (parts("r2", [b"\xff"]), "MALFORMED"),
        (parts("../r2", returned(3)), "BAD_FORMAT"),
    ]
    for stream, code in cases:
        answer = stub.SubmitCentreReturn(iter(stream))
        assert (answer.accepted, answer.code) == (False, code)
    assert list(directory.iterdir()) == []


def revision(number: int, *records: CentreReturnRecord) -> list[CentreReturnPart]:
    whole = [files.serialize(r) for r in records]
    header = FileHeader(file_id=f"b-{number + 1}", batch_id="b", revision=number)
    return [CentreReturnPart(header=header), *parts("unused", whole)[1:]]


def line(number: int, *supersedes: int, final: bool = True) -> CentreReturnRecord:
    result = "shipped" if final else "held"
    return CentreReturnRecord(
        order_id=f"o{number}", result=result, final=final, line=number, supersedes=supersedes
    )


def test_revisions_come_in_their_order_and_change_nothing_final(tmp_path: Path) -> None:
    """A revision before the one that precedes it is refused, and one whose lines do not count on,
    or supersede a final line, one twice or none at all; what was taken is answered the same by
    another process of card management too."""
    first = revision(0, line(1), line(2, final=False), line(3, final=False))
    second = revision(1, line(4, 2))
    bad = [
        (revision(1, line(5, 2)), Code.REVISION_ORDER),
        (revision(2, line(4, 2)), Code.REVISION_ORDER),
        (revision(1, line(4, 1)), Code.RETURN_FINAL),
        (revision(1, line(4, 9)), Code.RETURN_FINAL),
        (revision(1, line(4, 2), line(5, 2)), Code.RETURN_FINAL),
    ]

    def ask(stream: list[CentreReturnPart]) -> tuple[str, bool]:
        with serve("127.0.0.1:0", tmp_path) as s, grpc.insecure_channel(s.address) as channel:
            receipt = CentreReturnsStub(channel).SubmitCentreReturn(iter(stream))
            return receipt.code, receipt.repeated

    assert ask(second) == (Code.REVISION_ORDER, False)
    assert ask(first) == (Code.OK, False)
    for stream, code in bad:
        assert ask(stream) == (code, False)
    assert [ask(second), ask(second), ask(first)] == [
        (Code.OK, False), (Code.OK, True), (Code.OK, True),
    ]  # fmt: skip
    assert ask(revision(2, line(5, 2))) == (Code.RETURN_FINAL, False)
    assert ask(revision(2, line(5, 3, 3))) == (Code.RETURN_FINAL, False)


def test_port_that_is_taken(tmp_path: Path) -> None:
    """A second server on the same port fails; it never shares it."""
    with serve("127.0.0.1:0", tmp_path) as serving, pytest.raises(OSError):
        serve(serving.address, tmp_path)


def test_process(tmp_path: Path, door: tuple[Door, str]) -> None:
    """The process hands the return in, takes a centre return at the port that it names, and ends
    on SIGTERM; neither names nor numbers stand in what it prints."""
    made = make_delivery(1, 60, tmp_path / "home", PEM)
    _, address = door
    command = [sys.executable, "-m", "counterparts.card_management", "--home-dir", str(made.sent)]
    process = subprocess.Popen(
        [*command, "--door", address, "--listen", "127.0.0.1:0"],
        cwd=ROOT,
        env={**os.environ, "NO_COLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    try:
        output = ""
        while "factory_return_answered" not in output:
            line = process.stdout.readline()
            assert line, "the process ended early"
            output += line
        listening = output.split("address=")[1].split()[0]
        with grpc.insecure_channel(listening) as channel:
            stub = CentreReturnsStub(channel)
            assert stub.SubmitCentreReturn(iter(parts("r3", returned(1)))).accepted
        process.send_signal(signal.SIGTERM)
        output += process.stdout.read()
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert (made.sent / "received" / "r3.jsonl").exists()
    for row in files.read_lines(made.factory_return):
        for field in ("name", "identity_number", "bank_card_number", "social_card_number"):
            assert row[field] not in output
