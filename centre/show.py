"""What the `centre` commands print."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console
from rich.table import Table

from centre.config import Config
from domain.codes import in_words
from ledger.history import batch_overview, body_history
from ledger.queries import Queries
from ledger.verify import Report

_console = Console(soft_wrap=True, highlight=False)


def receipt(message: Any) -> dict[str, Any]:
    """A receipt (proto) as the commands show it."""
    shown = {
        "accepted": message.accepted,
        "code": message.code,
        "words": in_words(message.code),
        "reason": message.reason,
        "next_step": message.next_step,
        "records": message.records,
        "taken": message.taken,
        "repeated": message.repeated,
    }
    return {k: v for k, v in shown.items() if v != ""}


def status(config: Config, queries: Queries) -> bool:
    """Parts and places; whether the centre is up and every part ready."""
    state = config.run / "state.json"
    ready = False
    if state.exists():
        content = json.loads(state.read_text(encoding="utf-8"))
        table = Table("部件 part", "状态 state", "说明 note", title=f"{content['listen']}")
        for name, health in content["actors"].items():
            table.add_row(name, health["state"], str(health.get("note", "")))
        _console.print(table)
        _console.print(f"截至 as of {content['at']}")
        ready = all(h["state"] == "ready" for h in content["actors"].values())
    else:
        _console.print("未启动 the centre is not up")
    places = Table("位置 place", "原因 reason", "卡种 kind", "银行 bank", "张 bodies")
    for r in queries.rows(
        "select place, condition, kind, bank, count(*) as n from body"
        " group by place, condition, kind, bank order by place, condition, kind, bank"
    ):
        reason = in_words(r["condition"]) if r["condition"] else ""
        places.add_row(r["place"], reason, r["kind"], r["bank"], str(r["n"]))
    _console.print(places)
    return ready
