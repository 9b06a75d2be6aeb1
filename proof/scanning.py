"""Who stands at the packing table where no hand scanner is: in tests and benches."""

from __future__ import annotations

from actors.sorting import Sorting
from domain.lines import ClosePackage
from ledger.queries import Queries


async def scan_packages(sorting: Sorting, queries: Queries) -> int:
    """A person scans every open package and finds in it what its list says; how many.
    Raises ValueError if the line finds something else."""
    open_packages = queries.packages("p.state = 'open'")
    for package in open_packages:
        cards = queries.bodies("b.package_id = ?", package["package_id"])
        scanned = tuple(b.order_id for b in cards if b.order_id)
        command = ClosePackage(package["package_id"], scanned, len(cards) - len(scanned))
        if not (await sorting.close_package(command)).accepted:
            raise ValueError("a package is not what its list says")
    return len(open_packages)
