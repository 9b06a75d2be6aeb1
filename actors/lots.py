"""Inspection lots at sorting (GB/T 2828.1): what was sorted is not packed before the sample of its
lot was read again and the lot accepted. Each lot goes its own way: one whose sample is not back
keeps no other waiting.

A lot goes: presented (plan and seed are on record) - drawn (the sample is sent to be read again)
- accepted, or refused and held. Of a refused one two people decide (`actors/lot_acts.py`): it goes
on as it is, or every card is read again like a sample and the good ones go on. Each step is one
commit or more, and the ledger tells where it stands, so that a line which died goes on from there
with the same seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from actors.order_stops import set_apart
from domain.bodies import Body, Writing
from domain.changes import Event, EventType
from domain.codes import Code
from domain.places import DRAWN, READ_AGAIN, Line, held, rejected, work
from domain.sampling import Level, plan
from ledger.connection import as_json
from ledger.digests import digest_of
from ledger.lots import Lot, LotState, draw, lots_of
from ledger.queries import OF_NO_CARD, Queries

WORK = work(Line.SORTING)
CHUNK = 1_000

Seed = Callable[[str], bytes]
"""The seed of the draw of a lot (by lot id), from outside: random, or a demo's."""


@dataclass(frozen=True)
class LotPlan:
    """How lots are sampled; AQL as in `domain.sampling.AQLS`."""

    seed: Seed
    aql: str = "0.65"
    level: Level = Level.II


def lot_id_of(delivery_id: str, bank: str, kind: str) -> str:
    return f"{delivery_id}-{bank}-{kind}"


def present(
    batch_id: str, delivery_id: str, bank: str, kind: str, ids: Iterable[str], how: LotPlan
) -> Lot:
    """The lot of these bodies. Its seed is asked for here: when the lot can't change any more."""
    members = sorted(ids)
    p = plan(len(members), how.aql, how.level)
    lot_id = lot_id_of(delivery_id, bank, kind)
    seed = how.seed(lot_id).hex()
    return Lot(
        lot_id, batch_id, delivery_id, bank, kind, len(members), digest_of(members),
        str(how.level), how.aql, p.letter, p.sample_size, p.accept, seed,
    )  # fmt: skip


def decide_present(command_id: str, lots: Sequence[Lot]) -> Writing:
    """Put lots on record, with their seeds, before anything is drawn."""
    writing = Writing(Line.SORTING, command_id)
    for lot in lots:
        data = {k: v for k, v in asdict(lot).items() if k not in ("state", "nonconforming")}
        writing.event(Event(EventType.LOT_PRESENTED, data=data))
    return writing


def decide_draw(command_id: str, samples: Sequence[tuple[Lot, Sequence[Body]]]) -> Writing:
    """Send the samples of lots to be read again, all that are presented in one: an operator feeds
    them together."""
    writing = Writing(Line.SORTING, command_id)
    for lot, sample in samples:
        writing.event(_of_lot(EventType.SAMPLE_DRAWN, lot, drawn=len(sample)))
        for body in sample:
            writing.change(body, EventType.BODY_DRAWN, {"lot_id": lot.lot_id}, place=DRAWN)
    return writing


def decide_judge(
    command_id: str, lot: Lot, rejected_ones: int, missing: Sequence[Body] = ()
) -> Writing:
    """Accept or refuse a lot of whose sample nothing is left to be read again. What is missing
    counts like what was rejected, and must still be missing when it is written."""
    nonconforming = rejected_ones + len(missing)
    accepted = nonconforming <= lot.accept
    event_type = EventType.LOT_ACCEPTED if accepted else EventType.LOT_REFUSED
    writing = Writing(Line.SORTING, command_id)
    for body in missing:
        writing.change(body, EventType.SAMPLE_MISSING, {"lot_id": lot.lot_id})
    writing.event(_of_lot(event_type, lot, nonconforming=nonconforming))
    return writing


def decide_hold(command_id: str, lot: Lot, bodies: Sequence[Body]) -> Writing:
    """Set bodies of a refused lot apart."""
    writing = Writing(Line.SORTING, command_id)
    for body in bodies:
        writing.change(
            body,
            EventType.BODY_HELD,
            {"lot_id": lot.lot_id},
            place=held(Line.SORTING),
            condition=Code.LOT_REFUSED,
        )
    return writing


def decide_release(
    command_id: str, lot: Lot, bodies: Sequence[Body], stopped: Mapping[str, str]
) -> Writing:
    """Bodies of a released lot go on; those of orders that were `stopped` meanwhile stay apart."""
    writing = Writing(Line.SORTING, command_id)
    for body in bodies:
        data = {"lot_id": lot.lot_id}
        taken = writing.change(body, EventType.BODY_RELEASED, data, place=WORK, condition="")
        if body.order_id in stopped:
            set_apart(writing, taken, stopped[body.order_id])
    return writing


def decide_recall(command_id: str, lot: Lot, bodies: Sequence[Body]) -> Writing:
    """Bodies of a recalled lot are sent to be read again, every one."""
    writing = Writing(Line.SORTING, command_id)
    for body in bodies:
        data = {"lot_id": lot.lot_id}
        writing.change(body, EventType.BODY_DRAWN, data, place=DRAWN, condition="")
    return writing


def _of_lot(event_type: EventType, lot: Lot, **data: int) -> Event:
    return Event(event_type, data={"lot_id": lot.lot_id, "batch_id": lot.batch_id, **data})


