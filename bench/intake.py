"""A delivery taken into a centre through its doors, as its counterparts and people do it."""

from __future__ import annotations

from collections import Counter

import grpc

from bench.chips import BenchError
from counterparts.factory import Delivery
from counterparts.submission import submit_delivery_note, submit_factory_return
from station_agents.virtual.tray_file import read_tray
from stubs.common_pb2 import Receipt
from stubs.operator_pb2 import CartonCount, SignForDeliveryRequest
from stubs.operator_pb2_grpc import OperatorStub

_SECONDS = 120.0


def take_in(door: str, delivery: Delivery) -> None:
    """Factory return, delivery note, blind count: all cartons stand at key replacement afterwards.
    Its temporary keys are in the token already. Raises BenchError if something is refused."""
    _accepted(
        submit_factory_return(door, delivery.factory_return, delivery.file_id, delivery.batch_id)
    )
    _accepted(submit_delivery_note(door, delivery.delivery_note))
    counted = Counter(
        plastic.carton_id
        for tray in delivery.trays
        for plastic in read_tray(tray)[0].cards.values()
    )
    counts = [CartonCount(carton_id=c, counted=n) for c, n in sorted(counted.items())]
    with grpc.insecure_channel(door) as channel:
        operator = OperatorStub(channel)
        signed = SignForDeliveryRequest(delivery_id=delivery.delivery_id, counts=counts)
        _accepted(operator.SignForDelivery(signed, timeout=_SECONDS))


def _accepted(receipt: Receipt) -> None:
    if not receipt.accepted:
        raise BenchError(f"the centre refused the bench's delivery: {receipt.code}")
