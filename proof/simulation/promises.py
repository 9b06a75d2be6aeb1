"""The seven promises (docs/proof.md), checked after every step against the ledger (`mirror`) and
against what is true in the simulated world: chips, stacks, packages, what was acknowledged to whom.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from domain.card.profile import Profile
from domain.changes import Changes, Committed
from domain.lines import Receipt
from domain.places import Line
from domain.turns import Verdict
from proof.simulation.home import FORMAL_VERSION, is_formal_key
from proof.simulation.mirror import Broken, Link, Mirror
from proof.simulation.plastic import Card
from proof.simulation.trace import Trace
from station_agents.virtual.social_memory import KeyWritten

COMMITS_BETWEEN_AUDITS = 250
SOUND = ("", "record_twice", "order_on_hold", "sent_again", "order_cancelled", "carton_damaged",
         "surplus_card", "weak_chip")  # fmt: skip
"""What the factory or card management may have done to a card that is shipped all the same."""


class Promises:
    """The first promise that does not hold is kept in `found`; from then on nothing is checked."""

    def __init__(
        self, mirror: Mirror, profile: Profile, trace: Trace, now: Callable[[], str]
    ) -> None:
        """`now`: the time on the wall, as the ledger is told it."""
        self._now = now
        self.mirror, self._profile, self._trace = mirror, profile, trace
        self.found: Broken | None = None
        self.cards: dict[str, Card] = {}
        """By identification code."""
        self.tickets: dict[str, Card] = {}
        self.packed: dict[str, list[set[str]]] = defaultdict(list)
        """What lay in a package, by tickets, each time that it was scanned."""
        self.steps = 0
        self.commits = 0
        self.shipped = 0
        self._commands: dict[tuple[str, str], int] = {}
        """The link of each command that took effect."""
        self._doubted: dict[str, float] = {}
        """When a chip came to be in doubt."""
        self._decided: dict[tuple[str, str], str] = {}
        self._receipts: list[tuple[str, str]] = []
        """Line and command of everything that was acknowledged."""

    def broken(self, promise: int, text: str, *cards: str) -> None:
        if self.found is None:
            self.found = Broken(promise, text, *cards)
            self._trace.note("promises", str(self.found), *cards)

    # What the ledger does.

    def epoch_opened(self, line: str, epoch: int) -> None:
        if epoch <= self.mirror.epochs.get(line, 0):
            self.broken(5, f"{line}: epoch {epoch} was given out before")
        self.mirror.epochs[line] = epoch

    def decided(self, changes: Changes) -> None:
        """A line has decided this now, and hands it to the ledger for the first time or again."""
        self._decided.setdefault((changes.line, changes.command_id), self._now())

    def committed(self, changes: Changes, epoch: int, committed: Committed | None) -> None:
        """A commit was tried; whatever the caller hears, the ledger tells what it did."""
        if self.found is not None:
            return
        self.steps += 1
        try:
            before = self.mirror.bodies.copy() if self._by_lease(changes) else {}
            links = self.mirror.read(changes.line)
            if len(links) > 1:
                raise Broken(4, f"{changes.command_id} took effect {len(links)} times")
            for link in links:
                self._check_once(link, changes)
                self._check_outbox(link)
                self._check_meaning(link)
                self._check_leases(link, before)
                self._note(link)
            if committed is not None and not committed.repeated and not links:
                raise Broken(4, f"{changes.command_id} was acknowledged and is not there")
            self.commits += len(links)
            if links and self.commits % COMMITS_BETWEEN_AUDITS == 0:
                self.mirror.audit()
        except Broken as e:
            self.broken(e.promise, e.text, *e.cards)

    def _note(self, link: Link) -> None:
        counts = Counter(e["type"] for e in link.events)
        text = " ".join(f"{t}×{n}" if n > 1 else t for t, n in sorted(counts.items()))
        cards = [c for e in link.events for c in (e["body_id"], e["order_id"])]
        cards += [self.mirror.bodies[b]["identification_code"] for b in cards
                  if b in self.mirror.bodies]  # fmt: skip
        self._trace.note(link.line, f"commit {link.number}, epoch {link.epoch}: {text}",
                         *sorted({*cards}))  # fmt: skip

    def _check_once(self, link: Link, changes: Changes) -> None:
        """A line hands a command over again with the same object's content: once is enough."""
        command = changes.line, changes.command_id
        if command in self._commands:
            bodies = [e["body_id"] for e in link.events]
            first = self._commands[command]
            text = f"{changes.command_id} took effect twice, in commits {first} and {link.number}"
            raise Broken(4, text, *bodies)
        self._commands[command] = link.number

    def _check_outbox(self, link: Link) -> None:
        """What leaves is in the outbox as soon as its event is in the ledger."""
        for event in link.events:
            for outbox_id in event["data"].get("outbox", ()):
                if not self.mirror.rows("select id from outbox where id = ?", outbox_id):
                    raise Broken(4, f"{event['type']}: {outbox_id} is not in the outbox")

    def _check_meaning(self, link: Link) -> None:
        for event in link.events:
            if event["place"].startswith("courier/"):
                self._check_shipped(self.mirror.bodies[event["body_id"]])
            elif event["type"] == "return_written":
                self._check_return(event["data"]["batch_id"])

    def _by_lease(self, changes: Changes) -> bool:
        return changes.line == Line.KEY_REPLACEMENT

    def _check_leases(self, link: Link, before: dict[str, dict[str, Any]]) -> None:
        """What a station did whose lease was over moves nothing; a card in doubt comes back to work
        only when its chip was looked at since."""
        for event in link.events:
            was = before.get(event["body_id"])
            if was is None:
                continue
            names = was["body_id"], was["identification_code"], was["order_id"]
            decided = self._decided[link.line, link.command_id]
            if event["type"] == "keys_replaced" and decided >= was["leased_until"]:
                until = was["leased_until"] or "no lease at all"
                raise Broken(5, f"{was['body_id']} moved at {decided}, its lease: {until}", *names)
            if event["type"] == "body_in_doubt":
                self._doubted[was["identification_code"]] = self._trace.time()
            if was["condition"] != "IN_DOUBT" or not event["place"]:
                continue
            card = self.cards.get(was["identification_code"])
            now = self.mirror.bodies[event["body_id"]]
            # Back at work it is leased in the session that looked; set apart, to nobody.
            seen = card.answered if card else {}
            looked = seen.get(now["leased_in"], -1.0) if now["leased_in"] else max(seen.values())
            if looked <= self._doubted[was["identification_code"]]:
                raise Broken(5, f"{was['body_id']} is in doubt, and nobody looked at it", *names)

    def _check_shipped(self, body: dict[str, Any]) -> None:
        """Promise 3, by what is truly on the chip and in the package."""
        self.shipped += 1
        card = self.cards.get(body["identification_code"])
        if card is None:
            raise Broken(3, f"{body['body_id']} was shipped, and is no card", body["body_id"])
        names = body["body_id"], card.code, card.ticket, body["order_id"]
        for key in card.plastic.memory.social.keys.values():
            usage = next(s.usage for s in self._profile.keys if s.key_id == key.key_id)
            formal = is_formal_key(self._profile, usage, card.code, key.value)
            if key.version != FORMAL_VERSION or not formal:
                raise Broken(3, f"{body['body_id']} was shipped, its {usage} is not formal", *names)
        if card.truth.fault not in SOUND or card.truth.order_id != body["order_id"]:
            what = card.truth.fault or "it is another order's"
            raise Broken(3, f"{body['body_id']} was shipped: {what}", *names)
        if body["place"] != f"courier/{card.truth.destination}" and (
            body["order_id"] or not body["place"].startswith("courier/window-")
        ):
            raise Broken(3, f"{body['body_id']} was shipped to {body['place']!r}", *names)
        if not {"keys_replaced", "inspected"} <= self.mirror.events_of[body["body_id"]]:
            raise Broken(3, f"{body['body_id']} was shipped and not inspected", *names)
        self._check_lot_and_package(body, card, *names)

    def _check_lot_and_package(self, body: dict[str, Any], card: Card, *names: str) -> None:
        found = self.mirror.rows(
            "select c.delivery_id, p.state from carton c, package p"
            " where c.carton_id = ? and p.package_id = ?", body["carton_id"], body["package_id"],
        )  # fmt: skip
        if not found or found[0]["state"] != "closed":
            raise Broken(3, f"{body['body_id']} was shipped in an open package", *names)
        lot = f"{found[0]['delivery_id']}-{body['bank']}-{body['kind']}"
        if lot not in self.mirror.accepted_lots:
            raise Broken(3, f"{body['body_id']} was shipped, lot {lot} is not accepted", *names)
        # Cards without a number are counted: which of them lies where, nobody can tell.
        if body["order_id"] and not any(card.ticket in p for p in self.packed[body["package_id"]]):
            raise Broken(3, f"{body['body_id']} was shipped and never packed", *names)

    def _check_return(self, batch_id: str) -> None:
        """Promise 6, over all revisions: each order of the batch has one line that stands, at most
        one final line, and that one is never superseded; what is said to be shipped is."""
        found = {
            r["order_id"]: r
            for r in self.mirror.rows(
                "select order_id, sum(case when superseded_by = 0 then 1 else 0 end) as stand,"
                " sum(final) as final,"
                " sum(case when final = 1 and superseded_by <> 0 then 1 else 0 end) as taken_back,"
                " sum(case when final = 1 and result = 'shipped' then 1 else 0 end) as shipped"
                " from return_line where batch_id = ? and order_id <> '' and result <> 'surplus'"
                " group by order_id",
                batch_id,
            )
        }
        at_courier = {
            b["order_id"]
            for b in self.mirror.bodies.values()
            if b["batch_id"] == batch_id and b["place"].startswith("courier/")
        }
        for order in self.mirror.rows("select order_id from orders where batch_id = ?", batch_id):
            order_id = order["order_id"]
            said = found.get(order_id, {"stand": 0, "final": 0, "taken_back": 0, "shipped": 0})
            if said["stand"] != 1 or said["final"] > 1 or said["taken_back"]:
                text = (
                    f"order {order_id} has {said['stand']} lines that stand, {said['final']} final"
                )
                raise Broken(6, text, order_id)
            if said["shipped"] and order_id not in at_courier:
                raise Broken(6, f"order {order_id} is returned as shipped, and is not", order_id)

    # What chips and stations do.

    def key_written(self, card: Card, change: KeyWritten) -> None:
        """A chip takes a key: the ledger knew before, and it was not done blindly."""
        self.steps += 1
        body = self.mirror.by_chip(card.code)
        names = card.ticket, card.code, body["body_id"] if body else ""
        self._trace.note("chip", f"key {change.key_id:02X} version {change.version}", *names)
        if body is None or not body["released"]:
            self.broken(5, "a key was written that the ledger did not release", *names)
        if card.written[change.key_id]:
            self.broken(5, f"key {change.key_id:02X} was written again, blindly", *names)

    def told(self, card: Card, stage: str, verdict: Verdict) -> None:
        """A station was told what becomes of a card: the ledger has it."""
        self.steps += 1
        body = self.mirror.by_chip(card.code)
        if body is None or self.found is not None:
            return  # a card that says nothing, or that is no advised one
        events = self.mirror.events_of[body["body_id"]]
        wanted = {"good": {"inspected"}, "rejected": {"body_rejected"}}.get(verdict.stack, set())
        if verdict.next_stage == "inspection":
            wanted = {"keys_replaced"}
        if not wanted <= events:
            text = f"{stage} said {verdict.stack or verdict.next_stage}, the ledger has no"
            self.broken(4, f"{text} {' '.join(sorted(wanted - events))}",
                        card.ticket, card.code, body["body_id"])  # fmt: skip

    # What was acknowledged to people and counterparts.

    def acknowledged(self, line: str, command_id: str, receipt: Receipt) -> None:
        """Somebody was told that a command took effect: it is in the ledger, and stays there."""
        self.steps += 1
        if receipt.accepted:
            self._receipts.append((line, command_id))
            self._still_there([(line, command_id)])

    def _still_there(self, receipts: Sequence[tuple[str, str]]) -> None:
        there = {
            (r["line"], r["command_id"])
            for line in {line for line, _ in receipts}
            for r in self.mirror.rows(
                "select line, command_id from commit_link where line = ?"
                + (" and command_id = ?" if len(receipts) == 1 else ""),
                *([line, receipts[0][1]] if len(receipts) == 1 else [line]),
            )
        }
        gone = [c for line, c in receipts if (line, c) not in there]
        if gone:
            self.broken(4, f"{gone[0]} was acknowledged and is not in the ledger")

    def at_the_end(self) -> None:
        """Everything once more, as a whole."""
        if self.found is None:
            try:
                self.mirror.audit()
            except Broken as e:
                self.broken(e.promise, e.text, *e.cards)
            self._still_there(self._receipts)
