"""What the `centre` commands print."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from centre.config import Config
from centre.floor import state_of
from domain.codes import in_words
from ledger.history import batch_overview, body_history
from ledger.queries import Queries
from ledger.verify import Report
from scheduler.calendar import Calendar
from scheduler.clocks import WaitsFor, open_clocks

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
    """Parts, places and clocks; whether the centre is up and every part ready."""
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
    clocks(queries)
    return ready


_WAITS_FOR = {
    WaitsFor.FACTORY_RETURN: "厂家回盘 factory return",
    WaitsFor.CARDS: "卡片 cards",
    WaitsFor.CENTRE: "本中心 this centre",
}


def clocks(queries: Queries, batch_id: str | None = None) -> None:
    """What each open batch waits for, since when, and when it is due (article 28(7))."""
    found = open_clocks(queries, datetime.now(UTC), Calendar(), batch_id)
    if not found:
        return
    table = Table("批次 batch", "等待 waits for", "自 since", "到期 due", "工作日 working days",
                  title="时限 clocks: 5 个工作日 working days", title_justify="left")  # fmt: skip
    for c in found:
        left = f"余 {c.left} left" if c.left >= 0 else f"逾期 {-c.left} overdue"
        due = f"{c.due}{' 暂定 provisional' if c.provisional else ''}"
        table.add_row(c.batch_id, _WAITS_FOR[c.waits_for], str(c.since), due, left)
    _console.print(table)
    if any(c.provisional for c in found):
        _console.print(
            "暂定：尚无该年放假通知，仅按周末计算 provisional: no notice of that year's holidays is"
            " known, only weekends count as days off"
        )


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
    clocks(queries, batch_id)
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
