"""Delivery note, signing for a delivery, temporary keys: a bad one is refused whole with its
place, a good one reaches its line once and as it was sent."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from domain.codes import Code
from gateways.doors import ListenRefused, check_loopback
from stubs.factory_pb2 import CartonLine, DeliveryNote
from stubs.factory_pb2_grpc import FactoryStub
from stubs.operator_pb2 import (
    CartonCount,
    SignForDeliveryRequest,
)
from stubs.operator_pb2_grpc import OperatorStub
from tests.gateways.surroundings import open_hall


def social(**changed: Any) -> CartonLine:
    line = {
        "carton_id": "C1", "bank_code": "102", "kind": "social_security_card", "count": 250,
    }  # fmt: skip
    return CartonLine(**{**line, **changed})


def temporary(**changed: Any) -> CartonLine:
    line = {
        "carton_id": "C2", "bank_code": "102", "kind": "temporary_card", "count": 20,
        "destination": "430102",
    }  # fmt: skip
    return CartonLine(**{**line, **changed})


def note(*cartons: CartonLine, **changed: str) -> DeliveryNote:
    ids = {"delivery_id": "D1", "batch_id": "B1", "factory_id": "F1", **changed}
    return DeliveryNote(**ids, cartons=cartons or (social(), temporary()))


BAD_NOTES = [
    (note(delivery_id=""), Code.FIELD_MISSING, "delivery_id"),
    (note(batch_id="B 1"), Code.BAD_FORMAT, "batch_id"),
    (DeliveryNote(delivery_id="D1", batch_id="B1", factory_id="F1"), Code.FIELD_MISSING, "cartons"),
    (note(social(), social()), Code.REPEATED_NUMBER, "carton 2, carton_id"),
    (note(social(carton_id="")), Code.FIELD_MISSING, "carton 1, carton_id"),
    (note(social(carton_id="箱")), Code.BAD_FORMAT, "carton 1, carton_id"),
    (note(social(), temporary(bank_code="999")), Code.UNKNOWN_BANK, "carton 2, bank_code"),
    (note(social(kind="credit_card")), Code.BAD_FORMAT, "carton 1, kind"),
    (note(social(count=0)), Code.BAD_FORMAT, "carton 1, count"),
    (note(social(count=10_001)), Code.BAD_FORMAT, "carton 1, count"),
    (note(social(destination="430102")), Code.BAD_FORMAT, "carton 1, destination"),
    (note(temporary(destination="")), Code.FIELD_MISSING, "carton 1, destination"),
    (note(temporary(destination="430199")), Code.UNKNOWN_BRANCH, "carton 1, destination"),
]


def test_a_bad_note_is_refused_whole(tmp_path: Path) -> None:
    """With the place and the field at fault; the line hears nothing of it."""

    async def run() -> None:
        async with open_hall(tmp_path) as (hall, channel):
            for bad, code, place in BAD_NOTES:
                receipt = await FactoryStub(channel).SubmitDeliveryNote(bad, timeout=10)
                assert (receipt.accepted, receipt.code) == (False, code), place
                assert receipt.reason.startswith(f"{place}: ")
            assert hall.inventory.notes == []

    asyncio.run(run())


def test_a_note_is_taken_once(tmp_path: Path) -> None:
    """With the real line: temporary cards go to their division's window; the same again is
    repeated, another carton under the same id is refused."""

    async def run() -> None:
        async with open_hall(tmp_path, real_inventory=True) as (hall, channel):
            stub = FactoryStub(channel)
            first = await stub.SubmitDeliveryNote(note(), timeout=10)
            again = await stub.SubmitDeliveryNote(note(), timeout=10)
            other = await stub.SubmitDeliveryNote(note(social(count=249)), timeout=10)
            cartons = hall.place.queries.cartons_of_delivery("D1")
        assert (first.accepted, first.taken, first.repeated) == (True, 2, False)
        assert (again.accepted, again.repeated) == (True, True)
        assert (other.accepted, other.code) == (False, Code.ID_REUSED)
        assert [(c["carton_id"], c["noted"], c["destination"]) for c in cartons] == [
            ("C1", 250, ""),
            ("C2", 20, "window-430102"),
        ]

    asyncio.run(run())


def sign_for(*counts: tuple[str, int], **changed: str) -> SignForDeliveryRequest:
    ids = {"delivery_id": "D1", **changed}
    return SignForDeliveryRequest(
        **ids, counts=[CartonCount(carton_id=c, counted=n) for c, n in counts]
    )


def test_a_delivery_is_signed_for(tmp_path: Path) -> None:
    """Counts reach the line by carton; a carton counted twice, or an absurd count, does not."""

    async def run() -> None:
        async with open_hall(tmp_path) as (hall, channel):
            stub = OperatorStub(channel)
            good = await stub.SignForDelivery(sign_for(("C1", 249), ("C2", 0)), timeout=10)
            codes = [
                (await stub.SignForDelivery(bad, timeout=10)).code
                for bad in (
                    sign_for(("C1", 1), ("C1", 1)),
                    sign_for(("C1", 10_001)),
                    sign_for(("", 1)),
                    sign_for(("C1", 1), delivery_id=""),
                )
            ]
            (command,) = hall.inventory.signed
        assert good.accepted
        assert command.counts == {"C1": 249, "C2": 0}
        assert codes == [
            Code.REPEATED_NUMBER, Code.BAD_FORMAT, Code.BAD_FORMAT, Code.FIELD_MISSING,
        ]  # fmt: skip

    asyncio.run(run())


def test_a_carton_is_recounted(tmp_path: Path) -> None:
    """The new count reaches the line; an id that is none, or an absurd count, does not."""

    async def run() -> None:
        async with open_hall(tmp_path) as (hall, channel):
            stub = OperatorStub(channel)
            good = await stub.RecountCarton(CartonCount(carton_id="C1", counted=248), timeout=10)
            for bad in (CartonCount(counted=1), CartonCount(carton_id="C1", counted=10_001)):
                assert (await stub.RecountCarton(bad, timeout=10)).code == Code.BAD_FORMAT
            assert hall.inventory.recounted == [("C1", 248)]
        assert good.accepted

    asyncio.run(run())


@pytest.mark.parametrize(
    "listen",
    ["0.0.0.0:7050", "[::]:7050", "10.0.0.1:7050", "localhost:7050", "127.0.0.1", ":7050",
     "127.0.0.1:70000", "unix:/tmp/x"],
)  # fmt: skip
def test_doors_open_on_loopback_only(listen: str) -> None:
    """Without certificates nobody else may reach them; a name could mean any address."""
    with pytest.raises(ListenRefused):
        check_loopback(listen)


def test_loopback_is_loopback() -> None:
    """Both families."""
    check_loopback("127.0.0.1:0")
    check_loopback("[::1]:7050")


def test_a_taken_port_is_an_error(tmp_path: Path) -> None:
    """A second centre on the port fails instead of sharing it unseen."""

    async def run() -> None:
        (tmp_path / "a").mkdir()
        (tmp_path / "b").mkdir()
        async with open_hall(tmp_path / "a") as (hall, _):
            with pytest.raises(OSError, match="cannot listen"):
                async with open_hall(tmp_path / "b", listen=hall.address):
                    pass

    asyncio.run(run())
