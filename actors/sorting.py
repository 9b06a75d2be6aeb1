"""The sorting line: by county branch or service window, into packages, to the courier, and the
centre return when nothing of the batch is left in work (articles 11(10), 28(7)).

Packages are opened by the line and closed by a person who scanned what lies in them.

`step` does what can be done now, one chunk and one commit at a time; where it stands is in the
ledger, so it goes on after a crash from the same place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

from structlog.contextvars import bind_contextvars, clear_contextvars

from actors.floor_acts import carry_out
from actors.lots import CHUNK, WORK, LotPlan, LotWork
from actors.order_stops import answer_again, decide_orders, orders_command, set_apart
from actors.packing import compare, decide_close, decide_open, whole_destinations
from actors.returns import ReturnWork
from actors.stock import count
from domain.bodies import Body, Writing
from domain.changes import Committed, Event, EventType, Update
from domain.codes import Code
from domain.lines import (
    CarriedOut,
    ClosePackage,
    ConfirmedAct,
    LedgerDoor,
    OrdersCommand,
    Receipt,
    StockCount,
)
from domain.places import DRAWN, PACKED, PACKING, READ_AGAIN, Line, courier, transit
from ledger.connection import as_json
from ledger.queries import Queries
from ledger.returns import revisable

ARRIVED = transit(Line.INSPECTION, Line.SORTING)


def decide_sort(command_id: str, bodies: Sequence[Body], stopped: Mapping[str, str]) -> Writing:
    """Take what inspection sent and lay it out by destination; the bodies of orders that are
    `stopped` (reason by order id) apart."""
    writing = Writing(Line.SORTING, command_id)
    for body in bodies:
        taken = writing.change(body, EventType.BODY_SORTED, place=WORK)
        if body.order_id in stopped:
            set_apart(writing, taken, stopped[body.order_id])
    return writing


def decide_ship(command_id: str, bodies: Sequence[Body]) -> Writing:
    """Hand closed packages to the courier."""
    writing = Writing(Line.SORTING, command_id)
    for body in bodies:
        writing.change(body, EventType.BODY_SHIPPED, place=courier(body.destination))
    return writing


class Sorting:
    """The line itself. `step` is called again and again by its shell."""

    def __init__(
        self,
        ledger: LedgerDoor,
        queries: Queries,
        command_prefix: str,
        lots: LotPlan | None = None,
    ) -> None:
        """Without `lots` no sample is drawn, and what is complete is packed at once."""
        self._ledger = ledger
        self._queries = queries
        self._prefix = command_prefix
        self._commands = 0
        self._one_at_a_time = asyncio.Lock()
        self._lots = LotWork(queries, lots) if lots else None
        self._returns = ReturnWork(queries)

    async def step(self) -> bool:
        """Do one chunk of what can be done; whether there may be more to do at once. What is
        logged until the next step, also by the shell about it, names its batch."""
        clear_contextvars()
        async with self._one_at_a_time:
            return await self._step()

    async def command_orders(self, command: OrdersCommand) -> Receipt:
        """Cancel, hold or release orders whose cards are not packed. The same command again is
        answered the same (`repeated`), also if nothing of it was taken; ID_REUSED refuses another
        under its id."""
        async with self._one_at_a_time:
            stored = self._queries.reply(Line.SORTING, orders_command(command.command_id))
            if stored is not None:
                return answer_again(command, stored)
            states = self._queries.order_states(command.order_ids)
            writing, receipt = decide_orders(command, states)
            await self._commit(writing)
            return receipt

    async def _step(self) -> bool:
        arrived = self._queries.bodies("b.place = ? order by b.body_id limit ?", ARRIVED, CHUNK)
        if arrived:
            bind_contextvars(
                batch_ids=sorted({b.batch_id for b in arrived}),
                carton_ids=sorted({b.carton_id for b in arrived}),
            )
            stopped = self._queries.stopped_orders([b.order_id for b in arrived if b.order_id])
            await self._commit(decide_sort(self._next(), arrived, stopped))
            return True
        stopped_samples = self._queries.bodies(
            "b.place = ? and b.order_id in (select order_id from order_stop where reason <> '')"
            " order by b.body_id limit ?",
            READ_AGAIN, CHUNK,
        )  # fmt: skip
        if stopped_samples:
            stopped = self._queries.stopped_orders([b.order_id for b in stopped_samples])
            writing = Writing(Line.SORTING, self._next())
            for body in stopped_samples:
                set_apart(writing, body, stopped[body.order_id])
            await self._commit(writing)
            return True
        for batch_id in self._complete_batches():
            bind_contextvars(batch_id=batch_id)
            if await self._finish(batch_id):
                return True
        return False

    async def close_package(self, command: ClosePackage) -> Receipt:
        """Close a package in which exactly the cards of its list were counted; else it stays open
        and the receipt names what differs. One that is closed is only compared."""
        async with self._one_at_a_time:
            return await self._close_package(command)

    async def _close_package(self, command: ClosePackage) -> Receipt:
        q = self._queries
        package = q.one("select * from package where package_id = ?", command.package_id)
        if package is None:
            return Receipt(False, Code.PACKAGE_UNKNOWN, command.package_id)
        bodies = q.bodies("b.package_id = ? and b.package_id <> ''", command.package_id)
        receipt = compare(command, bodies, q.bodies_of_orders(command.order_ids))
        if package["state"] != "open":
            return replace(receipt, repeated=receipt.accepted)
        if receipt.accepted:
            await self._commit(decide_close(command, package, bodies))
        return receipt

    async def count_stock(self, command: StockCount) -> Receipt:
        """Compare what was scanned with the books, and keep what differs (`actors.stock`)."""
        async with self._one_at_a_time:
            return await count(Line.SORTING, self._ledger, self._queries, command)

    async def carry_out(self, act: ConfirmedAct) -> CarriedOut:
        """Do what two people have confirmed, once (`actors.floor_acts`)."""
        async with self._one_at_a_time:
            return await carry_out(Line.SORTING, self._ledger, self._queries, act)

    async def acknowledge(self, outbox_ids: Sequence[str]) -> None:
        """What left through the outbox was taken by its receiver."""
        open_ids = {
            r["id"]: r["batch_id"]
            for r in self._queries.rows("select id, batch_id from outbox where acknowledged = 0")
        }
        ids = [i for i in outbox_ids if i in open_ids]
        if not ids:
            return
        bind_contextvars(batch_ids=sorted({open_ids[i] for i in ids}))
        writing = Writing(Line.SORTING, self._next())
        for outbox_id in ids:
            writing.event(
                Event(
                    EventType.RETURN_ACKNOWLEDGED,
                    data={"outbox_id": outbox_id, "batch_id": open_ids[outbox_id]},
                )
            )
        writing.update(
            Update(
                "outbox",
                ("id",),
                ("acknowledged",),
                ("acknowledged",),
                [{"id": i, "acknowledged": 1, "expect_acknowledged": 0} for i in ids],
            )
        )
        await self._commit(writing)

    def _complete_batches(self) -> list[str]:
        """Batches that have something to do and of which nothing is left before sorting: the
        factory return is there, every delivery is signed for, and each card went somewhere
        for good: none is held that a correction has advised. What was drawn as a sample was
        sorted before."""
        found = self._queries.rows(
            "select f.batch_id from file_in f where f.kind = 'factory_return'"
            " and (f.closed = 0 or f.batch_id in (select value from json_each(?)))"
            " and exists (select 1 from delivery d where d.batch_id = f.batch_id)"
            " and not exists (select 1 from delivery d where d.batch_id = f.batch_id"
            "  and d.state <> 'signed')"
            " and not exists (select 1 from body b where b.batch_id = f.batch_id"
            "  and b.place not in (?, ?) and (b.place like 'transit/%' or b.place in"
            "  ('inventory/vault', 'key_replacement/work')))"
            " order by f.batch_id",
            as_json(sorted(revisable(self._queries))),
            DRAWN,
            READ_AGAIN,
        )
        return [r["batch_id"] for r in found if not self._queries.advised_since(1, r["batch_id"])]

    async def _finish(self, batch_id: str) -> bool:
        """Sample its lots, open packages, ship closed ones, or write the return of a batch: the
        first of these that can be done; whether one could. A lot goes as soon as it is accepted,
        the return, first or revised, when nothing of the batch is left in work and no package is
        open."""
        q = self._queries
        of_lots = self._lots.next(batch_id, self._next()) if self._lots else None
        if of_lots is not None:
            await self._commit(of_lots)
            return True
        sorted_bodies = self._to_pack(batch_id)
        if sorted_bodies:
            sorted_bodies = whole_destinations(sorted_bodies, CHUNK)
            with_temporary = {
                r["order_id"]
                for r in q.rows(
                    "select order_id from orders where batch_id = ? and has_temporary = 1", batch_id
                )
            }
            packages = q.one("select count(*) as n from package where batch_id = ?", batch_id)
            first = packages["n"] + 1 if packages else 1
            await self._commit(
                decide_open(self._next(), batch_id, sorted_bodies, with_temporary, first)
            )
            return True
        packed = q.bodies(
            "b.batch_id = ? and b.place = ? order by b.package_id, b.body_id limit ?",
            batch_id, PACKED, CHUNK,
        )  # fmt: skip
        if packed:
            await self._commit(decide_ship(self._next(), packed))
            return True
        if q.one(
            "select 1 as n from body where batch_id = ? and place in (?, ?, ?, ?)"
            " union all select 1 from package where batch_id = ? and state = 'open' limit 1",
            batch_id, WORK, DRAWN, READ_AGAIN, PACKING, batch_id,
        ):  # fmt: skip
            return False
        writing = self._returns.next(batch_id)
        if writing is None or batch_id not in self._complete_batches():
            return False  # nothing new, or something came in between
        await self._commit(writing)
        return True

    def _to_pack(self, batch_id: str) -> list[Body]:
        if self._lots is not None:
            return self._lots.to_pack(batch_id, CHUNK)
        return self._queries.bodies(
            "b.batch_id = ? and b.place in (?, ?) order by b.destination, b.body_id limit ?",
            batch_id, WORK, READ_AGAIN, CHUNK,
        )  # fmt: skip

    def _next(self) -> str:
        self._commands += 1
        return f"{self._prefix}:{self._commands}"

    async def _commit(self, writing: Writing) -> Committed:
        return await self._ledger.commit(writing.changes())
