"""The lines as others see them, and what a line is given to work with.

Gateways know these Protocols; the real handles (Ray actors) are injected by `centre`. Every
method may raise `domain.changes.Away`: ask again under the same id.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from domain.changes import Changes, Committed
from domain.codes import Code
from domain.provider import Answer, KeyEntry, KeyState, KnownKey, Request
from domain.turns import CentreTurn, StationTurn
from domain.words import next_step


@dataclass(frozen=True)
class RefusedRecord:
    """One record that was refused; `record_number` counts from 1. The identification code and
    the carton, if they could be read, let its body be recognised later."""

    record_number: int
    order_id: str
    field: str
    code: str
    reason: str
    bank_code: str = ""
    carton_id: str = ""
    identification_code: str = ""


@dataclass(frozen=True)
class Receipt:
    """The answer to a file or a command (proto `Receipt`)."""

    accepted: bool
    code: str = Code.OK
    reason: str = ""
    records: int = 0
    taken: int = 0
    refused: tuple[RefusedRecord, ...] = ()
    repeated: bool = False

    @property
    def next_step(self) -> str:
        return next_step(self.code)


@dataclass(frozen=True)
class SealedRecord:
    """An accepted record of a factory return: what the floor needs in clear, the rest sealed.
    `numbers` are (kind, look-up value) pairs of its social card, bank card and identity number."""

    record_number: int
    order_id: str
    bank_code: str
    branch_code: str
    carton_id: str
    identification_code: str
    has_temporary_card: bool
    sealed: bytes
    numbers: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class FactoryReturn:
    """A whole factory return whose count and digest were right. `digest` in hex. `corrects`: of a
    correction, the id of the batch's return whose refused records it sends again."""

    file_id: str
    batch_id: str
    digest: str
    records: tuple[SealedRecord, ...]
    refused: tuple[RefusedRecord, ...]
    expires_on: str
    corrects: str = ""


@dataclass(frozen=True)
class NoteCarton:
    carton_id: str
    bank_code: str
    kind: str
    count: int
    destination: str


@dataclass(frozen=True)
class Note:
    """A factory's delivery note; `digest` over its content tells a repeat from a reuse."""

    delivery_id: str
    batch_id: str
    factory_id: str
    digest: str
    cartons: tuple[NoteCarton, ...]


@dataclass(frozen=True)
class SignFor:
    """Signing for a delivery: the blind count of every carton."""

    delivery_id: str
    counts: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class ClosePackage:
    """A package was counted: the order behind each scanned number, in the order of the scans
    (empty: no order stands behind it), and how many cards without a number lie in it."""

    package_id: str
    order_ids: tuple[str, ...] = ()
    without_number: int = 0


@dataclass(frozen=True)
class StockCount:
    """What a person has scanned at a place (of a carton, or of all): the order behind each number,
    in the order of the scans (empty: none), and how many cards without a number lie there."""

    command_id: str
    place: str
    carton_id: str = ""
    order_ids: tuple[str, ...] = ()
    without_number: int = 0


@dataclass(frozen=True)
class BackupMade:
    """A copy of the ledger, of the token, or of both (`holds`: `ledger.keeping`), where it is put
    (`place`), and the last day on which it is kept."""

    backup_id: str
    place: str
    holds: tuple[str, ...]
    expires_on: str


class OrderAct(StrEnum):
    """What card management does to an order whose card is not packed yet."""

    CANCEL = "cancel"
    HOLD = "hold"
    RELEASE = "release"


@dataclass(frozen=True)
class OrdersCommand:
    """One act on a chunk of orders; the same `command_id` again gets the same answer."""

    command_id: str
    act: OrderAct
    order_ids: tuple[str, ...]


@dataclass(frozen=True)
class ConfirmedAct:
    """An act of two people (`domain.custody.Act`), for the line that carries it out."""

    act_id: str
    kind: str
    subject: str
    content: Mapping[str, Any]


