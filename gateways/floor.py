"""What the doors lead to: the lines, the provider and the ledger's reading side, all injected."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date

from domain.card.profile import Profile
from domain.custody import CustodyLine
from domain.lines import ChipLine, CountedLine, InventoryLine, KeyProvider, SortingLine
from gateways.board import Board
from ledger.queries import Queries


@dataclass(frozen=True)
class Limits:
    """Limits of the doors. Whatever is full says so; nothing is dropped."""

    max_records_per_file: int = 100_000
    """Records in one factory return; more are refused (FILE_TOO_LARGE)."""
    records_per_chunk: int = 1_000
    """Records in one message of a file; more are refused (MALFORMED)."""
    files_at_once: int = 4
    """Factory returns held in memory at the same time; the next is told RESOURCE_EXHAUSTED."""
    file_seconds: float = 300.0
    """Within this time a file must have come in whole."""
    max_cartons_per_note: int = 10_000
    """Cartons on one delivery note; more are refused (FILE_TOO_LARGE)."""
    turns_in_queue: int = 4_096
    """Turns that wait for one stage; a turn that finds it full is answered Wait(BUSY). Also how
    many answers a station may leave unread before its next turns are read."""
    turns_per_call: int = 128
    """Turns that go to a line in one call. What inspection reads back is personal data: a call
    stays under the 100 KB up to which Ray carries arguments outside its object store."""
    gather_milliseconds: float = 3.0
    """For how long the first turn of a call waits for others."""
    personal_data_days: int = 90
    """Days after which the sealed personal data of a factory return expire."""


@dataclass(frozen=True)
class Floor:
    """The parts behind the doors. `chip_lines` by stage (key_replacement, inspection, sampling).
    `queries` is used from the event loop's thread only and is nobody else's; `board` is what the
    doors have seen, for whoever looks at the floor."""

    inventory: InventoryLine
    sorting: SortingLine
    provider: KeyProvider
    chip_lines: Mapping[str, ChipLine]
    queries: Queries
    profile: Profile
    limits: Limits = field(default_factory=Limits)
    today: Callable[[], date] = date.today
    board: Board = field(default_factory=Board)
    counted: Mapping[str, CountedLine] = field(default_factory=dict)
    """The lines whose cards can be counted, by name."""
    custody: CustodyLine | None = None
    """None: a floor without people (bench); it has no door for them."""
