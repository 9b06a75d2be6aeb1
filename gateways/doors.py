"""All doors on one port."""

from __future__ import annotations

from dataclasses import dataclass

import grpc

from gateways.floor import Floor

LARGEST_MESSAGE = 8 * 1024 * 1024


@dataclass(frozen=True)
class Doors:
    """Open doors. `address` is host:port with the real port."""

    server: grpc.aio.Server
    address: str

    async def stop(self, grace: float = 2.0) -> None:
        """Take nothing new, answer what is in hand within `grace` seconds, then close."""
        raise NotImplementedError

    async def wait(self) -> None:
        """Until the doors were stopped."""
        raise NotImplementedError


async def serve(floor: Floor, listen: str) -> Doors:
    """Open all doors on `listen` (a loopback address and port; port 0: a free one).

    Raises ListenRefused (a ValueError) for an address that is not loopback, OSError if the port
    is taken.
    """
    raise NotImplementedError
