"""The whole history of one card, and the state of a batch, in words (Chinese, then English)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from domain.card.profile import is_identification_code
from domain.changes import EventType
from domain.codes import Code
from domain.places import DRAWN, PACKED, PACKING, SHREDDER, VAULT, Line
from domain.registers.branches import branch_name, is_branch
from domain.registers.loading import load_divisions
from domain.words import in_words
from ledger.connection import as_json
from ledger.lots import lots_of
from ledger.queries import OF_NO_CARD, Queries

WORDS: Mapping[str, tuple[str, str]] = {
    EventType.ORDER_ADVISED: ("厂家回盘通知制卡订单", "the factory return advises the order"),
    EventType.RECORD_REFUSED: ("回盘记录被拒", "the record of the factory return is refused"),
    EventType.ORDER_STOPPED: ("卡管停办订单", "card management stops the order"),
    EventType.ORDER_RELEASED: ("卡管恢复订单", "card management releases the order"),
    EventType.RECORD_CORRECTED: ("被拒记录已更正", "the refused record is corrected"),
    EventType.BODY_RECEIVED: ("签收入库", "signed for"),
    EventType.BODY_COUNTED: ("重新清点计入", "counted anew"),
    EventType.BODY_WITHDRAWN: ("重新清点注销", "no such card, by a recount"),
    EventType.BODY_ISSUED: ("发放", "issued"),
    EventType.BODY_TAKEN: ("领用", "taken"),
    EventType.KEY_WRITE_RELEASED: ("放行写入正式密钥", "writing of formal keys released"),
    EventType.CHIP_TAKEN_BACK: (
        "再读芯片，重新验证",
        "its chip is read again and proven",
    ),
    EventType.BODY_IN_DOUBT: ("租约到期，可能已写密钥", "its lease ran out, keys may be written"),
    EventType.TRANSCRIPT_KEPT: ("租约过后的工位记录留存", "told after its lease, kept as evidence"),
    EventType.STOCK_MISSING: ("盘点未见，双人调账", "missed by a stock-take, adjusted by two"),
    EventType.STOCK_FOUND: ("盘点找回，双人调账", "found again, adjusted by two"),
    EventType.BODY_SCRAPPED: ("双人报废", "scrapped by two people"),
    EventType.KEYS_REPLACED: ("正式密钥写入并验证", "formal keys written and proven"),
    EventType.INSPECTED: ("检卡合格", "inspected, in order"),
    EventType.BODY_REJECTED: ("报废", "rejected"),
    EventType.BODY_HELD: ("暂扣", "held"),
    EventType.BODY_RELEASED: ("解除暂扣", "held no longer"),
    EventType.BODY_SORTED: ("分拣", "sorted"),
    EventType.BODY_DRAWN: ("抽样", "drawn for the sample of its lot"),
    EventType.SAMPLE_PASSED: ("抽检合格", "sample read again, in order"),
    EventType.SAMPLE_MISSING: ("样本未找到，计为不合格", "not found: nonconforming for its lot"),
    EventType.BODY_LISTED: ("列入分拣清单", "on the sorting list of a package"),
    EventType.BODY_PACKED: ("扫描装包", "scanned and packed"),
    EventType.BODY_SHIPPED: ("交寄", "handed to the courier"),
    EventType.RETURN_WRITTEN: ("写入中心回盘", "in the centre return"),
    EventType.RETURN_ACKNOWLEDGED: ("中心回盘已被接收", "the centre return was taken"),
}
LINES: Mapping[str, tuple[str, str]] = {
    Line.INVENTORY: ("库房", "inventory"),
    Line.KEY_REPLACEMENT: ("换密钥", "key replacement"),
    Line.INSPECTION: ("检卡", "inspection"),
    Line.SAMPLING: ("抽检", "sampling"),
    Line.SORTING: ("分拣", "sorting"),
}
RESULTS: Mapping[str, str] = {
    "shipped": "已发出",
    "rejected": "报废",
    "missing": "未到",
    "held": "暂扣",
    "cancelled": "已撤销",
    "surplus": "多余",
}


@dataclass(frozen=True)
class Step:
    """One thing that happened: time (ISO 8601, UTC), the line and the number of its commit, and
    words. `body_id` and `order_id` as far as the event names them."""

    at: str
    line: str
    number: int
    words: str
    body_id: str = ""
    order_id: str = ""


def body_history(queries: Queries, identifier: str) -> list[Step]:
    """Everything that befell a card, oldest first: its order's events, its own, its lines in a
    centre return. `identifier` is a body id, an order id (with all bodies that it ever had) or an
    identification code, in capitals or not. Empty if the ledger knows nothing of it."""
    if not identifier:
        return []
    if is_identification_code(identifier.upper()):
        identifier = identifier.upper()  # as the ledger has it
    bodies, orders, records = _named(queries, identifier)
    of_records = ""
    parameters: tuple[str, ...] = ()
    if records:
        of_records = (
            " or e.type in (?, ?) and exists (select 1 from json_each(?) r where"
            "  r.value->>'file_id' = e.data->>'file_id'"
            "  and r.value->>'record_number' = e.data->>'record')"
        )
        parameters = EventType.RECORD_REFUSED, EventType.RECORD_CORRECTED, as_json(records)
    steps = [
        (r["id"], Step(r["at"], r["line"], r["number"], _words(r), r["body_id"], r["order_id"]))
        for r in queries.rows(
            "select e.id, c.at, e.line, e.number, e.type, e.body_id, e.order_id, e.place,"
            " e.condition, e.data from event e"
            " join commit_link c on c.line = e.line and c.number = e.number"
            " where e.body_id in (select value from json_each(?)) and e.body_id <> ''"
            " or e.order_id in (select value from json_each(?)) and e.order_id <> ''"
            f"{of_records}",
            as_json(bodies),
            as_json(orders),
            *parameters,
        )
    ]
    steps += _returned(queries, bodies, orders + [r["order_id"] for r in records])
    return [step for _, step in sorted(steps, key=lambda s: s[0])]


def _named(queries: Queries, identifier: str) -> tuple[list[str], list[str], list[dict[str, Any]]]:
    """The bodies, the orders and the refused records that an id stands for."""
    bodies = queries.rows(
        "select body_id, order_id, identification_code from body where body_id = ?"
        " or order_id = ? and order_id <> '' or identification_code = ?",
        identifier, identifier, identifier,
    )  # fmt: skip
    orders = {
        r["order_id"]
        for r in queries.rows(
            "select order_id from orders where order_id = ? or identification_code = ?",
            identifier, identifier,
        )
    }  # fmt: skip
    orders |= {b["order_id"] for b in bodies if b["order_id"]}
    codes = {identifier, *(b["identification_code"] for b in bodies)} - {""}
    records = queries.rows(
        "select file_id, record_number, order_id from refused_record"
        " where identification_code in (select value from json_each(?)) or order_id = ?",
        as_json(sorted(codes)), identifier,
    )  # fmt: skip
    return sorted(b["body_id"] for b in bodies), sorted(orders), records


def _returned(
    queries: Queries, bodies: Sequence[str], orders: Sequence[str]
) -> list[tuple[int, Step]]:
    """The lines of centre returns that speak of these, and whether the return was taken."""
    found = queries.rows(
        "select file_id, batch_id, order_id, body_id, result, reason, final from return_line"
        " where order_id in (select value from json_each(?)) and order_id <> ''"
        " or body_id in (select value from json_each(?)) and body_id <> ''",
        as_json(orders),
        as_json(bodies),
    )
    steps = []
    for line in found:
        for r in queries.rows(
            "select e.id, c.at, e.line, e.number, e.type from event e"
            " join commit_link c on c.line = e.line and c.number = e.number"
            f" where e.data->>'batch_id' = ? and {OF_NO_CARD}"
            " and (e.type = ? and e.data->>'file_id' = ?"
            "  or e.type = ? and e.data->>'outbox_id' = ?)",
            line["batch_id"], EventType.RETURN_WRITTEN, line["file_id"],
            EventType.RETURN_ACKNOWLEDGED, line["file_id"],
        ):  # fmt: skip
            words = _both(WORDS[r["type"]]) + f"：{line['file_id']}"
            if r["type"] == EventType.RETURN_WRITTEN:
                result = RESULTS.get(line["result"], line["result"])
                reason = f"，{in_words(line['reason'])}" if line["reason"] else ""
                words += f"，{result} {line['result']}{reason}"
            step = Step(r["at"], r["line"], r["number"], words, line["body_id"], line["order_id"])
            steps.append((r["id"], step))
    return steps


def _both(words: tuple[str, str]) -> str:
    return f"{words[0]} {words[1]}"


def _words(row: Mapping[str, Any]) -> str:
    """One event in words: what, where to, why, and what its data say that people ask for."""
    words = _both(WORDS.get(row["type"], (row["type"], "")))
    data = json.loads(row["data"])
    if row["place"]:
        words += f" → {place_in_words(row['place'])}"
    if row["condition"] or data.get("code"):
        words += f"，原因 {in_words(row['condition'] or data['code'])}"
    for name, label in (
        ("carton_id", "箱 carton"),
        ("station", "工位 station"),
        ("package_id", "包 package"),
        ("detail", "项目 field"),
    ):
        if data.get(name):
            words += f"，{label} {data[name]}"
    if row["type"] in (EventType.RECORD_REFUSED, EventType.RECORD_CORRECTED):
        words += f"，文件 file {data['file_id']} 第 {data['record']} 条 record {data['record']}"
    return words


def place_in_words(place: str) -> str:
    """A place for people; a place that is not in the tree as it is."""
    head, _, rest = place.partition("/")
    if place == VAULT:
        return "库房 vault"
    if place == PACKING:
        return "待扫描装包 to be scanned into its package"
    if place == PACKED:
        return "已装包 packed"
    if place == SHREDDER:
        return "已销毁 destroyed"
    if head == "factory":
        return "未到 not here"
    if head == "courier":
        return f"已交寄 {destination_in_words(rest)}"
    if head == "transit":
        sender, _, receiver = rest.partition(">")
        return f"{_line(sender)[0]}→{_line(receiver)[0]} 在途 {sender} → {receiver}"
    last = {"work": ("在制", "work"), "rejected": ("报废", "rejected"), "held": ("暂扣", "held")}
    chinese, english = _line(head)
    return f"{chinese}{last[rest][0]} {english}, {last[rest][1]}" if rest in last else place


def _line(line: str) -> tuple[str, str]:
    return LINES.get(line, (line, line))


def destination_in_words(code: str) -> str:
    """A county branch or a division's service window."""
    if is_branch(code):
        return f"{branch_name(code)} {code}"
    if code in load_divisions():
        return f"{load_divisions()[code].place_name}服务窗口 {code}"
    return code


