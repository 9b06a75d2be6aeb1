"""An auditor of a finished home who shares no code with those who wrote it.

Reads the plastic (trays), what the factory truly did (`sent/truth.json`), what came in and what
went out, and says for every card what must have become of it; then compares all of that with the
ledger (`audit_ledger`), and the keys and data on the plastic with what they must be (`audit_keys`).
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from proof.audit_keys import audit_data, audit_keys, audit_untouched, masters_in
from proof.audit_ledger import audit_ledger
from proof.evidence import BrokenPromise, Evidence, rows_of, same

FAULTS = {
    "silent_chip": ("rejected", "CHIP_SILENT"),
    "foreign_formal_keys": ("held", "FORMAL_KEYS_FOREIGN"),
    "not_in_return": ("missing", "NOT_DELIVERED"),
    "other_person": ("rejected", "DATA_DIFFERS"),
    "carton_short": ("missing", "NOT_DELIVERED"),
    "unknown_bank": ("surplus", "UNKNOWN_BANK"),
    "bad_check_digit": ("surplus", "BAD_CHECK_DIGIT"),
    "repeated_identity": ("surplus", "REPEATED_NUMBER"),
    "order_cancelled": ("cancelled", "CANCELLED"),
}
SOUND = ("weak_chip", "sent_again", "record_twice", "order_on_hold")
"""Faults with which a card gets its keys like any other."""
UNTOUCHED = ("silent_chip", "not_in_return", "surplus_card", "unknown_bank", "foreign_formal_keys")
FORMAL_VERSION = 1
LOT_REFUSED = ("held", "LOT_REFUSED")
WORN = ("rejected", "KEY_NOT_PROVEN")
SAMPLES = ((280, 20, 0), (1_200, 80, 1), (3_200, 125, 2), (10_000, 200, 3), (35_000, 315, 5))
"""GB/T 2828.1, level II, AQL 0.65, normal: largest lot, sample, nonconforming cards allowed."""


def expected(e: Evidence) -> dict[str, tuple[str, str]]:
    """Result and reason of each order of the factory return."""
    results = {r["order_id"]: ("shipped", "") for r in e.records}
    results |= dict.fromkeys(refused_orders(e), LOT_REFUSED)
    for fault in e.truth["faults"]:
        if fault["fault"] == "sent_again":
            continue  # as good as any other of its lot
        if fault["fault"] in FAULTS:
            results[fault["order_id"]] = FAULTS[fault["fault"]]
        elif fault["fault"] == "weak_chip":
            drawn = e.cards[fault["card"]]["stack"] == "rejected"
            results[fault["order_id"]] = WORN if drawn else LOT_REFUSED
    return results


def refused_orders(e: Evidence) -> set[str]:
    """Orders of a bank whose chips are weak: half of a lot, so that every sample finds it."""
    weak = {f["order_id"] for f in e.truth["faults"] if f["fault"] == "weak_chip"}
    bank_of = {c["carton_id"]: c["bank_code"] for c in e.note["cartons"]}
    banks = {bank_of[r["carton_id"]] for r in e.records if r["order_id"] in weak}
    return {r["order_id"] for r in e.records if bank_of[r["carton_id"]] in banks}


def is_formal(card: dict[str, Any]) -> bool:
    return {k["version"] for k in card["social"]["keys"]} == {FORMAL_VERSION}


def audit(home: Path, envelopes: Path | None = None) -> Evidence:
    """Raises BrokenPromise (or AssertionError) with what does not fit; else every card is where it
    must be. With the custodians' `envelopes` the keys on the plastic are computed anew too."""
    e = Evidence.read(home)
    _receipt(e)
    _orders(e)
    _revisions(e)
    _bodies(e)
    _chips(e)
    _equation(e)
    _lots(e)
    _lists(e)
    _correction(e)
    audit_ledger(home)
    _keys(e, envelopes)
    return e


