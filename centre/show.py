"""What the `centre` commands print."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from centre.config import Config
from centre.floor import state_of
from domain.codes import in_words
from ledger.history import batch_overview, body_history
from ledger.queries import Queries
from ledger.verify import Report

# A pipe has no width of its own: wide enough that no cell is cut.
_console = Console(highlight=False) if sys.stdout.isatty() else Console(width=200, highlight=False)


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
    content = state_of(config.home)
    ready = False
    if content is not None:
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
        " where place not like 'factory/%' group by place, condition, kind, bank"
        " order by place, condition, kind, bank"
    ):
        reason = in_words(r["condition"]) if r["condition"] else ""
        places.add_row(r["place"], reason, r["kind"], r["bank"], str(r["n"]))
    _console.print(places)
    return ready


def body(queries: Queries, identifier: str) -> bool:
    """A card's history, one line a step; whether anything is known."""
    steps = body_history(queries, identifier)
    if not steps:
        _console.print("查无此卡 nothing is known of it: give a body id, an order id or an"
                       " identification code")  # fmt: skip
        return False
    for step in steps:
        subject = " ".join(i for i in (step.body_id, step.order_id) if i)
        _console.print(f"{step.at}  {subject:<42}  {step.words}")
    return True


def batch(queries: Queries, batch_id: str) -> bool:
    """A batch as it stands; whether it is known."""
    overview = batch_overview(queries, batch_id)
    if not overview:
        _console.print(f"无此批次 no such batch: {batch_id}")
        return False
    _table(
        "来文 files",
        overview["files"],
        {"file_id": "编号 id", "kind": "种类 kind", "records": "记录 records",
         "refused": "拒收 refused"},
    )  # fmt: skip
    for delivery in overview["deliveries"]:
        _table(
            f"送货 delivery {delivery['delivery_id']}: {delivery['state']}",
            delivery["cartons"],
            {"carton_id": "箱 carton", "bank": "银行 bank", "kind": "卡种 kind",
             "noted": "单列 noted", "counted": "清点 counted", "destination": "去向 destination"},
        )  # fmt: skip
    _table(
        f"卡片 bodies (订单 orders {overview['orders']})",
        overview["places"],
        {"words": "位置 place", "reason": "原因 reason", "bodies": "张 bodies"},
    )
    for sent in overview["returns"]:
        taken = "已接收 taken" if sent["acknowledged"] else "待接收 not taken yet"
        _console.print(f"中心回盘 centre return {sent['id']}: {taken}")
    for waits in overview["waits_for"]:
        _console.print(f"等待 waits for: {waits}")
    return True


def _table(title: str, rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> None:
    table = Table(*columns.values(), title=title, title_justify="left")
    for row in rows:
        table.add_row(*(str(row[name]) for name in columns))
    _console.print(table)


def report(found: Report) -> None:
    """The result of a verification."""
    if found.ok:
        _console.print("账实相符 the ledger holds together")
    else:
        # The finding may quote what somebody wrote into the database.
        _console.print(f"不符 does not fit: {found.finding}", markup=False)
    _console.print(
        f"提交 commits {found.commits}, 事件 events {found.events}, 卡片 bodies {found.bodies}, "
        f"签名 signed heads {found.signatures}; "
        f"未签名 unsigned tail {found.unsigned_commits} commits, {found.unsigned_seconds:.0f} s"
    )
