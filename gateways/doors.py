"""All doors on one port."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

import grpc
import structlog

from gateways.card_management import CardManagementDoor
from gateways.custody import CustodyDoor
from gateways.factory import FactoryDoor
from gateways.floor import Floor
from gateways.operator import OperatorDoor
from gateways.station import StationDoor
from stubs.card_management_pb2_grpc import add_CardManagementServicer_to_server
from stubs.custody_pb2_grpc import add_CustodyServicer_to_server
from stubs.factory_pb2_grpc import add_FactoryServicer_to_server
from stubs.operator_pb2_grpc import add_OperatorServicer_to_server
from stubs.station_pb2_grpc import add_StationServicer_to_server

log = structlog.get_logger()

LARGEST_MESSAGE = 8 * 1024 * 1024

_OPTIONS = (
    ("grpc.max_receive_message_length", LARGEST_MESSAGE),
    ("grpc.max_send_message_length", LARGEST_MESSAGE),
    # A second centre on the port fails instead of sharing it unseen.
    ("grpc.so_reuseport", 0),
)


class ListenRefused(ValueError):
    """The doors do not open on this address; the message says why."""


def check_loopback(listen: str) -> None:
    """Raises ListenRefused unless `listen` is a loopback address, a colon and a port."""
    host, colon, port = listen.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()) or int(port) > 65_535:
        raise ListenRefused(f"{listen}: expected ADDRESS:PORT, as in 127.0.0.1:7050")
    try:
        loopback = ipaddress.ip_address(host.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        raise ListenRefused(f"{host}: expected an address, as in 127.0.0.1, not a name") from None
    if not loopback:
        raise ListenRefused(
            f"{host} is reachable from other machines: without certificates the doors open on "
            "loopback only (127.0.0.1)"
        )


@dataclass(frozen=True)
class Doors:
    """Open doors. `address` is host:port with the real port."""

    server: grpc.aio.Server
    address: str
    stations: StationDoor

    async def stop(self, grace: float = 2.0) -> None:
        """Take nothing new, answer what is in hand within `grace` seconds, then close."""
        self.stations.end_streams()
        await self.server.stop(grace)
        await self.stations.stop()

    async def wait(self) -> None:
        """Until the doors were stopped."""
        await self.server.wait_for_termination()


async def serve(floor: Floor, listen: str) -> Doors:
    """Open all doors on `listen` (a loopback address and port; port 0: a free one).

    Raises ListenRefused (a ValueError) for an address that is not loopback, OSError if the port
    is taken.
    """
    check_loopback(listen)
    server = grpc.aio.server(options=_OPTIONS)
    stations = StationDoor(floor)
    add_CardManagementServicer_to_server(CardManagementDoor(floor), server)
    if floor.custody is not None:
        add_CustodyServicer_to_server(CustodyDoor(floor.custody, floor.provider.index), server)
    add_FactoryServicer_to_server(FactoryDoor(floor), server)
    add_OperatorServicer_to_server(OperatorDoor(floor, stations.waiting), server)
    add_StationServicer_to_server(stations, server)
    try:
        port = server.add_insecure_port(listen)
    except RuntimeError as e:
        raise OSError(f"cannot listen on {listen}") from e
    if not port:
        raise OSError(f"cannot listen on {listen}")
    stations.start()
    await server.start()
    address = f"{listen.rpartition(':')[0]}:{port}"
    log.info("doors.open", address=address)
    return Doors(server, address, stations)
