"""What the door of the people of the floor does for those who pack: which packages are to be
scanned, and whose cards the scanned numbers are."""

from __future__ import annotations

import re

from domain.codes import Code
from domain.lines import ClosePackage, Receipt
from gateways.answers import refusal
from gateways.floor import Floor
from gateways.scans import orders_of_scans
from ledger.connection import as_json
from ledger.queries import Queries
from stubs.operator_pb2 import ClosePackageRequest, OpenPackage, OpenPackages

MOST_SCANS = 1_000
"""Of one package; far more than it holds. More are refused (FILE_TOO_LARGE)."""
_PACKAGE_ID = re.compile(r"[A-Za-z0-9_-]{1,40}-P\d{4,6}", re.ASCII)


def is_package_id(text: str) -> bool:
    """Whether `text` can name a package. No number of a person or card can: what does may be
    logged."""
    return _PACKAGE_ID.fullmatch(text) is not None


def open_packages(queries: Queries, package_id: str = "") -> OpenPackages:
    """The packages that are to be scanned, or this one if it is."""
    found = queries.packages("p.state = 'open' and ? in ('', p.package_id)", package_id)
    unnumbered: dict[str, list[tuple[str, int]]] = {}
    for r in queries.rows(
        "select package_id, carton_id, count(*) as n from body where order_id = ''"
        " and package_id <> '' and package_id in (select value from json_each(?))"
        " group by package_id, carton_id order by carton_id",
        as_json([p["package_id"] for p in found]),
    ):
        unnumbered.setdefault(r["package_id"], []).append((r["carton_id"], r["n"]))
    return OpenPackages(
        packages=[
            OpenPackage(
                package_id=p["package_id"],
                batch_id=p["batch_id"],
                destination=p["destination"],
                kind=p["kind"],
                has_temporary=bool(p["has_temporary"]),
                count=p["count"],
                without_number=sum(n for _, n in unnumbered.get(p["package_id"], ())),
                carton_ids=[carton for carton, _ in unnumbered.get(p["package_id"], ())],
            )
            for p in found
        ]
    )


async def close_package(floor: Floor, request: ClosePackageRequest) -> Receipt:
    """The numbers become orders here, all of a package in one call; the line sees no number."""
    numbers = list(request.social_card_numbers)
    if not is_package_id(request.package_id):
        code = Code.PACKAGE_UNKNOWN if request.package_id else Code.FIELD_MISSING
        return refusal(code, "package_id")
    if max(len(numbers), request.counted_without_number) > MOST_SCANS:
        return refusal(Code.FILE_TOO_LARGE, "social_card_numbers")
    orders = await orders_of_scans(floor, numbers)
    command = ClosePackage(request.package_id, orders, request.counted_without_number)
    return await floor.sorting.close_package(command)
