"""What a key provider asks of the ledger about cartons and chips."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from domain.changes import EventType
from domain.provider import KeyStanding
from ledger.connection import as_json
from ledger.queries import Queries


class LedgerChipRecords:
    """`ChipRecords` of a provider. Connected at the first question, in the provider's process."""

    def __init__(self, ledger: str | Path) -> None:
        self._ledger = ledger
        self._queries: Queries | None = None

    def close(self) -> None:
        """Give the connection back; the next question opens another."""
        if self._queries is not None:
            self._queries.close()
            self._queries = None

    def carton_quota(self, carton_id: str) -> int:
        """For how many chips a carton may draw keys: as many as it has bodies."""
        return self._open().carton_quota(carton_id)

    def carton_drawn(self, carton_id: str) -> list[str]:
        """Identification codes of a carton's chips whose first WRITE KEY was released."""
        return self._open().carton_drawn(carton_id)

    def carton_released(self, carton_id: str) -> int:
        """How many they are."""
        found = self._open().one(
            "select count(*) as n from body where carton_id = ? and released = 1", carton_id
        )
        return found["n"] if found else 0

    def carton_bank(self, carton_id: str) -> str:
        """Whose cards a carton holds; "" for one that was not signed for."""
        carton = self._open().carton(carton_id)
        return carton.bank if carton else ""

    def key_standings(self, identification_codes: Sequence[str]) -> dict[str, KeyStanding]:
        """How those of these chips stand that have a body."""
        found = self._open().rows(
            "select b.identification_code, max(b.released) as begun, max(case when exists ("
            "  select 1 from event e where e.body_id = b.body_id and e.body_id <> ''"
            "  and e.type = ?) then 1 else 0 end)"
            " as replaced"
            " from body b where b.identification_code in (select value from json_each(?))"
            " group by b.identification_code",
            EventType.KEYS_REPLACED,
            as_json(identification_codes),
        )
        return {
            r["identification_code"]: KeyStanding(bool(r["begun"]), bool(r["replaced"]))
            for r in found
        }

    def _open(self) -> Queries:
        if self._queries is None:
            self._queries = Queries(self._ledger)
        return self._queries
