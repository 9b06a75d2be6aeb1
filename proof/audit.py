"""An auditor of a finished demo who shares no code with those who wrote it.

Reads the plastic (trays), what the factory truly did (`sent/truth.json`), what came in and what
went out, and says for every card what must have become of it.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FAULTS = {
    "silent_chip": ("rejected", "CHIP_SILENT"),
    "foreign_formal_keys": ("held", "FORMAL_KEYS_FOREIGN"),
    "not_in_return": ("missing", "NOT_DELIVERED"),
    "other_person": ("rejected", "DATA_DIFFERS"),
    "carton_short": ("missing", "NOT_DELIVERED"),
    "unknown_bank": ("surplus", "UNKNOWN_BANK"),
    "bad_check_digit": ("surplus", "BAD_CHECK_DIGIT"),
    "repeated_identity": ("surplus", "REPEATED_NUMBER"),
    "order_cancelled": ("held", "CANCELLED"),
}
FORMAL_VERSION = 1
LOT_REFUSED = ("held", "LOT_REFUSED")
WORN = ("rejected", "KEY_NOT_PROVEN")
SAMPLES = ((280, 20, 0), (1_200, 80, 1), (3_200, 125, 2), (10_000, 200, 3))
"""GB/T 2828.1, level II, AQL 0.65, normal: largest lot, sample, nonconforming cards allowed."""


@dataclass(frozen=True)
class Evidence:
    """Everything outside the ledger, by its own keys."""

    home: Path
    cards: dict[str, dict[str, Any]]
    """Plastic by card id, as it lies in the trays at the end."""
    truth: dict[str, Any]
    records: list[dict[str, Any]]
    lines: list[dict[str, Any]]
    received: list[dict[str, Any]]
    """The centre return as card management has it."""
    summary: dict[str, Any]
    note: dict[str, Any]
    receipt: dict[str, Any]
    """What the factory return was answered."""

    @classmethod
    def read(cls, home: Path) -> Evidence:
        cards = {}
        for tray in sorted((home / "trays").glob("tray-*.jsonl")):
            journal = tray.with_suffix(".journal")
            assert not journal.exists() or not journal.read_bytes(), "the tray was not put away"
            for line in tray.read_text("utf-8").splitlines()[1:]:
                card = json.loads(line)
                cards[card["card"]] = card
        sent = home / "sent"
        return cls(
            home,
            cards,
            json.loads((sent / "truth.json").read_text("utf-8")),
            _lines(sent / "factory_return.jsonl"),
            [r for f in sorted((home / "return").glob("*.jsonl")) for r in _lines(f)],
            [r for f in sorted((sent / "received").glob("*.jsonl")) for r in _lines(f)],
            json.loads((home / "summary.json").read_text("utf-8")),
            json.loads((sent / "delivery_note.json").read_text("utf-8")),
            json.loads((sent / "receipt-factory-return.json").read_text("utf-8")),
        )

    def expected(self) -> dict[str, tuple[str, str]]:
        """Result and reason of each order of the factory return."""
        results = {r["order_id"]: ("shipped", "") for r in self.records}
        results |= dict.fromkeys(self.refused_orders(), LOT_REFUSED)
        for fault in self.truth["faults"]:
            if fault["fault"] == "sent_again":
                continue  # as good as any other of its lot
            if fault["fault"] in FAULTS:
                results[fault["order_id"]] = FAULTS[fault["fault"]]
            elif fault["fault"] == "weak_chip":
                drawn = self.cards[fault["card"]]["stack"] == "rejected"
                results[fault["order_id"]] = WORN if drawn else LOT_REFUSED
        return results

    def refused_orders(self) -> set[str]:
        """Orders of a bank whose chips are weak: half of a lot, so that every sample finds it."""
        weak = {f["order_id"] for f in self.truth["faults"] if f["fault"] == "weak_chip"}
        bank_of = {c["carton_id"]: c["bank_code"] for c in self.note["cartons"]}
        banks = {bank_of[r["carton_id"]] for r in self.records if r["order_id"] in weak}
        return {r["order_id"] for r in self.records if bank_of[r["carton_id"]] in banks}

    def is_formal(self, card: dict[str, Any]) -> bool:
        return {k["version"] for k in card["social"]["keys"]} == {FORMAL_VERSION}


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def audit(home: Path) -> Evidence:
    """Fails with what does not fit; else every card is where it must be."""
    e = Evidence.read(home)
    _receipt(e)
    _orders(e)
    _bodies(e)
    _chips(e)
    _equation(e)
    _lots(e)
    _lists(e)
    _packages(e)
    _correction(e)
    return e


def _receipt(e: Evidence) -> None:
    """The factory heard of every bad record by its place; of a record that stands twice the
    second is the bad one."""
    code_of = {f["order_id"]: FAULTS[f["fault"]][1] for f in e.truth["faults"]
               if FAULTS.get(f["fault"], ("",))[0] == "surplus"}  # fmt: skip
    # Refused at first; a correction follows.
    code_of |= {f["order_id"]: "UNKNOWN_BANK" for f in e.truth["faults"]
                if f["fault"] == "sent_again"}  # fmt: skip
    expected, seen = {}, set()
    for number, r in enumerate(e.records, start=1):
        code = "REPEATED_NUMBER" if r["order_id"] in seen else code_of.get(r["order_id"])
        seen.add(r["order_id"])
        if code:
            expected[number] = code
    assert {r["record_number"]: r["code"] for r in e.receipt["refused"]} == expected
    assert e.receipt["taken"] == len(e.records) - len(expected)
    sent = e.home / "sent"
    commands = json.loads((sent / "receipt-stops.json").read_text("utf-8"))
    if commands:  # the hold was lifted again before the end
        commands += json.loads((sent / "receipt-releases.json").read_text("utf-8"))
    assert all(c["receipt"]["taken"] == len(c["order_ids"]) > 0 for c in commands)


def _orders(e: Evidence) -> None:
    """One line for each order, with the result that its card deserves, and the same lines at
    card management."""
    lines = [r for r in e.lines if r.get("order_id")]
    assert Counter(r["order_id"] for r in lines).most_common(1)[0][1] == 1
    found = {r["order_id"]: (r["result"], r["reason"]) for r in lines}
    expected = e.expected()
    differ = {o: (found.get(o), expected[o]) for o in expected if found.get(o) != expected[o]}
    assert not differ, f"{len(differ)} orders end otherwise: {sorted(differ.items())[:3]}"
    assert set(found) == set(expected)
    numbers = {r["order_id"]: r["social_card_number"] for r in e.records}
    surplus = {o for o, (result, _) in expected.items() if result == "surplus"}
    wrong = [r["order_id"] for r in lines
             if r["order_id"] not in surplus
             and r["social_card_number"] != numbers[r["order_id"]]]  # fmt: skip
    assert not wrong, f"{len(wrong)} lines carry another order's number"
    for r in lines:
        assert r["final"] is (r["result"] in ("shipped", "rejected", "cancelled"))
    assert len(e.received) == len(e.lines)
    assert Counter(r["result"] for r in e.received) == Counter(r["result"] for r in e.lines)


def _bodies(e: Evidence) -> None:
    """One line for each body without order: temporary cards, and strangers."""
    bodies = [r for r in e.lines if not r.get("order_id")]
    strangers = [f for f in e.truth["faults"] if f["fault"] in ("not_in_return", "surplus_card")]
    silent = [f for f in e.truth["faults"] if f["fault"] == "silent_temporary"]
    temporary = sum(c["count"] for c in e.note["cartons"] if c["kind"] == "temporary_card")
    assert len(bodies) == temporary + len(strangers)
    assert len({r["body_id"] for r in bodies}) == len(bodies)
    kinds = Counter((r["kind"], r["result"], r["reason"]) for r in bodies)
    expected = {
        ("temporary_card", "shipped", ""): temporary - len(silent),
        ("temporary_card", "rejected", "CHIP_SILENT"): len(silent),
        ("social_security_card", "surplus", "NOT_IN_RETURN"): len(strangers),
    }
    assert kinds == Counter({k: n for k, n in expected.items() if n})


def _chips(e: Evidence) -> None:
    """What lies on which stack, and with which keys."""
    planted = {f["card"]: f["fault"] for f in e.truth["faults"] if f["card"]}
    stacks = {
        "silent_chip": "rejected", "silent_temporary": "rejected", "other_person": "rejected",
        "foreign_formal_keys": "held", "not_in_return": "held", "unknown_bank": "held",
        "surplus_card": "held", "order_cancelled": "held",
        "bad_check_digit": "held", "repeated_identity": "held",
    }  # fmt: skip
    refused = {e.truth["cards"].get(order) for order in e.refused_orders()}
    for card_id, card in e.cards.items():
        fault = planted.get(card_id)
        sound = "held" if card_id in refused else "good"
        if fault != "weak_chip" or card["stack"] != "rejected":  # as far as they were drawn
            assert card.get("stack") == stacks.get(fault or "", sound), (card_id, fault)
        if fault in (None, "weak_chip", "sent_again", "record_twice", "order_on_hold"):
            assert e.is_formal(card), f"{card_id} left with keys that are not formal"
            assert all(k["tries_left"] == k["tries"] for k in card["social"]["keys"])
        elif fault in ("silent_chip", "not_in_return", "surplus_card", "unknown_bank"):
            assert not e.is_formal(card), f"{card_id} got formal keys"


def _equation(e: Evidence) -> None:
    """The summary, computed again from plastic, note and return, in all and by bank."""
    total = _count(e, None)
    assert {k: e.summary[k] for k in total} == total
    assert e.summary["reconciled"] is True
    banks = {c["bank_code"] for c in e.note["cartons"]}
    assert set(e.summary["banks"]) == banks
    for bank in banks:
        expected = _count(e, bank)
        assert {k: e.summary["banks"][bank][k] for k in expected} == expected


def _count(e: Evidence, bank: str | None) -> dict[str, int]:
    bank_of = {c["carton_id"]: c["bank_code"] for c in e.note["cartons"]}

    def mine(code: str) -> bool:
        return bank in (None, code)

    refused = {
        f["order_id"] for f in e.truth["faults"] if FAULTS.get(f["fault"], ("",))[0] == "surplus"
    }
    cards = [c for c in e.cards.values() if mine(bank_of[c["carton_id"]])]
    accepted = {
        r["order_id"]
        for r in e.records
        if r["order_id"] not in refused and mine(bank_of[r["carton_id"]])
    }
    temporary = sum(
        c["count"]
        for c in e.note["cartons"]
        if c["kind"] == "temporary_card" and mine(c["bank_code"])
    )
    lines = [r for r in e.lines if bank in (None, r["bank"])]
    results = Counter(r["result"] for r in lines)
    held = sum(1 for c in cards if c.get("stack") == "held")
    return {
        "advised": len(accepted) + temporary,
        "surplus": results["surplus"],
        "received": len(cards),
        "missing": results["missing"],
        "shipped": sum(1 for c in cards if c.get("stack") == "good"),
        "rejected": sum(1 for c in cards if c.get("stack") == "rejected"),
        "held": held,
        "in_work": 0,
        "destroyed": 0,
    }


def _lots(e: Evidence) -> None:
    """Every bank and kind was sampled as its size asks for, and judged as the sample says."""
    carton = {c["carton_id"]: (c["bank_code"], c["kind"]) for c in e.note["cartons"]}
    sound = ("weak_chip", "sent_again", "record_twice")
    aside = {f["card"] for f in e.truth["faults"] if f["fault"] not in sound}
    passed = Counter(carton[c["carton_id"]] for i, c in e.cards.items() if i not in aside)
    worn = Counter(r["bank"] for r in e.lines if (r["result"], r["reason"]) == WORN)
    lots = {lot["lot_id"]: lot for lot in e.summary["lots"]}
    assert len(lots) == len(passed)
    for (bank, kind), n in passed.items():
        lot = lots[f"{e.note['delivery_id']}-{bank}-{kind}"]
        found = lot["nonconforming"]
        # A station that died after the last step of a check lets inspection find the weak chip.
        before = worn[bank] - found if kind == "social_security_card" else 0
        assert before >= 0
        assert lot["size"] == n - before
        sample, allowed = next((s, a) for largest, s, a in SAMPLES if lot["size"] <= largest)
        assert lot["sample_size"] == min(sample, lot["size"])
        assert lot["state"] == ("accepted" if found <= allowed else "refused")
    sampled = sum(lot["sample_size"] for lot in lots.values())
    assert e.summary["stages"]["sampling"]["cards"] == sampled


def _correction(e: Evidence) -> None:
    """What was sent again came as a file, and every record of it was taken."""
    again = sum(f["fault"] == "sent_again" for f in e.truth["faults"])
    results = [f.read_text("gb18030").splitlines() for f in
               (e.home / "inbox" / "done").glob("*correction.txt.result.txt")]  # fmt: skip
    assert [(r[0].split("|")[1:3], r[0].split("|")[7:9], r[1:]) for r in results] == [
        (["1", "OK"], [str(again)] * 2, ["T|0"])
    ] * bool(again)


def _lists(e: Evidence) -> None:
    """Every destination of a shipped card has its lists; packages hold what the return says."""
    shipped = [r for r in e.lines if r["result"] == "shipped"]
    assert all(r["package"] for r in shipped)
    lists = {p.name for p in (e.home / "lists").glob("*/*")}
    for destination in {r["branch"] for r in shipped}:
        for name in ("sorting.csv", "sorting.pdf", "packing.csv", "packing.pdf"):
            assert f"{destination}-{name}" in lists
    holders = {r["order_id"]: r["has_temporary_card"] for r in e.records}
    mixed: dict[str, set[bool]] = {}
    for r in shipped:
        if r.get("order_id"):
            mixed.setdefault(r["package"], set()).add(holders[r["order_id"]])
    assert all(len(kinds) == 1 for kinds in mixed.values())


def _packages(e: Evidence) -> None:
    """What the packer laid into each package, by the plastic, is what the return says of it."""
    noted = {n["package"]: n["tickets"] for n in _lines(e.home / "journals" / "packer.jsonl")}
    tickets = Counter(t for packed in noted.values() for t in packed)
    assert set(tickets.values()) == {1}
    order_of = {card: order for order, card in e.truth["cards"].items()}
    scanned: Counter[tuple[str, str]] = Counter()
    for package, packed in noted.items():
        for ticket in packed:
            card = e.cards[ticket.partition("/")[2]]
            order = order_of[card["card"]] if card["face_number"] else card["carton_id"]
            scanned[package, order] += 1
    returned = Counter(
        (r["package"], r.get("order_id") or r["body_id"].partition(".")[0])
        for r in e.lines
        if r["result"] == "shipped"
    )
    assert scanned == returned
