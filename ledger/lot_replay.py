"""The meaning of the events of inspection lots: the plan is looked up again, the draw is done
again, the verdict is counted again, and nothing is packed out of a lot that was not accepted.

Pure, and part of `ledger.replay`. A seed is on record in a commit before the one that draws.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from typing import Any

from domain.bodies import Body
from domain.changes import EventType
from domain.codes import Code
from domain.places import DRAWN, PACKING, READ_AGAIN, Line, held, rejected, work
from domain.sampling import Level, plan
from ledger.digests import digest_of
from ledger.faults import Fault
from ledger.lots import STATES, Lot, LotState, draw

Key = tuple[str, str, str]
Fail = Callable[[str, str], Fault]
"""Makes the Fault of the event at hand out of its words, Chinese and English."""

_WORK = work(Line.SORTING)
_REJECTED = rejected(Line.SAMPLING)
_MISSING = held(Line.SAMPLING)
"""Only what a stock-take missed among the drawn cards comes there."""


@dataclass(slots=True)
class _Known:
    key: Key
    batch_id: str
    sample_size: int
    accept: int
    seed: str
    members: Set[str]
    """Until the sample is drawn."""
    sample: dict[str, str] = field(default_factory=dict)
    """Where each body of it is. Until the last one has left and the verdict is known; so for
    `drawn` and `missing`."""
    drawn: set[str] = field(default_factory=set)
    missing: set[str] = field(default_factory=set)
    """Of the sample, counted as nonconforming."""
    left: int = 0
    """Of the sample: those to which nothing happens any more."""
    state: LotState = LotState.PRESENTED


@dataclass
class LotReplay:
    """The lots after the events so far."""

    _deliveries: dict[str, str] = field(default_factory=dict)
    """The delivery of each carton."""
    _lots: dict[str, _Known] = field(default_factory=dict)
    _by_key: dict[Key, _Known] = field(default_factory=dict)
    _sorted: defaultdict[Key, set[str]] = field(default_factory=lambda: defaultdict(set))
    """The bodies that sorting has at work now."""

    def __len__(self) -> int:
        return len(self._lots)

    @property
    def cards(self) -> int:
        """How many cards it knows by their ids."""
        lots = sum(len(k.members) + len(k.sample) + len(k.drawn) for k in self._lots.values())
        return lots + sum(len(bodies) for bodies in self._sorted.values())

    def noted(self, data: Mapping[str, Any]) -> None:
        """A delivery note was accepted."""
        for carton in data["cartons"]:
            self._deliveries[carton["carton_id"]] = data["delivery_id"]

    def of_lot(self, event_type: str, data: Mapping[str, Any], fail: Fail) -> None:
        """An event of a lot. Raises what `fail` makes."""
        if event_type == EventType.LOT_PRESENTED:
            self._present(Lot(**data), fail)
            return
        known = self._lots.get(data["lot_id"])
        if known is None or known.batch_id != data["batch_id"]:
            raise fail("抽检批未提交", "the lot was never presented")
        if event_type in (EventType.LOT_RELEASED, EventType.LOT_RECALLED):
            if known.state is not LotState.REFUSED:
                raise fail("批未拒收而处置", "decided upon, but it was not refused")
        elif event_type == EventType.SAMPLE_DRAWN:
            self._draw(known, data["drawn"], fail)
        else:
            self._judge(known, event_type, data["nonconforming"], fail)
        known.state = STATES[event_type]
        _forget(known)

    def _present(self, lot: Lot, fail: Fail) -> None:
        key = lot.delivery_id, lot.bank, lot.kind
        if lot.lot_id in self._lots or key in self._by_key:
            raise fail("抽检批重复", "a lot is presented twice")
        members = sorted(self._sorted.get(key, ()))
        if len(members) != lot.size or digest_of(members) != lot.bodies:
            raise fail("抽检批与卡体不符", "the lot is not the cards that were sorted")
        if not _is_planned(lot):
            raise fail("抽样方案不符", "not the plan of GB/T 2828.1 for a lot of this size")
        plan = lot.sample_size, lot.accept, lot.seed
        known = _Known(key, lot.batch_id, *plan, frozenset(members))
        self._lots[lot.lot_id] = self._by_key[key] = known

    def _draw(self, known: _Known, drawn: int, fail: Fail) -> None:
        left = known.members & self._sorted.get(known.key, set())
        if known.state is not LotState.PRESENTED or drawn != min(known.sample_size, len(left)):
            raise fail("抽样不符", "the lot was drawn from before, or by another number")
        known.sample = dict.fromkeys(draw(left, drawn, bytes.fromhex(known.seed)), _WORK)
        known.members = frozenset()

    def _judge(self, known: _Known, event_type: str, nonconforming: int, fail: Fail) -> None:
        if known.state is not LotState.DRAWN or known.drawn != known.sample.keys():
            raise fail("抽样未完成", "judged before the whole sample was drawn")
        places = list(known.sample.values())
        if DRAWN in places:
            raise fail("样本未复检", "judged before the whole sample was read again")
        if known.missing != {i for i, place in known.sample.items() if place == _MISSING}:
            raise fail("缺失样本未计入", "judged without what is missing of the sample")
        found = places.count(_REJECTED) + len(known.missing)
        accepted = event_type == EventType.LOT_ACCEPTED
        if found != nonconforming or accepted != (found <= known.accept):
            raise fail("批判定不符", "the verdict is not what the sample says")

    def missing(self, body: Body, data: Mapping[str, Any], fail: Fail) -> None:
        """A drawn body is not to be found; the verdict comes with it. Raises what `fail` makes."""
        known = self._lots.get(data["lot_id"])
        if known is None or known.state is not LotState.DRAWN or body.body_id not in known.sample:
            raise fail("缺失的不是样本", "missing, but not of the sample of its lot")
        known.missing.add(body.body_id)

    def moved(self, before: Body, after: Body, data: Mapping[str, Any], fail: Fail) -> None:
        """A body of a lot moved. Raises what `fail` makes."""
        key = self._key(before)
        known = self._by_key.get(key)
        self._follow(key, known, before, after)
        if before.condition == Code.STOCK_MISSING:
            return  # to where it was missed (`floor_act_replay`)
        if after.place == DRAWN:
            known = self._lots.get(data["lot_id"])
            recalled = known is not None and known.state is LotState.RECALLED
            if known is None or not (recalled or after.body_id in known.sample):
                raise fail("样本不是种子所抽", "drawn, but not by the seed of its lot")
            if not recalled:
                known.drawn.add(after.body_id)
            return
        if before.condition == Code.LOT_REFUSED and after.place == _WORK:
            if known is None or known.state is not LotState.RELEASED:
                raise fail("批未放行", "goes on, but nobody released its lot")
            return
        if before.place not in (_WORK, READ_AGAIN):
            return
        if after.place == PACKING and known and not _may_pack(known.state, before.place):
            raise fail("批未接收而装包", "packed out of a lot that was not accepted")
        if (
            after.place == held(Line.SORTING)
            and after.condition == Code.LOT_REFUSED
            and (known is None or known.state is not LotState.REFUSED)
        ):
            raise fail("批未拒收而暂扣", "held for a lot that was not refused")

    def _follow(self, key: Key, known: _Known | None, before: Body, after: Body) -> None:
        """Where the cards of a lot are now."""
        body_id = after.body_id
        if after.place == _WORK:
            self._sorted[key].add(body_id)
        elif before.place == _WORK:
            self._sorted[key].discard(body_id)
            if not self._sorted[key]:
                del self._sorted[key]
        if known and body_id in known.sample:
            known.sample[body_id] = after.place

    def left(self, body: Body) -> None:
        """Nothing happens to the body any more."""
        known = self._by_key.get(self._key(body))
        if known and body.body_id in known.sample:
            known.left += 1
            _forget(known)

    def _key(self, body: Body) -> Key:
        return self._deliveries.get(body.carton_id, ""), body.bank, body.kind


def _forget(known: _Known) -> None:
    """A lot that was judged, and of whose sample nothing is to come, is a few numbers."""
    if known.state not in (LotState.PRESENTED, LotState.DRAWN) and known.left == len(known.sample):
        known.sample, known.drawn, known.missing, known.left = {}, set(), set(), 0


def _may_pack(state: LotState, place: str) -> bool:
    if state is LotState.RECALLED:
        return place == READ_AGAIN
    return state in (LotState.ACCEPTED, LotState.RELEASED)


def _is_planned(lot: Lot) -> bool:
    try:
        p = plan(lot.size, lot.aql, Level(lot.level))
    except ValueError:
        return False
    return (p.letter, p.sample_size, p.accept) == (lot.letter, lot.sample_size, lot.accept)
