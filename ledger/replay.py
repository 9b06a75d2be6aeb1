"""The meaning of the events: what the tables must hold if every event happened as it says.

Pure: commits go in one by one in the order in which they took effect; the first that cannot have
happened raises Fault. A body or an order leaves with its last event, so memory grows with what is
open at a time, and by a few numbers for each finished batch.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from domain.bodies import BORN_WITH, BORNE, Body
from domain.changes import EventType
from domain.codes import STOPPED, STRANGERS, Code
from domain.groups import Group, GroupKey
from domain.places import (
    FACTORY_ADVISED,
    MISSING_COUNTED,
    MISSING_READ,
    PACKED,
    SURPLUS_COUNTED,
    SURPLUS_READ,
    Account,
    Kind,
    Line,
    Standing,
    is_legal,
    owner,
    standing,
)
from ledger.custody_replay import EVENTS as CUSTODY
from ledger.custody_replay import CustodyReplay
from ledger.faults import Fault
from ledger.floor_act_replay import EFFECTS as OF_FLOOR_ACTS
from ledger.floor_act_replay import FloorActReplay
from ledger.keeping_replay import EVENTS as KEEPING
from ledger.keeping_replay import KeepingReplay
from ledger.lease_replay import check_lease
from ledger.lot_replay import LotReplay
from ledger.lots import STATES
from ledger.order_replay import OrderReplay

Row = Mapping[str, Any]
Moves = Counter[tuple[Account, Account]]
_MAY_OWE = frozenset({Standing.ADVISED, Standing.SURPLUS})
_SET_APART = frozenset({Standing.REJECTED, Standing.HELD})
_OUTSIDE = frozenset({Standing.MISSING, Standing.SURPLUS})
_EVENT_TYPES = frozenset(str(t) for t in EventType)


@dataclass(frozen=True)
class Commit:
    """One commit as it is stored: rows of `event` (with `data` as a mapping) and `movement`."""

    line: str
    number: int
    events: Sequence[Row]
    movements: Sequence[Row]


@dataclass
class Replay:
    """The state after the commits so far."""

    bodies: dict[str, Body] = field(default_factory=dict)
    """Those to which something is still to happen."""
    orders: OrderReplay = field(default_factory=OrderReplay)
    balances: Counter[Account] = field(default_factory=Counter)
    groups: dict[GroupKey, Group] = field(default_factory=lambda: defaultdict(Group))
    final_bodies: list[Body] = field(default_factory=list)
    """Those that left, as they must stand in their table. Whoever reads it empties it."""
    final_stops: dict[str, str] = field(default_factory=dict)
    """Of the orders that left, those that were stopped: the reason in `order_stop`, likewise."""
    final_in: Counter[Account] = field(default_factory=Counter)
    """In which accounts the bodies are that left."""
    lots: LotReplay = field(default_factory=LotReplay)
    custody: CustodyReplay = field(default_factory=CustodyReplay)
    keeping: KeepingReplay = field(default_factory=KeepingReplay)
    floor_acts: FloorActReplay = field(default_factory=FloorActReplay)
    _of_body: Counter[str] = field(default_factory=Counter)
    """How many events of each body are still to come."""
    _of_order: Counter[str] = field(default_factory=Counter)
    """The same, less those that came before the order was advised."""

    def expect(self, of_bodies: Mapping[str, int], of_orders: Mapping[str, int]) -> None:
        """Bodies that the next commits receive and orders that they advise, with the number of
        events that the ledger has of each. Every body and order must be said once, before."""
        self._of_body.update(of_bodies)
        self._of_order.update(of_orders)

    def apply(self, commit: Commit) -> None:
        """Take one more commit. Raises Fault; the state is of no use after that."""
        expected: Moves = Counter()
        self.custody.begin()
        self.floor_acts.begin()
        for event in commit.events:
            self._event(commit, event, expected)
        self.custody.end(lambda zh, en: _fault(commit, zh, en))
        self.floor_acts.end(lambda zh, en: _fault(commit, zh, en))
        moved: Moves = Counter()
        for row in commit.movements:
            source, target = _accounts(row)
            moved[source, target] += row["count"]
        if moved != expected:
            raise _fault(
                commit,
                "移动与事件之和不符",
                "its movements are not the sum of what its events say",
                table="movement",
            )
        owners = {commit.line}
        if any(e["type"] == EventType.CARTON_RECOUNTED for e in commit.events):
            # A recount corrects what key replacement has of the carton, in one commit.
            owners.add(Line.KEY_REPLACEMENT)
        for (source, target), count in moved.items():
            # Only GROUP_SETTLED moves between these two; it says itself who may.
            settles = {source.place, target.place} == {SURPLUS_READ, MISSING_READ}
            if not settles and owner(source.place) not in owners:
                raise _fault(
                    commit, "移动了他线的账户", "a line posts out of another's account",
                    table="movement",
                )  # fmt: skip
            self.balances[source] -= count
            self.balances[target] += count
        for account in {account for pair in moved for account in pair}:
            self._check_sign(commit, account)
        for event in commit.events:
            self._leave(event["body_id"], event["order_id"])

    def _leave(self, body_id: str, order_id: str) -> None:
        """Body and order of an event leave if it was their last one."""
        if body_id and _was_last(self._of_body, body_id):
            body = self.bodies.pop(body_id)
            self.lots.left(body)
            self.final_in[body.account] += 1
            self.final_bodies.append(body)
        if order_id and _was_last(self._of_order, order_id):
            stopped = self.orders.leaves(order_id)
            if stopped is not None:
                self.final_stops[order_id] = stopped

    def _check_sign(self, commit: Commit, account: Account) -> None:
        """Nothing inside is ever negative, nothing missing is; the outside only ever owes."""
        balance = self.balances[account]
        wrong = balance > 0 if standing(account.place) in _MAY_OWE else balance < 0
        if wrong:
            raise _fault(
                commit, "账户余额为负", f"the balance of {account.place} has the wrong sign",
                table="movement",
            )  # fmt: skip

    # One event.

    def _event(self, commit: Commit, event: Row, expected: Moves) -> None:
        if event["type"] not in _EVENT_TYPES:
            raise _fault(commit, "未知事件", "no such event", event)
        if (event["type"] in CUSTODY) != (commit.line == Line.CUSTODY):
            raise _fault(commit, "事件不属于该线", "not an event of this line", event)
        if event["body_id"]:
            if event["type"] == EventType.BODY_RECEIVED:
                self._receive(commit, event, expected)
            else:
                self._change(commit, event, expected)
            return
        if event["place"] or event["condition"]:
            raise _fault(commit, "移动缺少卡体", "a place without a body", event)
        if commit.line == Line.CUSTODY:
            fail = partial(_fail, commit, event)
            self.custody.apply(event["type"], event["data"], fail)
            if event["type"] in (EventType.ACT_DONE, EventType.ACT_REFUSED):
                act_id = event["data"]["act_id"]
                self.floor_acts.check_ended(act_id, self.custody.acts[act_id], fail)
        elif event["type"] == EventType.ACT_CARRIED_OUT:
            act = self.custody.acts.get(event["data"]["act_id"])
            fail = partial(_fail, commit, event)
            self.floor_acts.carried_out(commit.line, act, event["data"], fail)
        elif event["type"] == EventType.ORDER_ADVISED:
            data, fail = event["data"], partial(_fail, commit, event)
            self.orders.advised(event["order_id"], fail)
            self.keeping.advised(data, fail)
            self._advise(data["batch_id"], data["bank"], Kind.SOCIAL_SECURITY_CARD, 1, expected)
        elif event["type"] == EventType.CARTON_RECOUNTED:
            if commit.line != Line.INVENTORY:
                raise _fault(commit, "他线重新清点", "another line recounts", event)
        elif event["type"] in KEEPING:
            if commit.line != Line.INVENTORY:
                raise _fault(commit, "事件不属于该线", "not an event of this line", event)
            self.keeping.apply(event["type"], event["data"], partial(_fail, commit, event))
        elif event["type"] == EventType.RETURN_WRITTEN:
            self.keeping.written(event["data"]["batch_id"])
        elif event["type"] == EventType.GROUP_SETTLED:
            self._settle(commit, event, expected)
        elif event["type"] in (EventType.ORDER_STOPPED, EventType.ORDER_RELEASED):
            fail = partial(_fail, commit, event)
            self.orders.stopped(event["type"], event["order_id"], event["data"], fail)
        elif event["type"] in STATES:
            self.lots.of_lot(event["type"], event["data"], partial(_fail, commit, event))
            if event["type"] in OF_FLOOR_ACTS:
                lot_id, fail = event["data"]["lot_id"], partial(_fail, commit, event)
                self.floor_acts.brings(event["type"], lot_id, event["data"], fail)
        elif event["type"] == EventType.NOTE_ACCEPTED:
            self.lots.noted(event["data"])
            for carton in event["data"]["cartons"]:
                if carton["kind"] == Kind.TEMPORARY_CARD:
                    batch_id, bank = event["data"]["batch_id"], carton["bank"]
                    self._advise(batch_id, bank, carton["kind"], carton["noted"], expected)

    def _settle(self, commit: Commit, event: Row, expected: Moves) -> None:
        """What strangers stand for follows from the numbers of their group, as the events of this
        commit have left them."""
        if commit.line not in (Line.INVENTORY, Line.KEY_REPLACEMENT):
            raise _fault(commit, "他线结算", "another line settles", event)
        data = event["data"]
        key = _key(data)
        group = self.groups[key]
        if (data["times"], data["stand_ins"]) != (group.times + 1, group.due):
            raise _fault(commit, "替代数不符", "stand-ins that the numbers do not show", event)
        surplus = Account(SURPLUS_READ, key.kind, key.bank)
        missing = Account(MISSING_READ, key.kind, key.bank)
        more = group.due - group.stand_ins
        if more:
            expected[(surplus, missing) if more > 0 else (missing, surplus)] += abs(more)
        self.groups[key] = replace(group, times=data["times"], stand_ins=data["stand_ins"])

    def _count(self, key: GroupKey, more: int) -> str:
        """One more (1) or one less (-1) is counted; answers the account out of which it came. A
        body that was counted is one that was missing, as long as any is."""
        group = self.groups[key]
        after = replace(group, counted=group.counted + more)
        self.groups[key] = after
        nth = max(group.counted, after.counted)
        return MISSING_COUNTED if nth <= group.advised else SURPLUS_COUNTED

    def _stranger(self, body: Body | None, more: int) -> None:
        if body is not None and body.condition in STRANGERS:
            group = self.groups[_key(vars(body))]
            self.groups[_key(vars(body))] = replace(group, unadvised=group.unadvised + more)

    def settled_rows(self) -> dict[tuple[str, ...], dict[str, Any]]:
        """What table `settled_group` must hold, by its key."""
        return {
            key: {"times": group.times, "stand_ins": group.stand_ins}
            for key, group in self.groups.items()
            if group.times
        }

    def _recounted(self, commit: Commit, event: Row, after: Body, expected: Moves) -> None:
        """A body that a recount takes up, or withdraws: as if it had been counted so at once."""
        if event["type"] == EventType.BODY_COUNTED:
            place = self._count(_key(vars(after)), 1)
            source = Account(place, after.kind, after.bank)
            expected[source, Account(SURPLUS_READ, after.kind, after.bank)] += 1
            right = event["data"]["source"] == place
        else:
            place = self._count(_key(vars(after)), -1)
            right = after.place == place and not after.identification_code and not after.live
        if not right:
            raise _fault(commit, "重新清点来源不符", "a recount of the wrong account", event)

    def _advise(self, batch_id: str, bank: str, kind: str, count: int, expected: Moves) -> None:
        """As `actors.receiving.advise`: what was counted beyond the advice stops being surplus."""
        key = GroupKey(batch_id, bank, str(kind))
        group = self.groups[key]
        found = min(count, max(0, group.counted - group.advised))
        self.groups[key] = replace(group, advised=group.advised + count)
        source = Account(FACTORY_ADVISED, str(kind), bank)
        for place, n in ((SURPLUS_COUNTED, found), (MISSING_COUNTED, count - found)):
            if n:
                expected[source, Account(place, str(kind), bank)] += n

    def _receive(self, commit: Commit, event: Row, expected: Moves) -> None:
        data = event["data"]
        if event["body_id"] in self.bodies:
            raise _fault(commit, "卡体重复收入", "a body is received twice", event)
        body = Body(
            event["body_id"],
            **{c: data[c] for c in BORN_WITH},
            place=event["place"],
            condition=event["condition"],
            order_id=event["order_id"],
            **_borne(data),
        )
        if not is_legal("", body.place):
            raise _fault(commit, "非法移动", "no body comes in there", event)
        if body.lease or body.released:
            raise _fault(commit, "新卡体已有租约", "a new body has a lease", event)
        self._check_condition(commit, event, body)
        source = data["source"]
        apart = standing(body.place) in _SET_APART
        if source != (SURPLUS_READ if apart else self._count(_key(vars(body)), 1)):
            raise _fault(commit, "收入来源不符", "it comes out of the wrong account", event)
        expected[Account(source, body.kind, body.bank), body.account] += 1
        self.orders.bind(None, body, partial(_fail, commit, event))
        self.bodies[body.body_id] = body

    def _change(self, commit: Commit, event: Row, expected: Moves) -> None:
        before = self.bodies.get(event["body_id"])
        if before is None:
            raise _fault(commit, "卡体未收入", "the body was never received", event)
        data = event["data"]
        changed = {"order_id": event["order_id"], **_borne(data)}
        if event["place"]:
            changed |= {"place": event["place"], "condition": event["condition"]}
        after = replace(before, **changed)
        fail = partial(_fail, commit, event)
        if event["place"]:
            if not is_legal(before.place, after.place):
                raise _fault(commit, "非法移动", "not a legal transition", event)
            self.lots.moved(before, after, data, fail)
            expected[before.account, after.account] += 1
        elif event["type"] == EventType.SAMPLE_MISSING:
            self.lots.missing(after, data, fail)
        elif event["condition"]:
            raise _fault(commit, "原因没有位置", "a condition without a place", event)
        self.floor_acts.moved(event["type"], data, before, after, fail)
        if event["type"] in OF_FLOOR_ACTS:
            self.floor_acts.brings(event["type"], after.body_id, data, fail)
        self._check_condition(commit, event, after)
        check_lease(event["type"], data, before, after, fail)
        if event["type"] in (EventType.BODY_COUNTED, EventType.BODY_WITHDRAWN):
            self._recounted(commit, event, after, expected)
        elif standing(after.place) in _OUTSIDE or before.condition == Code.OVER_COUNT:
            raise _fault(commit, "非法移动", "only a recount does that", event)
        self._stranger(before, -1)
        self._stranger(after, 1)
        self.orders.bind(before, after, fail)
        self.bodies[after.body_id] = after

    def _check_condition(self, commit: Commit, event: Row, body: Body) -> None:
        if bool(body.condition) != (standing(body.place) in _SET_APART):
            raise _fault(commit, "原因与位置不符", "a reason belongs to what is set apart", event)
        stop = self.orders.stop_of(body.order_id)
        if body.condition in STOPPED and stop != body.condition:
            raise _fault(commit, "订单未被停办", "its order was not stopped", event)
        scrapped = event["type"] == EventType.BODY_SCRAPPED
        if scrapped != (body.condition == Code.SCRAPPED) or (scrapped and body.live):
            raise _fault(commit, "报废与事件不符", "scrapped by another event", event)
        if stop and body.place == PACKED:
            raise _fault(commit, "停办订单的卡片被装包", "packed for a stopped order", event)


def _was_last(left: Counter[str], key: str) -> bool:
    """Counts one event less; whether it was the last one."""
    left[key] -= 1
    if left[key]:
        return False
    del left[key]
    return True


def _fail(commit: Commit, event: Row, chinese: str, english: str) -> Fault:
    return _fault(commit, chinese, english, event)


def _key(names: Row) -> GroupKey:
    return GroupKey(names["batch_id"], names["bank"], names["kind"])


def _borne(data: Row) -> dict[str, Any]:
    borne = {c: data[c] for c in BORNE if c in data}
    for flag in ("released", "live"):
        if flag in borne:
            borne[flag] = bool(borne[flag])
    return borne


def _accounts(row: Row) -> tuple[Account, Account]:
    kind, bank = row["kind"], row["bank"]
    return (
        Account(row["source_place"], kind, bank, row["source_condition"]),
        Account(row["target_place"], kind, bank, row["target_condition"]),
    )


def _fault(
    commit: Commit, chinese: str, english: str, event: Row | None = None, table: str = "event"
) -> Fault:
    subject = ""
    if event is not None:
        kind = f"事件 event {event['type']}"
        body = f"，卡体 body {event['body_id']}" if event["body_id"] else ""
        order = f"，订单 order {event['order_id']}" if event["order_id"] else ""
        subject = kind + body + order
    return Fault(
        chinese, english, table=table, line=commit.line, number=commit.number, subject=subject
    )