@dataclass(frozen=True)
class CarriedOut:
    """What a line made of an act: its `result`; or, with another `code` than OK, why it can't be
    done as things stand now, and nothing has changed."""

    result: Mapping[str, Any]
    code: str = Code.OK
    detail: str = ""


class ActingLine(Protocol):
    """A line as the custody line reaches it."""

    async def carry_out(self, act: ConfirmedAct) -> CarriedOut:
        """Do what two people have confirmed, once: asked again it is answered the same."""
        ...


class CountedLine(Protocol):
    """A line as whoever counts its cards reaches it."""

    async def count_stock(self, command: StockCount) -> Receipt:
        """Compare what was scanned with the books, and keep what differs under an id."""
        ...


class LedgerDoor(Protocol):
    """The writing door as a line has it: its epoch is kept behind it."""

    async def commit(self, changes: Changes) -> Committed: ...

    async def reclaim(self) -> bool:
        """Leave nothing of deleted rows in the database's files (`ledger.commit.Ledger`)."""
        ...


class KeyProvider(Protocol):
    """A provider (`domain.provider.Provider`) as a line reaches it."""

    async def perform(self, requests: Sequence[Request]) -> list[Answer]: ...

    async def seal(self, batch_id: str, records: Sequence[tuple[str, bytes]]) -> list[bytes]: ...

    async def unseal(self, batch_id: str, records: Sequence[tuple[str, bytes]]) -> list[bytes]: ...

    async def index(self, values: Sequence[str]) -> list[str]: ...

    async def sign(self, digests: Sequence[bytes]) -> list[bytes]: ...


class KeyCustodian(Protocol):
    """The custody of keys (`domain.provider.KeyCustody`) as a line reaches it. All but
    `inventory` raise KeyRefused."""

    async def combine(
        self, label: str, suite: str, parts: Sequence[bytes], lost: KnownKey | None = None
    ) -> KeyEntry: ...

    async def part_value(self, label: str, suite: str, number: int, part: bytes) -> str: ...

    async def set_state(self, labels: Sequence[str], state: KeyState) -> list[KeyEntry]: ...

    async def destroy(self, labels: Sequence[str]) -> None: ...

    async def destroy_data_keys(self, batch_ids: Sequence[str]) -> None: ...

    async def inventory(self) -> list[KeyEntry]: ...

    async def export(self, labels: Sequence[str], kek_version: int) -> bytes: ...

    async def backup(self, kek_version: int) -> bytes: ...

    async def read_backup(self, blob: bytes) -> list[KeyEntry]: ...

    async def restore(self, blob: bytes, states: Mapping[str, str]) -> list[KeyEntry]: ...

    async def stage_temporary_keys(self, block: bytes) -> list[KeyEntry]: ...


class InventoryLine(Protocol):
    async def accept_return(self, file: FactoryReturn) -> Receipt: ...

    async def accept_correction(self, file: FactoryReturn) -> Receipt: ...

    async def accept_note(self, note: Note) -> Receipt: ...

    async def sign_for(self, command: SignFor) -> Receipt: ...

    async def recount(self, carton_id: str, counted: int) -> Receipt: ...

    async def record_backup(self, made: BackupMade) -> Receipt: ...

    async def remove_backup(self, backup_id: str) -> Receipt: ...


class ChipLine(Protocol):
    async def turns(self, turns: Sequence[StationTurn]) -> list[CentreTurn]:
        """One answer for each turn, in order."""
        ...


class SortingLine(Protocol):
    async def command_orders(self, command: OrdersCommand) -> Receipt:
        """Cancel, hold or release orders; each is refused by its place, or took effect."""
        ...

    async def step(self) -> bool:
        """Do what can be done now; whether there may be more to do at once."""
        ...

    async def close_package(self, command: ClosePackage) -> Receipt:
        """Close a package in which exactly the cards of its list were counted."""
        ...

    async def acknowledge(self, outbox_ids: Sequence[str]) -> None:
        """What left through the outbox was taken by its receiver."""
        ...
