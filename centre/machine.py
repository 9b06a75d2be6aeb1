"""What this machine says of itself: which processes listen where, and whether its clock is set."""

from __future__ import annotations

import ctypes
import ipaddress
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
_LISTENING = "0A"
_TIME_ERROR = 5
_TIMEX_BYTES = 512


@dataclass(frozen=True, order=True)
class Port:
    """A TCP port on which a process listens. `exposed`: machines beside this one reach it."""

    process: str
    address: str
    port: int

    @property
    def exposed(self) -> bool:
        address = ipaddress.ip_address(self.address)
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        return not (mapped or address).is_loopback


def descendants(pid: int) -> list[int]:
    """`pid` and every process below it."""
    children: dict[int, list[int]] = {}
    for stat in PROC.glob("[0-9]*/stat"):
        try:
            # The name stands in brackets and may hold anything, brackets as well.
            parent = int(stat.read_text("utf-8", "replace").rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            continue
        children.setdefault(parent, []).append(int(stat.parent.name))
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found


def named(name: str) -> list[int]:
    """Processes that were started from a program of this name."""
    found = []
    for comm in PROC.glob("[0-9]*/comm"):
        try:
            if comm.read_text("utf-8", "replace").strip() == name:
                found.append(int(comm.parent.name))
        except OSError:
            continue
    return found


def ports(pids: list[int]) -> list[Port]:
    """Where these processes listen, as far as this user may see."""
    found = set()
    for pid in pids:
        try:
            # A process may have a network of its own: its table, not ours.
            listening = dict(_listening(PROC / str(pid) / "net"))
            process = (PROC / str(pid) / "comm").read_text("utf-8", "replace").strip()
            held = set(_held(PROC / str(pid) / "fd"))
        except OSError:
            continue
        found |= {Port(process, *listening[s]) for s in held & listening.keys()}
    return sorted(found)


def _held(descriptors: Path) -> Iterator[str]:
    """What the open descriptors of a process are; they come and go while this looks."""
    for descriptor in descriptors.iterdir():
        with suppress(OSError):
            yield str(descriptor.readlink())


def _listening(net: Path) -> Iterator[tuple[str, tuple[str, int]]]:
    """`socket:[inode]` and the address and port of each listening TCP socket."""
    for table in ("tcp", "tcp6"):
        for line in (net / table).read_text("ascii").splitlines()[1:]:
            fields = line.split()
            host, _, port = fields[1].partition(":")
            if fields[3] == _LISTENING:
                yield f"socket:[{fields[9]}]", (_address(host), int(port, 16))


def _address(hexadecimal: str) -> str:
    """The kernel writes an address as words of 32 bits in its own byte order."""
    raw = bytes.fromhex(hexadecimal)
    words = struct.unpack(f"={len(raw) // 4}I", raw)
    family = socket.AF_INET if len(raw) == 4 else socket.AF_INET6
    return socket.inet_ntop(family, struct.pack(f">{len(words)}I", *words))


def clock_is_set() -> bool | None:
    """Whether something (NTP, PTP) keeps the clock; None if the kernel does not say."""
    timex = ctypes.create_string_buffer(_TIMEX_BYTES)  # zero: nothing is to be changed
    state = ctypes.CDLL(None).adjtimex(timex)
    return None if state < 0 else state != _TIME_ERROR