class LotWork:
    """What is to be done about the lots of a batch of which nothing is left before sorting."""

    def __init__(self, queries: Queries, how: LotPlan) -> None:
        self._queries = queries
        self._how = how

    def next(self, batch_id: str, command_id: str) -> Writing | None:
        """The next commit; None if every lot is accepted, or refused and held, or waits for cards
        that are to be read again."""
        lots = lots_of(self._queries, batch_id)
        fresh = self._to_present(batch_id, {lot.lot_id for lot in lots})
        if fresh:
            return decide_present(command_id, fresh)
        presented = [lot for lot in lots if lot.state is LotState.PRESENTED]
        if presented:
            return decide_draw(command_id, [(lot, self._sample(lot)) for lot in presented])
        for lot in lots:
            if lot.state is LotState.DRAWN and not self._bodies(lot, (DRAWN,), 1):
                apart = self._bodies(lot, (rejected(Line.SAMPLING),), lot.sample_size)
                missing = self._bodies(lot, (held(Line.SAMPLING),), lot.sample_size)
                return decide_judge(command_id, lot, len(apart), missing)
            if lot.state is LotState.REFUSED:
                left = self._bodies(lot, (WORK, READ_AGAIN), CHUNK)
                if left:
                    return decide_hold(command_id, lot, left)
            if lot.state in (LotState.RELEASED, LotState.RECALLED):
                writing = self._go_on(lot, command_id)
                if writing is not None:
                    return writing
        return None

    def _go_on(self, lot: Lot, command_id: str) -> Writing | None:
        """What two people decided about a refused lot, a chunk of its cards."""
        apart = self._bodies(lot, (held(Line.SORTING),), CHUNK, Code.LOT_REFUSED)
        if lot.state is LotState.RELEASED and apart:
            orders = [b.order_id for b in apart if b.order_id]
            return decide_release(command_id, lot, apart, self._queries.stopped_orders(orders))
        if lot.state is LotState.RECALLED:
            # A card of the lot that comes late is read like the others.
            left = apart or self._bodies(lot, (WORK,), CHUNK)
            if left:
                return decide_recall(command_id, lot, left)
        return None

    def to_pack(self, batch_id: str, limit: int) -> list[Body]:
        """Sorted bodies of one lot that may go, by destination; none if there is nothing to
        pack."""
        for lot in lots_of(self._queries, batch_id):
            # A recalled one goes whole, once all that is left of it was read again.
            whole = lot.state is LotState.RECALLED and not self._bodies(lot, (DRAWN,), 1)
            if whole or lot.state in (LotState.ACCEPTED, LotState.RELEASED):
                found = self._bodies(lot, (WORK, READ_AGAIN), limit)
                if found:
                    return found
        return []

    def _to_present(self, batch_id: str, known: set[str]) -> list[Lot]:
        groups: dict[tuple[str, str, str], list[str]] = {}
        for r in self._queries.rows(
            "select b.body_id, b.bank, b.kind, c.delivery_id from body b"
            " join carton c on c.carton_id = b.carton_id where b.batch_id = ? and b.place = ?",
            batch_id, WORK,
        ):  # fmt: skip
            groups.setdefault((r["delivery_id"], r["bank"], r["kind"]), []).append(r["body_id"])
        return [
            present(batch_id, *key, ids, self._how)
            for key, ids in sorted(groups.items())
            if lot_id_of(*key) not in known
        ]

    def _sample(self, lot: Lot) -> list[Body]:
        """The bodies that the seed of a lot draws, of which none was drawn yet. What was set apart
        since the lot was presented is passed over, and so is what was sorted since (the card of
        a corrected record)."""
        late = self._sorted_since(lot)
        sorted_bodies = self._bodies(lot, (WORK,), lot.size + len(late))
        members = {b.body_id: b for b in sorted_bodies if b.body_id not in late}
        size = min(lot.sample_size, len(members))
        return [members[i] for i in draw(members, size, bytes.fromhex(lot.seed))]

    def _sorted_since(self, lot: Lot) -> set[str]:
        """Sorted after the lot was presented, or on hold or missing when it was, and back since."""
        found = self._queries.rows(
            f"with presented as (select e.id from event e where e.data->>'batch_id' = ?"
            f"  and e.type = ? and e.data->>'lot_id' = ? and {OF_NO_CARD})"
            " select body_id from event where type = ? and id > (select id from presented)"
            " union select r.body_id from event r where r.type in (?, ?)"
            " and r.id > (select id from presented) and (select b.type from event b"
            "  where b.body_id = r.body_id and b.body_id <> '' and b.type in (?, ?, ?, ?)"
            "  and b.id < (select id from presented) order by b.id desc limit 1) in (?, ?)",
            lot.batch_id, EventType.LOT_PRESENTED, lot.lot_id, EventType.BODY_SORTED,
            EventType.BODY_RELEASED, EventType.STOCK_FOUND,
            EventType.BODY_HELD, EventType.BODY_RELEASED, EventType.STOCK_MISSING,
            EventType.STOCK_FOUND, EventType.BODY_HELD, EventType.STOCK_MISSING,
        )  # fmt: skip
        return {r["body_id"] for r in found}

    def _bodies(
        self, lot: Lot, places: Sequence[str], limit: int, condition: str = ""
    ) -> list[Body]:
        return self._queries.bodies(
            "b.batch_id = ? and b.bank = ? and b.kind = ?"
            " and b.place in (select value from json_each(?)) and ? in ('', b.condition)"
            " and b.carton_id in (select carton_id from carton where delivery_id = ?)"
            " order by b.destination, b.body_id limit ?",
            lot.batch_id, lot.bank, lot.kind, as_json(places), condition, lot.delivery_id, limit,
        )  # fmt: skip
