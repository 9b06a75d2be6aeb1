"""Who stands at the packing table in tests without plastic."""

from __future__ import annotations

from actors.sorting import Sorting
from domain.lines import ClosePackage
from ledger.queries import Queries


async def scan_packages(sorting: Sorting, queries: Queries) -> int:
    """A person scans every open package and finds in it what its list says; how many."""
    open_packages = queries.packages("p.state = 'open'")
    for package in open_packages:
        cards = queries.bodies("b.package_id = ?", package["package_id"])
        scanned = tuple(b.order_id for b in cards if b.order_id)
        command = ClosePackage(package["package_id"], scanned, len(cards) - len(scanned))
        assert (await sorting.close_package(command)).accepted
    return len(open_packages)