def batch_overview(queries: Queries, batch_id: str) -> dict[str, Any]:
    """A batch: `files` taken (file_id, kind, records, refused), `deliveries` (delivery_id, state,
    cartons: carton_id, bank, kind, noted, counted), `places` (place, words, condition, reason,
    bodies), `lots` (inspection lots: `ledger.lots.SHOWN`), `drawn` (cards to be fed again for
    sampling: body_id, carton_id, ticket), `open_packages` (to be scanned: `Queries.packages`),
    `orders` (number), `returns` (id, acknowledged),
    `waits_for` (words, empty when the batch is done). Empty if the ledger knows nothing of it."""
    files = queries.rows(
        "select f.file_id, f.kind, f.records, (select count(*) from refused_record r"
        " where r.file_id = f.file_id) as refused from file_in f where f.batch_id = ?"
        " order by f.kind desc, f.file_id",
        batch_id,
    )
    if not files:
        return {}
    deliveries: list[dict[str, Any]] = [
        {
            **{k: d[k] for k in ("delivery_id", "factory_id", "state")},
            "cartons": [
                {k: c[k] for k in ("carton_id", "bank", "kind", "noted", "counted", "destination")}
                for c in queries.cartons_of_delivery(d["delivery_id"])
            ],
        }
        for d in queries.deliveries(batch_id)
    ]
    places = _places(queries, batch_id)
    orders = queries.one("select count(*) as n from orders where batch_id = ?", batch_id)
    returns = [
        {"id": r["id"], "acknowledged": bool(r["acknowledged"])}
        for r in queries.rows(
            "select id, acknowledged from outbox where batch_id = ? and kind = 'centre_return'"
            " order by id",
            batch_id,
        )
    ]
    open_packages = queries.packages("p.batch_id = ? and p.state = 'open'", batch_id)
    return {
        "batch_id": batch_id,
        "files": files,
        "deliveries": deliveries,
        "orders": orders["n"] if orders else 0,
        "places": places,
        "lots": [lot.row() for lot in lots_of(queries, batch_id)],
        "drawn": queries.rows(
            "select body_id, carton_id, ticket from body where batch_id = ? and place = ?"
            " order by body_id",
            batch_id,
            DRAWN,
        ),
        "open_packages": open_packages,
        "returns": returns,
        "waits_for": _waits_for(files, deliveries, places, open_packages, returns),
    }


