"""The auditor finds what does not fit, wherever it was changed, and names the card concerned."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from proof.audit import audit
from proof.evidence import BrokenPromise

# Whoever comes first waits for the demo.
pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def copy(finished: Path, place: Path) -> Path:
    home = place / "audited"
    shutil.copytree(finished, home)
    return home


def shipped(home: Path) -> dict[str, Any]:
    """A sound card of plastic that was shipped, by its order."""
    truth = json.loads((home / "sent" / "truth.json").read_text("utf-8"))
    planted = {f["order_id"] for f in truth["faults"]}
    rows = [r for f in (home / "return").glob("*.jsonl") for r in read(f)]
    orders = [r["order_id"] for r in rows if r["result"] == "shipped" and r.get("order_id")]
    order = next(o for o in orders if o not in planted)
    return {"order": order, "card": truth["cards"][order]}


def read(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def change(file: Path, alter: Callable[[dict[str, Any]], bool | None]) -> None:
    """Write the JSON lines of a file anew, each altered; False: left out."""
    rows = [row for row in read(file) if alter(row) is not False]
    file.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), "utf-8")


def key_written_twice(home: Path, card: dict[str, Any]) -> None:
    def alter(row: dict[str, Any]) -> None:
        if row.get("card") == card["card"]:
            row["social"]["keys"][0]["written"] = 2

    change(home / "trays" / "tray-1.jsonl", alter)


def key_of_another(home: Path, card: dict[str, Any]) -> None:
    def alter(row: dict[str, Any]) -> None:
        if row.get("card") == card["card"]:
            row["social"]["keys"][0]["value"] = "11" * 16

    change(home / "trays" / "tray-1.jsonl", alter)


def data_of_another(home: Path, card: dict[str, Any]) -> None:
    def alter(row: dict[str, Any]) -> None:
        if row.get("card") == card["card"]:
            row["social"]["records"]["06"]["0D"] = "19000101"

    change(home / "trays" / "tray-1.jsonl", alter)


def on_another_stack(home: Path, card: dict[str, Any]) -> None:
    def alter(row: dict[str, Any]) -> None:
        if row.get("card") == card["card"]:
            row["stack"] = "held"

    change(home / "trays" / "tray-1.jsonl", alter)


def lost_from_the_return(home: Path, card: dict[str, Any]) -> None:
    for file in (home / "sent" / "received").glob("*.jsonl"):
        change(file, lambda row: row["order_id"] != card["order"])


def laid_into_two_packages(home: Path, card: dict[str, Any]) -> None:
    notes = home / "journals" / "packer.jsonl"
    ticket = f"tray-1/{card['card']}"
    name = next(r["package"] for r in read(notes) if ticket not in r["tickets"])

    def alter(row: dict[str, Any]) -> None:
        if row["package"] == name:
            row["tickets"].append(ticket)

    change(notes, alter)


def moved_in_the_ledger(home: Path, card: dict[str, Any]) -> None:
    statement = f"update body set place = 'courier/nowhere' where order_id = '{card['order']}'"
    run_sql(home, statement)


def shipped_twice(home: Path, card: dict[str, Any]) -> None:
    run_sql(
        home,
        "insert into event (line, number, position, type, body_id, order_id, place, condition,"
        " data) select line, number, 999999, type, body_id, order_id, place, condition, data from"
        f" event where type = 'body_shipped' and body_id = (select body_id from body where"
        f" order_id = '{card['order']}')",
    )


def run_sql(home: Path, statement: str) -> None:
    """In a process of its own, as every user of the ledger is."""
    code = (
        "import sys; from pathlib import Path; from ledger.connection import connect\n"
        "c = connect(Path(sys.argv[1]), write=True); c.execute(sys.argv[2]).close(); c.close()"
    )
    subprocess.run([sys.executable, "-c", code, str(home / "ledger.db"), statement], check=True)


@pytest.mark.parametrize(
    ("tamper", "promise"),
    [
        (key_written_twice, "was written 2 times"),
        (key_of_another, "is not the province's"),
        (data_of_another, "carries another birth_date"),
        (on_another_stack, "lies held, not good"),
        (lost_from_the_return, "card management took .* as the ledger says"),
        (laid_into_two_packages, "the plastic in a package"),
        (moved_in_the_ledger, "lies where its last event put it"),
        (shipped_twice, "body_shipped happened 2 times"),
    ],
)
def test_the_auditor_bites(
    copy: Path,
    place: Path,
    tamper: Callable[[Path, dict[str, Any]], None],
    promise: str,
) -> None:
    """What was changed in the plastic, a file or the ledger behind everybody's back is found; put
    back, nothing is."""
    touched = ["trays", "sent", "journals", "ledger.db", "ledger.db-wal", "ledger.db-shm"]
    kept = place / "kept"
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir()
    for name in touched:
        if (copy / name).exists():
            (shutil.copytree if (copy / name).is_dir() else shutil.copy)(copy / name, kept / name)
    tamper(copy, shipped(copy))
    with pytest.raises(BrokenPromise, match=promise):
        audit(copy, place / "envelopes")
    for name in touched:
        if (copy / name).is_dir():
            shutil.rmtree(copy / name)
        else:
            (copy / name).unlink(missing_ok=True)
        if (kept / name).exists():
            (kept / name).rename(copy / name)
    audit(copy, place / "envelopes")
