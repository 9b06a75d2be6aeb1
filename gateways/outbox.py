"""What leaves the centre: dispatched from the outbox until it was taken.

Every step can be repeated: files are written again with the same content, and the receiver
answers a file that it has with `repeated`. So after a crash at any point it starts over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import structlog
from structlog.contextvars import bound_contextvars

from domain.codes import Code
from domain.lines import KeyProvider, SortingLine
from gateways.board import Board
from gateways.centre_return import send_return, write_return
from gateways.fonts import DEBIAN_FONTS, FontUnusable, ListFonts
from gateways.lists import write_lists
from ledger.queries import Queries
from ledger.returns import revision_of

log = structlog.get_logger()

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0


class _NotTaken(Exception):
    """The receiver answered and did not take the file."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


async def run_outbox(
    *,
    queries: Queries,
    provider: KeyProvider,
    sorting: SortingLine,
    out: Path,
    card_management: str = "",
    fonts: ListFonts = DEBIAN_FONTS,
    board: Board | None = None,
    look: asyncio.Event | None = None,
    idle_seconds: float = 1.0,
) -> None:
    """Dispatch until cancelled. `queries`: a reading connection of its own. Files go to
    `out`/lists and `out`/return; `card_management` is host:port of its CentreReturns door, empty:
    none is configured; lists are printed in `fonts`. `board` is told what could not leave. `look`,
    when set by others, cuts the idle pause short."""
    dispatcher = Outbox(queries, provider, sorting, out, card_management, fonts, board)
    woken = look or asyncio.Event()
    failures = 0
    while True:
        woken.clear()
        failures = 0 if await dispatcher.dispatch() else failures + 1
        pause = min(FIRST_PAUSE * 2 ** min(failures - 1, 16), LONGEST_PAUSE)
        try:
            async with asyncio.timeout(pause if failures else idle_seconds):
                await woken.wait()
        except TimeoutError:
            continue


class Outbox:
    """One pass over the outbox at a time, by `dispatch`."""

    def __init__(
        self,
        queries: Queries,
        provider: KeyProvider,
        sorting: SortingLine,
        out: Path,
        card_management: str,
        fonts: ListFonts = DEBIAN_FONTS,
        board: Board | None = None,
    ) -> None:
        self._queries = queries
        self._provider = provider
        self._sorting = sorting
        self._out = out
        self._card_management = card_management
        self._fonts = fonts
        self._board = board or Board()
        self._written: set[str] = set()

    async def dispatch(self) -> bool:
        """Try everything that is not acknowledged, each by itself; whether nothing failed."""
        try:
            rows = await asyncio.to_thread(
                self._queries.rows,
                # By length first: a batch's tenth return goes after its ninth.
                "select id, kind, batch_id from outbox where acknowledged = 0"
                " order by length(id), id",
            )
        except Exception as e:  # noqa: BLE001  # the ledger is away: seen in the log, tried again
            log.warning("outbox.waiting", reason=type(e).__name__)
            return False
        fine = True
        self._board.open_in_outbox(row["id"] for row in rows)
        for row in _each_once(rows):
            about = {"outbox_id": row["id"], "kind": row["kind"], "batch_id": row["batch_id"]}
            with bound_contextvars(**about):
                try:
                    await self._dispatch(row)
                except Exception as e:  # noqa: BLE001  # one file that can't leave holds up no other
                    fine = False
                    self._board.not_left(row["id"], _reason(e))
                    log.warning("outbox.waiting", reason=_reason(e))
        return fine

    async def _dispatch(self, row: dict[str, Any]) -> None:
        outbox_id, batch_id = row["id"], row["batch_id"]
        if row["kind"] == "lists":
            files = await write_lists(
                self._queries, self._provider, batch_id, self._out / "lists", self._fonts
            )
            await self._sorting.acknowledge([outbox_id, *row["as_well"]])
            log.info("outbox.written", files=files)
        elif row["kind"] == "centre_return":
            await self._centre_return(outbox_id, batch_id)
        else:
            raise _NotTaken(Code.MALFORMED)

    async def _centre_return(self, file_id: str, batch_id: str) -> None:
        path = self._out / "return" / f"{file_id}.jsonl"
        if file_id not in self._written or not path.exists():
            lines = await write_return(self._queries, self._provider, file_id, batch_id, path)
            self._written.add(file_id)
            log.info("outbox.written", lines=lines)
        if not self._card_management:
            self._board.not_left(file_id, Code.RECEIVER_MISSING)
            return
        revision = await asyncio.to_thread(revision_of, self._queries, file_id)
        receipt = await send_return(self._card_management, file_id, batch_id, revision, path)
        if not receipt.accepted:
            raise _NotTaken(receipt.code)
        await self._sorting.acknowledge([file_id])
        log.info("outbox.acknowledged", repeated=receipt.repeated)


def _each_once(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows to dispatch. All lists of a batch are written at once: of its rows of that kind
    one stands for the others, which it names in `as_well`."""
    lists: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row["kind"] == "lists":
            lists.setdefault(row["batch_id"], []).append(row)
    returns = [row for row in rows if row["kind"] != "lists"]
    return [{**of_batch[0], "as_well": [r["id"] for r in of_batch[1:]]}
            for of_batch in lists.values()] + returns  # fmt: skip


def _reason(error: Exception) -> str:
    """What went wrong, without the text of an error that may quote what was sent."""
    if isinstance(error, grpc.aio.AioRpcError):
        return error.code().name
    if isinstance(error, _NotTaken):
        return error.code
    if isinstance(error, FontUnusable):
        # Names a font's file, and nothing of what was to be printed.
        return str(error)
    return type(error).__name__