def _receipt(e: Evidence) -> None:
    """The factory heard of every bad record by its place; of a record that stands twice the
    second is the bad one."""
    code_of = {f["order_id"]: FAULTS[f["fault"]][1] for f in e.truth["faults"]
               if FAULTS.get(f["fault"], ("",))[0] == "surplus"}  # fmt: skip
    # Refused at first; a correction follows.
    code_of |= {f["order_id"]: "UNKNOWN_BANK" for f in e.truth["faults"]
                if f["fault"] == "sent_again"}  # fmt: skip
    refused, seen = {}, set()
    for number, r in enumerate(e.records, start=1):
        code = "REPEATED_NUMBER" if r["order_id"] in seen else code_of.get(r["order_id"])
        seen.add(r["order_id"])
        if code:
            refused[number] = code
    assert {r["record_number"]: r["code"] for r in e.receipt["refused"]} == refused
    assert e.receipt["taken"] == len(e.records) - len(refused)
    sent = e.home / "sent"
    commands = json.loads((sent / "receipt-stops.json").read_text("utf-8"))
    if commands:  # the hold was lifted again: before the end, but after the return
        commands += json.loads((sent / "receipt-releases.json").read_text("utf-8"))
    assert all(c["receipt"]["taken"] == len(c["order_ids"]) > 0 for c in commands)


def _orders(e: Evidence) -> None:
    """One line for each order, with the result that its card deserves, and the same lines at
    card management."""
    told = {r["order_id"]: r for r in e.lines if r.get("order_id")}
    deserved = expected(e)
    same({o: (r["result"], r["reason"]) for o, r in told.items()}, deserved,
         "an order ends as its card deserves")  # fmt: skip
    numbers = {r["order_id"]: r["social_card_number"] for r in e.records}
    for order_id, r in told.items():
        if r["result"] != "surplus" and r["social_card_number"] != numbers[order_id]:
            raise BrokenPromise("the line carries another order's number", order_id)
        if r["final"] is not (r["result"] in ("shipped", "rejected", "cancelled")):
            raise BrokenPromise("the line is final, or is not, and should be", order_id)


def _revisions(e: Evidence) -> None:
    """An order on hold had an interim line in the first return, and its final one in a revision."""
    first = [r for f in (e.home / "return").glob("*-1.jsonl") for r in rows_of(f)]
    on_hold = {f["order_id"] for f in e.truth["faults"] if f["fault"] == "order_on_hold"}
    told = {r["order_id"]: (r["reason"], r["final"]) for r in first if r.get("order_id") in on_hold}
    waits = dict.fromkeys(on_hold, ("ON_HOLD", False))
    same(told, waits, "an order on hold has an interim line in the first return")
    for r in e.lines:
        if r["reason"] == "ON_HOLD":
            raise BrokenPromise("no revision says how an order on hold ended", r["order_id"])


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
    refused = {e.truth["cards"].get(order) for order in refused_orders(e)}
    for card_id, card in e.cards.items():
        fault = planted.get(card_id)
        sound = "held" if card_id in refused else "good"
        drawn = fault == "weak_chip" and card["stack"] == "rejected"
        wanted = "rejected" if drawn else stacks.get(fault or "", sound)
        if card.get("stack") != wanted:
            raise BrokenPromise(f"{card_id} ({fault}) lies {card.get('stack')}, not {wanted}")


def _keys(e: Evidence, envelopes: Path | None) -> None:
    """Keys and data on the plastic: those of a sound card are formal and each was written once,
    those of a card that must not be keyed were never written."""
    order_of = {card: order for order, card in e.truth["cards"].items()}
    planted = {f["card"]: f["fault"] for f in e.truth["faults"] if f["card"]}
    named = [(order_of.get(i, ""), i, c) for i, c in e.cards.items()]
    keyed = [(o or i, c) for i, c in e.cards.items() for o in [order_of.get(i, "")]
             if planted.get(i) in (None, *SOUND)]  # fmt: skip
    for name, card in keyed:
        if not is_formal(card):
            raise BrokenPromise("left with keys that are not formal", name)
    audit_untouched([(o or i, c) for o, i, c in named if planted.get(i) in UNTOUCHED])
    if envelopes is not None:
        audit_keys(keyed, masters_in(envelopes))
    records = {r["order_id"]: r for r in e.records}
    audit_data([(o, c) for o, i, c in named if o in records and c.get("stack") == "good"], records)


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
    told = [r for r in e.lines if bank in (None, r["bank"])]
    results = Counter(r["result"] for r in told)
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
