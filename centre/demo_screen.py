"""What the demo shows: a bar per stage while it runs, then tables."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from centre import show
from centre.config import Config
from domain.places import DRAWN, PACKED, PACKING, READ_AGAIN
from ledger.queries import Queries
from ledger.summary import branch_table

STAGES = {
    "key_replacement": "密钥替换 keys",
    "inspection": "检卡 inspection",
    "sorting": "分拣 sorting",
    "packing": "包装 packing",
    "shipping": "配送 shipping",
}
_BEFORE = ("inventory/vault", "transit/inventory>key_replacement", "key_replacement/work")
# A body has passed a stage when it is in none of the places before or in it.
_NOT_PASSED = {
    "key_replacement": _BEFORE,
    "inspection": (*_BEFORE, "transit/key_replacement>inspection"),
    "sorting": (*_BEFORE, "transit/key_replacement>inspection", "transit/inspection>sorting"),
    "packing": ("sorting/work", DRAWN, READ_AGAIN, PACKING),
    "shipping": ("sorting/work", DRAWN, READ_AGAIN, PACKING, PACKED),
}
# Set apart by an earlier stage: it never comes to this one.
_APART = {
    "key_replacement": (),
    "inspection": ("key_replacement/",),
    "sorting": ("key_replacement/", "inspection/"),
    "packing": ("key_replacement/", "inspection/", "sampling/", "sorting/"),
    "shipping": ("key_replacement/", "inspection/", "sampling/", "sorting/"),
}


def stage_counts(places: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    """(done, total) of each stage, from the number of bodies at each place."""
    whole = sum(places.values())
    counts = {}
    for stage in STAGES:
        prefixes = _APART[stage]
        apart = sum(
            n
            for p, n in places.items()
            if p.startswith(prefixes) and p.endswith(("/rejected", "/held"))
        )
        earlier = _NOT_PASSED["sorting"] if stage in ("packing", "shipping") else ()
        waiting = sum(places.get(p, 0) for p in {*_NOT_PASSED[stage], *earlier})
        counts[stage] = (whole - apart - waiting, whole - apart)
    return counts


class Screen:
    """Progress on a terminal; plain lines where there is none."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._console = Console(soft_wrap=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]:>8}"),
            TimeRemainingColumn(),
            console=self._console,
            refresh_per_second=4,
            disable=not self._console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._first: dict[str, tuple[float, int]] = {}
        self._said_at = 0.0

    def __enter__(self) -> Screen:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def say(self, text: str) -> None:
        self._console.print(f"· {text}", highlight=False)

    def update(self, queries: Queries, batch_id: str) -> None:
        """Read from the ledger where the bodies of the batch are, and show it."""
        places = {
            r["place"]: r["n"]
            for r in queries.rows(
                "select place, count(*) as n from body where batch_id = ?"
                " and place not like 'factory/%' group by place",
                batch_id,
            )
        }
        counts = stage_counts(places)
        for stage, (done, total) in counts.items():
            if stage not in self._tasks:
                self._tasks[stage] = self._progress.add_task(STAGES[stage], rate="")
            self._progress.update(
                self._tasks[stage], completed=done, total=total, rate=self._rate(stage, done)
            )
        if not self._console.is_terminal and time.monotonic() - self._said_at > 5:
            self._said_at = time.monotonic()
            self.say(
                ", ".join(f"{STAGES[s]} {done}/{total}" for s, (done, total) in counts.items())
            )

    def _rate(self, stage: str, done: int) -> str:
        now = time.monotonic()
        since, first = self._first.setdefault(stage, (now, done))
        if done == first or now - since < 0.5:
            return ""
        return f"{(done - first) / (now - since):.0f} 张/s"

    def results(self, config: Config, batch_id: str, result: Mapping[str, Any]) -> None:
        """The table per bank and branch, the reconciliation, and where everything lies."""
        queries = Queries(config.ledger)
        table = Table(title=f"批次 batch {batch_id}")
        columns = ("bank", "branch", "orders", "shipped", "rejected", "held", "missing", "packages")
        for name in columns:
            table.add_column(name, justify="left" if name in columns[:2] else "right")
        for row in branch_table(queries, batch_id):
            table.add_row(*(str(row[name]) for name in columns))
        self._console.print(table)
        r = result
        self._console.print(
            f"应到 advised {r['advised']} + 多出 surplus {r['surplus']}"
            f" = 实收 received {r['received']} + 未到 missing {r['missing']}\n"
            f"实收 received {r['received']} = 发出 shipped {r['shipped']}"
            f" + 废卡 rejected {r['rejected']} + 待定 held {r['held']}"
            f" + 在制 in work {r['in_work']} + 销毁 destroyed {r['destroyed']}\n"
            f"平衡 reconciled: {'是 yes' if r['reconciled'] else '否 NO'}",
            highlight=False,
        )
        show.clocks(show.clock_facts(queries))
        queries.close()
        for name in ("summary.json", "return", "lists", "trays", "log"):
            self._console.print(f"  {self._home / name}", highlight=False)
        self._console.print(f"  {config.ledger}", highlight=False)
