"""The person at the packing table of a demo: takes an open package's sorting list, finds its cards
on the good stack by the numbers on their faces, scans what is really there, closes the package.

A card without a number is found by its carton. What lies in which package is noted (tickets of the
feeder, no numbers), so that no card is counted in two packages, also after a restart.
"""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from domain.codes import Code
from stubs.common_pb2 import Receipt
from stubs.operator_pb2 import ClosePackageRequest, OpenPackage, OpenPackagesRequest
from stubs.operator_pb2_grpc import OperatorStub

ANSWER_SECONDS = 20.0

Card = Mapping[str, str]


@dataclass
class Packer:
    """`lists`: the centre's folder of lists; `notes`: what was packed, one JSON line a package, the
    last one counts; `ask_tray`: an operation of the tray's control."""

    lists: Path
    notes: Path
    ask_tray: Callable[[dict[str, Any]], dict[str, Any]]
    _packed: dict[str, list[str]] = field(default_factory=dict)
    """Tickets by package."""
    _answered: dict[str, list[str]] = field(default_factory=dict)
    """What lay in a package when the centre last refused to close it."""
    _aside: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """What the centre said does not belong into a package: it is laid back."""

    def __post_init__(self) -> None:
        if self.notes.exists():
            for line in self.notes.read_text("utf-8").splitlines():
                note = json.loads(line)
                self._packed[note["package"]] = note["tickets"]

    def pack(self, door: str) -> Iterator[tuple[str, Receipt]]:
        """Scan each open package whose list is printed, unless it would be what was refused
        before; the answers of the centre at `door` (HOST:PORT). While there are none nothing is
        done."""
        with grpc.insecure_channel(door) as channel:
            centre = OperatorStub(channel)
            try:
                waiting = centre.ListOpenPackages(OpenPackagesRequest(), timeout=ANSWER_SECONDS)
                if waiting.packages:
                    yield from self._pack(centre, list(waiting.packages))
            except grpc.RpcError:
                return  # it is asked again the next time

    def _pack(
        self, centre: OperatorStub, packages: list[OpenPackage]
    ) -> Iterator[tuple[str, Receipt]]:
        still_open = {p.package_id for p in packages}
        taken = {t for p, tickets in self._packed.items() if p not in still_open for t in tickets}
        stack = self.ask_tray({"op": "list", "stack": "good"})["cards"]
        free = {c["ticket"]: c for c in stack if c["ticket"] not in taken}
        listed = self._read_lists(packages)
        for package in packages:
            if package.count and package.package_id not in listed:
                continue  # its list is not printed yet
            aside = self._aside[package.package_id]
            here = [c for t, c in free.items() if t not in aside]
            cards = _find(package, listed.get(package.package_id, []), here)
            tickets = [c["ticket"] for c in cards]
            if self._answered.get(package.package_id) == tickets:
                continue
            self._note(package.package_id, tickets)
            for ticket in tickets:
                del free[ticket]
            numbers = [c["face_number"] for c in cards if c["face_number"]]
            request = ClosePackageRequest(
                package_id=package.package_id,
                social_card_numbers=numbers,
                counted_without_number=len(cards) - len(numbers),
            )
            receipt = centre.ClosePackage(request, timeout=ANSWER_SECONDS)
            self._answered[package.package_id] = tickets
            foreign = [r.record_number for r in receipt.refused if r.code == Code.SCAN_FOREIGN]
            aside |= {tickets[n - 1] for n in foreign}
            yield package.package_id, receipt

    def _read_lists(self, packages: list[OpenPackage]) -> dict[str, list[str]]:
        """The numbers (or blanks) on the sorting list of each package, in their order."""
        listed = defaultdict(list)
        for batch_id, destination in {(p.batch_id, p.destination) for p in packages}:
            path = self.lists / batch_id / f"{destination}-sorting.csv"
            if path.exists():
                with path.open(encoding="utf-8-sig", newline="") as file:
                    for package_id, _, number, *_ in csv.reader(file):
                        listed[package_id].append(number)
        return listed

    def _note(self, package_id: str, tickets: list[str]) -> None:
        self._packed[package_id] = tickets
        with self.notes.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"package": package_id, "tickets": tickets}) + "\n")


def _find(package: OpenPackage, numbers: list[str], free: list[Card]) -> list[Card]:
    """The cards of a package among those that lie `free`, those with a number first."""
    by_face = {c["face_number"]: c for c in free if c["face_number"]}
    cards = [by_face[n] for n in numbers if n in by_face]
    cartons = set(package.carton_ids)
    blank = [c for c in free if not c["face_number"] and c["carton_id"] in cartons]
    return cards + blank[: package.without_number]
