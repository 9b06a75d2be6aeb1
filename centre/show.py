"""What the `centre` commands print."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from centre.config import Config
from centre.running import state_of
from centre.watch import ask_floor
from domain.codes import Code
from domain.returns import awaited
from domain.words import in_words, next_step
from ledger.history import batch_overview, body_history
from ledger.keeping import Open, overdue
from ledger.leases import in_doubt
from ledger.lots import DECIDED, lots_of
from ledger.queries import Queries
from ledger.returns import interim_lines
from ledger.verify import Report
from scheduler.calendar import Calendar
from scheduler.clocks import CHINA, WaitsFor, open_clocks
from stubs.common_pb2 import ReaderStatistics
from stubs.operator_pb2 import FloorState

if TYPE_CHECKING:
    # It examines every part and so imports every room; the other commands shall not wait for that.
    from centre.doctor import Diagnosis

# A pipe has no width of its own: wide enough that no cell is cut.
console = Console(highlight=False) if sys.stdout.isatty() else Console(width=200, highlight=False)


MOST_IN_DOUBT = 20
"""Named; the places count them all."""
LOTS = {
    "lot_id": "批 lot", "size": "批量 size", "sample_size": "样本 sample", "accept": "Ac",
    "nonconforming": "不合格 nonconforming", "state": "状态 state",
}  # fmt: skip


READERS = {
    "station": "工位 station", "reader": "读卡器 reader", "cards": "卡 cards", "apdus": "命令",
    "seconds_p50": "秒/卡 p50", "seconds_p95": "p95", "retries": "重试 retries",
    "power_on_failures": "无应答 silent", "broken": "中断 broken", "hangs": "挂起 hangs",
    "quarantines": "隔离 quarantines", "code": "状态 state",
}  # fmt: skip


OPEN_FOR = {
    Open.RETURN: "批次未回盘 its centre return",
    Open.RECEIPT: "回盘未被接收 its files to be taken",
    Open.FINAL: "有未定的行 its interim lines",
    None: "今日销毁 the inventory line",
}


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


def differences(message: Any) -> None:
    """What a receipt (proto) says of each scan of a package that is not as its list says."""
    rows = [
        {
            "scan": r.record_number or "",
            "order": r.order_id,
            "code": in_words(r.code),
            "reason": r.reason,
            "next": next_step(r.code),
        }
        for r in message.refused
    ]
    if rows:
        table(
            "不符 what differs",
            rows,
            {"scan": "第几次扫描 scan", "order": "订单 order", "code": "原因 why",
             "reason": "说明 note", "next": "下一步 next step"},
        )  # fmt: skip


def status_facts(config: Config, queries: Queries) -> dict[str, Any]:
    """`up`, `ready` (every part is), `listen` and `at` (of the parts' states; null when down),
    `joining` (where further machines join), `machines` (address by name), `parts` (name, state,
    machine, note), `places` (place, reason, kind, bank, bodies), `lots` (those to be decided;
    `ledger.lots.SHOWN`), `in_doubt` (`ledger.leases`), `open_packages` (`Queries.packages`),
    `interim` (`ledger.returns.interim_lines`), `clocks` (`scheduler.clocks.Clock`) and `readers`:
    of each reader of each station `code` (why it does not work), `seconds_away` of its station,
    and what is counted of it (`ReaderStatistics`)."""
    content = state_of(config.home) or {}
    parts = [
        {
            "name": name,
            "state": health["state"],
            "machine": health["machine"],
            "note": str(health.get("note", "")),
        }
        for name, health in content.get("actors", {}).items()
    ]
    return {
        "up": bool(content),
        "ready": bool(parts) and all(part["state"] == "ready" for part in parts),
        "listen": content.get("listen"),
        "at": content.get("at"),
        "joining": content.get("joining"),
        "machines": content.get("machines", {}),
        "parts": parts,
        "places": queries.rows(
            "select place, condition as reason, kind, bank, count(*) as bodies from body"
            " where place not like 'factory/%' group by place, condition, kind, bank"
            " order by place, condition, kind, bank"
        ),
        "lots": [lot.row() for lot in lots_of(queries) if lot.state not in DECIDED],
        "in_doubt": in_doubt(queries, MOST_IN_DOUBT),
        "open_packages": queries.packages("p.state = 'open'"),
        "interim": interim_lines(queries),
        "clocks": clock_facts(queries),
        "personal_data": [asdict(k) for k in overdue(queries, datetime.now(CHINA).date())],
        "readers": _reader_facts(ask_floor(content["listen"])) if content else [],
    }


def _reader_facts(floor: FloorState | None) -> list[dict[str, Any]]:
    return [
        {
            "station": station.station_id,
            "reader": r.reader,
            "code": r.code,
            "seconds_away": station.seconds_away,
            **{
                field.name: getattr(r.statistics, field.name)
                for field in ReaderStatistics.DESCRIPTOR.fields
                if field.name not in ("station_id", "reader")
            },
        }
        for station in (floor.stations if floor else [])
        for r in station.readers
    ]


def status(facts: Mapping[str, Any]) -> None:
    """The facts of `status_facts` as tables."""
    if facts["up"]:
        columns = {"name": "部件 part", "state": "状态 state", "note": "说明 note"}
        if len(facts["machines"]) > 1:
            columns["machine"] = "机器 machine"
        table(facts["listen"], facts["parts"], columns)
        console.print(f"截至 as of {facts['at']}; 加入 join: centre up --join {facts['joining']}")
    else:
        console.print("未启动 the centre is not up")
    places = [{**p, "reason": in_words(p["reason"])} for p in facts["places"]]
    table(
        "",
        places,
        {"place": "位置 place", "reason": "原因 reason", "kind": "卡种 kind", "bank": "银行 bank",
         "bodies": "张 bodies"},
    )  # fmt: skip
    if facts["readers"]:
        table(
            "读卡器 readers",
            [{**r, "code": in_words(r["code"])} for r in facts["readers"]],
            READERS,
        )
    if facts["lots"]:
        table("未接收的抽检批 inspection lots not accepted", facts["lots"], LOTS)
    if facts["in_doubt"]:
        table(
            f"存疑的卡 cards in doubt: {next_step(Code.IN_DOUBT)}",
            facts["in_doubt"],
            {"body_id": "卡体 body", "carton_id": "箱 carton", "station": "工位 station",
             "until": "租约至 leased until"},
        )  # fmt: skip
    packages_to_scan(facts["open_packages"])
    open_lines(facts["interim"])
    clocks(facts["clocks"])
    if facts["personal_data"]:
        table(
            "个人信息到期未销毁 personal data that are over",
            [{**k, "open": OPEN_FOR[k["open"]]} for k in facts["personal_data"]],
            {"batch_id": "批次 batch", "orders": "单 orders", "expires_on": "到期 expired on",
             "open": "等待 waits for"},
        )  # fmt: skip


def packages_to_scan(rows: Sequence[Mapping[str, Any]]) -> None:
    """Open packages, if there are any."""
    if rows:
        table(
            "待扫描的包 packages to be scanned: centre scan PACKAGE",
            rows,
            {"package_id": "包 package", "destination": "去向 destination", "kind": "卡种 kind",
             "count": "张 cards"},
        )  # fmt: skip


def open_lines(rows: Sequence[Mapping[str, Any]]) -> None:
    """Interim lines of returns that none superseded, and what they wait for."""
    if not rows:
        return
    said = [
        {
            **r,
            "reason": in_words(r["reason"]),
            "awaits": " ".join(awaited(r["result"], r["reason"])),
        }
        for r in rows
    ]
    table(
        "回盘未定的行 interim lines of returns",
        said,
        {"batch_id": "批次 batch", "result": "结果 result", "reason": "原因 reason",
         "lines": "行 lines", "awaits": "等待 waits for"},
    )  # fmt: skip


_WAITS_FOR = {
    WaitsFor.FACTORY_RETURN: "厂家回盘 factory return",
    WaitsFor.CARDS: "卡片 cards",
    WaitsFor.CENTRE: "本中心 this centre",
}


def clock_facts(queries: Queries, batch_id: str | None = None) -> list[dict[str, Any]]:
    """The clocks of all open batches, or of one, as rows."""
    found = open_clocks(queries, datetime.now(UTC), Calendar(), batch_id)
    return [{**asdict(c), "since": str(c.since), "due": str(c.due)} for c in found]


def clocks(facts: Sequence[Mapping[str, Any]]) -> None:
    """What each open batch waits for, since when, and when it is due (article 28(7))."""
    if not facts:
        return
    rows = [
        {
            **c,
            "waits_for": _WAITS_FOR[c["waits_for"]],
            "due": f"{c['due']}{' 暂定 provisional' if c['provisional'] else ''}",
            "left": f"余 {c['left']} left" if c["left"] >= 0 else f"逾期 {-c['left']} overdue",
        }
        for c in facts
    ]
    table(
        "时限 clocks: 5 个工作日 working days",
        rows,
        {"batch_id": "批次 batch", "waits_for": "等待 waits for", "since": "自 since",
         "due": "到期 due", "left": "工作日 working days"},
    )  # fmt: skip
    if any(c["provisional"] for c in facts):
        console.print(
            "暂定：尚无该年放假通知，仅按周末计算 provisional: no notice of that year's holidays is"
            " known, only weekends count as days off"
        )


STATES = {
    "ok": "[green]正常 ok[/]",
    "notice": "[yellow]注意 notice[/]",
    "down": "[yellow]未启动 down[/]",
    "absent": "未装 absent",
    "mend": "[bold red]需处理 mend[/]",
}


def diagnosis(found: Diagnosis) -> None:
    """What the doctor found: parts, then the ports of Ray and of virtual readers."""
    drawn = Table("部件 part", "状态 state", "有 present", "配置 configured", "可达 reachable",
                  "说明 note")  # fmt: skip
    for f in found.findings:
        note = f.note + ("；软件辅助 software-assisted" if f.software_assisted else "")
        answers = (_yes_no(x) for x in (f.present, f.configured, f.reachable))
        drawn.add_row(f.words, STATES[f.state], *answers, escape(note))
    console.print(drawn)
    for f in found.findings:
        if f.mend:
            console.print(f"{f.words}: {f.mend}", markup=False, soft_wrap=True)
    operations = [asdict(o) for f in found.findings for o in f.operations]
    if operations:
        table(
            "密钥操作 key operations",
            operations,
            {"name": "操作 operation", "where": "何处 where", "note": "说明 note"},
        )
    rows = [
        {**asdict(p), "close": "关闭 close" if p.exposed else "本机 loopback"} for p in found.ports
    ]
    if rows:
        table(
            "端口 ports",
            rows,
            {"process": "进程 process", "address": "地址 address", "port": "端口 port",
             "close": "处置 what to do"},
        )  # fmt: skip
    console.print("一切正常 all well" if found.well else "有待处理 something is to be mended")


def _yes_no(answer: bool | None) -> str:
    return "" if answer is None else "是 yes" if answer else "否 no"


def body(queries: Queries, identifier: str) -> bool:
    """A card's history, one line a step; whether anything is known."""
    steps = body_history(queries, identifier)
    if not steps:
        console.print("查无此卡 nothing is known of it: give a body id, an order id or an"
                       " identification code")  # fmt: skip
        return False
    for step in steps:
        subject = " ".join(i for i in (step.body_id, step.order_id) if i)
        console.print(f"{step.at}  {subject:<42}  {step.words}")
    return True


def orders(queries: Queries, order_ids: Sequence[str]) -> None:
    """Orders with the history of each and of its bodies."""
    for order_id in order_ids:
        console.print(f"订单 order {order_id}")
        body(queries, order_id)


def batch(queries: Queries, batch_id: str) -> bool:
    """A batch as it stands; whether it is known."""
    overview = batch_overview(queries, batch_id)
    if not overview:
        console.print(f"无此批次 no such batch: {batch_id}")
        return False
    table(
        "来文 files",
        overview["files"],
        {"file_id": "编号 id", "kind": "种类 kind", "records": "记录 records",
         "refused": "拒收 refused"},
    )  # fmt: skip
    for delivery in overview["deliveries"]:
        table(
            f"送货 delivery {delivery['delivery_id']}: {delivery['state']}",
            delivery["cartons"],
            {"carton_id": "箱 carton", "bank": "银行 bank", "kind": "卡种 kind",
             "noted": "单列 noted", "counted": "清点 counted", "destination": "去向 destination"},
        )  # fmt: skip
    table(
        f"卡片 bodies (订单 orders {overview['orders']})",
        overview["places"],
        {"words": "位置 place", "reason": "原因 reason", "bodies": "张 bodies"},
    )
    if overview["lots"]:
        table("抽检批 inspection lots", overview["lots"], LOTS)
    if overview["drawn"]:
        table(
            "抽样单 to be fed again; 找不到 not found: centre count 'transit/sorting>sampling'",
            overview["drawn"],
            {"carton_id": "箱 carton", "body_id": "卡体 body", "ticket": "送卡机编号 ticket"},
        )
    packages_to_scan(overview["open_packages"])
    for sent in overview["returns"]:
        taken = "已接收 taken" if sent["acknowledged"] else "待接收 not taken yet"
        console.print(f"中心回盘 centre return {sent['id']}: {taken}")
    for waits in overview["waits_for"]:
        console.print(f"等待 waits for: {waits}")
    clocks(clock_facts(queries, batch_id))
    return True


def table(title: str, rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> None:
    drawn = Table(*columns.values(), title=title or None, title_justify="left")
    for row in rows:
        drawn.add_row(*(str(row[name]) for name in columns))
    console.print(drawn)


def report(found: Report) -> None:
    """The result of a verification."""
    if found.ok:
        console.print("账实相符 the ledger holds together")
    else:
        # The finding may quote what somebody wrote into the database.
        console.print(f"不符 does not fit: {found.finding}", markup=False)
    console.print(
        f"提交 commits {found.commits}, 事件 events {found.events}, 卡片 bodies {found.bodies}, "
        f"抽检批 lots {found.lots}, "
        f"签名 signed heads {found.signatures}; "
        f"未签名 unsigned tail {found.unsigned_commits} commits, {found.unsigned_seconds:.0f} s"
    )