def _places(queries: Queries, batch_id: str) -> list[dict[str, Any]]:
    return [
        {
            **r,
            "words": place_in_words(r["place"]),
            "reason": in_words(r["condition"]) if r["condition"] else "",
        }
        for r in queries.rows(
            "select place, condition, count(*) as bodies from body where batch_id = ?"
            " and place not like 'factory/%' group by place, condition order by place, condition",
            batch_id,
        )
    ]


def _waits_for(
    files: Sequence[Mapping[str, Any]],
    deliveries: Sequence[Mapping[str, Any]],
    places: Sequence[Mapping[str, Any]],
    open_packages: Sequence[Mapping[str, Any]],
    returns: Sequence[Mapping[str, Any]],
) -> list[str]:
    waits = []
    if not any(f["kind"] == "factory_return" for f in files):
        waits.append("等待厂家回盘 for the factory return")
    if not deliveries:
        waits.append("等待送货单 for a delivery note")
    waits += [
        f"等待签收 for {d['delivery_id']} to be signed for"
        for d in deliveries
        if d["state"] != "signed"
    ]
    waits += [
        f"{p['bodies']} 张在 {p['words']}"
        for p in places
        if p["place"].startswith("transit/") or p["place"].endswith(("/work", "/vault", "/packed"))
    ]
    waits += [
        f"等待卡管恢复或撤销 {p['bodies']} 个订单"
        f" for card management to release or cancel {p['bodies']} orders"
        for p in places
        if p["condition"] == Code.ON_HOLD
    ]
    if open_packages:
        cards = sum(p["count"] for p in open_packages)
        waits.append(
            f"等待扫描 {len(open_packages)} 包 for the scan of {len(open_packages)} packages"
            f" ({cards} 张 cards)"
        )
    if not waits and not returns:
        waits.append("等待写入中心回盘 for the centre return to be written")
    waits += [f"等待确认 for {r['id']} to be taken" for r in returns if not r["acknowledged"]]
    return waits
