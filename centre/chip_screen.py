"""What `centre chip` prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from centre.chip import Chip
from domain.words import in_words, next_step
from station_agents.pcsc import ReaderSeen

_KEYS = {
    "temporary": "临时密钥（厂家） temporary, the factory's",
    "formal": "正式密钥 formal",
    "unfinished": "更换未完成 key replacement was interrupted",
    "mixed": "版本混杂 mixed versions",
}
_LIFE = {
    "blank": "空白 blank", "temporary_keys": "临时密钥 temporary keys",
    "formal_keys": "正式密钥 formal keys", "personalized": "已个人化 personalized",
    "blocked": "已锁定 blocked",
}  # fmt: skip
_STATES = {"temporary": "临时 temporary", "formal": "正式 formal v{}", "missing": "无 missing"}
_FIELDS = {
    "social_card_number": "社会保障卡号 card number", "identity_number": "社会保障号码 identity",
    "name": "姓名 name", "sex": "性别 sex", "nation": "民族 nation",
    "birth_place": "出生地 birth place", "birth_date": "出生日期 birth date",
}  # fmt: skip
_USAGES = {
    "MK": "主控 card control", "STK": "应用维护 application maintenance",
    "EAK": "外部认证 external authentication", "IRK": "内部认证 internal authentication",
    "PUK": "PIN 解锁 PIN unblock", "RPK": "PIN 重装 PIN reload",
    "UK_DF01": "DF01 记录更新 record update", "UK_DF03": "DF03 记录更新 record update",
}  # fmt: skip


def facts(chip: Chip) -> dict[str, Any]:
    """For machines: the names of `centre.chip.Chip`; each thing wrong with its words."""
    wrong = [
        {**asdict(w), "words": in_words(w.code), "next_step": next_step(w.code)} for w in chip.wrong
    ]
    return {**asdict(chip), "wrong": wrong}


def show(chip: Chip, console: Console) -> None:
    """For people."""
    sheet = Table(box=None, show_header=False, pad_edge=False)
    for name, value in _rows(chip):
        sheet.add_row(name, value)
    console.print(sheet, markup=False)
    if chip.keys:
        keys = Table("密钥 key", "用途 usage", "状态 state", "剩余次数 tries left")
        for k in chip.keys:
            left = "" if k.tries_left is None else f"{k.tries_left}/{k.tries}"
            keys.add_row(
                k.usage, _USAGES.get(k.usage, ""), _STATES[k.state].format(k.version), left
            )
        console.print(keys, markup=False)
    if chip.wrong:
        console.print(f"有问题 what is wrong: {len(chip.wrong)}", style="bold red")
        for w in chip.wrong:
            note = f": {w.note}" if w.note else ""
            console.print(f"  {in_words(w.code)}{note}", markup=False)
            console.print(f"    下一步 next: {next_step(w.code)}", markup=False)
    else:
        console.print("未见异常 nothing wrong is seen")


def _rows(chip: Chip) -> list[tuple[str, str]]:
    version = f" v{chip.key_version}" if chip.keys_are == "formal" else ""
    rows = [
        ("读卡器 reader", chip.reader),
        ("复位应答 ATR", chip.atr),
        ("卡型 profile", chip.profile),
        ("识别码 identification code", chip.identification_code),
        ("类别 category", chip.category),
        ("生命周期 life cycle", _LIFE.get(chip.life_cycle, chip.life_cycle)),
        ("密钥 keys", _KEYS.get(chip.keys_are, "") + version),
        *((_FIELDS.get(name, name), text) for name, text in chip.holder.items()),
    ]
    rows.append(("应用目录 application DFs", "  ".join(chip.dfs)))
    if chip.pin_tries_left is not None:
        left = f"剩余 {chip.pin_tries_left}/{chip.pin_tries} 次 tries left"
        rows.append(("PIN", left))
    for a in chip.applications:
        words = [a.aid, a.label, a.card_number, "已锁定 blocked" if a.blocked else ""]
        rows.append(("金融应用 payment", "  ".join(w for w in words if w)))
    return [(name, text) for name, text in rows if text]


def show_readers(readers: Sequence[ReaderSeen], console: Console) -> None:
    """The readers of this machine."""
    if not readers:
        console.print("无读卡器 no reader")
        return
    table = Table("读卡器 reader", "卡 card", "占用 in use")
    for r in readers:
        table.add_row(r.name, "有 yes" if r.card else "", "是 yes" if r.in_use else "")
    console.print(table, markup=False)
