"""The people of a demo's day: who counts and signs, who counts a damaged carton anew, who scans
packages, and the clerk of card management who stops orders in the middle and, at the end, releases
those on hold."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from centre.config import Config
from centre.demo_terminal import DemoError
from centre.options import AWAY
from centre.running import state_of, write_whole
from counterparts.packer import Packer
from domain.codes import Code
from domain.words import in_words
from ledger.queries import Queries
from ledger.returns import interim_lines

START_SECONDS = 120.0


def python(module: str) -> list[str]:
    return [sys.executable, "-m", module]


def run_program(command: Sequence[str], config: Config, name: str) -> None:
    """Run it to its end. While the centre is away it is run again, as a person would."""
    deadline = time.monotonic() + START_SECONDS
    with (config.logs / f"{name}.out").open("ab") as out:
        while True:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, check=False
            )
            if done.returncode != AWAY or time.monotonic() > deadline:
                break
            time.sleep(0.3)  # until its keeper has started it
    if done.returncode:
        raise DemoError(f"{name} ended with {done.returncode}: see {config.logs / name}.out")


def ask_tray(control: Path, request: dict[str, Any]) -> dict[str, Any]:
    """One question to the tray machine (its counting machine, its counter of APDUs)."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            with socket.socket(socket.AF_UNIX) as s:
                s.connect(str(control))
                with s.makefile("rw", encoding="utf-8") as f:
                    f.write(json.dumps(request) + "\n")
                    f.flush()
                    answer: dict[str, Any] = json.loads(f.readline())
        except (OSError, json.JSONDecodeError):
            # The tray is being started again.
            if time.monotonic() > deadline:
                raise DemoError("the tray does not answer") from None
            time.sleep(0.2)  # until its keeper has started it
            continue
        if "error" in answer:
            raise DemoError(f"the tray: {answer['error']}")
        return answer


class People:
    """`made`: what the factory says of its delivery (`sent/.complete`). Whatever they have done
    already they see in the ledger or on the desk, so a demo that was killed goes on."""

    def __init__(
        self, config: Config, made: dict[str, Any], control: Path, say: Callable[[str], None]
    ) -> None:
        self._config, self._made, self._control, self._say = config, made, control, say
        self._damaged: list[str] = made["damaged_cartons"]
        self._packer = Packer(
            config.home / "lists",
            config.home / "journals" / "packer.jsonl",
            lambda request: ask_tray(control, request),
        )

    def sign_for(self) -> None:
        """The labels of the cartons that came, each with what the counting machine says; in a
        damaged one a torn card was counted as two."""
        counted = ask_tray(self._control, {"op": "count"})["cartons"]
        counts = [f"{c}={n + (c in self._damaged)}" for c, n in sorted(counted.items())]
        self._centre("sign-for", self._made["delivery_id"], *counts)
        # A small delivery is counted by hand; its cards stay in the vault until a return comes.
        note = json.loads(
            (self._config.home / "only-cards" / "sent" / "delivery_note.json").read_text("utf-8")
        )
        counts = [f"{c['carton_id']}={c['count']}" for c in note["cartons"]]
        self._centre("sign-for", note["delivery_id"], *counts)

    def look(self, queries: Queries) -> None:
        """Do what is to be done now."""
        if not self._on_desk("stops.json").exists() and self._midway(queries):
            self._say("卡管停办几张订单 card management stops some orders")
            self._lay_on_desk("stops.json")
        if not self._on_desk("releases.json").exists() and self._told_of_holds(queries):
            self._say("卡管恢复暂停的订单 card management releases what it held")
            self._lay_on_desk("releases.json")
        if self._nothing_left_but_doubt(queries):
            self._say("重新清点破损箱 the damaged carton is counted anew")
            counted = ask_tray(self._control, {"op": "count"})["cartons"]
            for carton in self._damaged:
                self._centre("recount", f"{carton}={counted[carton]}")
        self._pack()

    def _on_desk(self, name: str) -> Path:
        return self._config.home / "sent" / "desk" / name

    def _lay_on_desk(self, name: str) -> None:
        """Whole at once: a clerk's commands are read as soon as they lie there."""
        self._on_desk(name).parent.mkdir(exist_ok=True)
        write_whole(self._on_desk(name), (self._config.home / "sent" / name).read_bytes())

    def _pack(self) -> None:
        state = state_of(self._config.home)
        receipts = list(self._packer.pack(state["listen"])) if state else []
        closed = sum(receipt.accepted for _, receipt in receipts)
        if closed:
            self._say(f"扫描封包 {closed} 包 packages scanned and closed")
        for package_id, receipt in receipts:
            if not receipt.accepted:
                codes = Counter(r.code for r in receipt.refused)
                found = "，".join(f"{in_words(code)} {n}" for code, n in codes.items())
                self._say(f"包 package {package_id} 未封 stays open: {found or receipt.code}")

    def _midway(self, queries: Queries) -> bool:
        """A quarter of the cards was inspected."""
        found = queries.one(
            "select count(*) as whole, sum(case when place in ('transit/inspection>sorting',"
            " 'sorting/work') then 1 else 0 end) as through from body where batch_id = ?",
            self._made["batch_id"],
        )
        return found is not None and (found["through"] or 0) * 4 > found["whole"]

    def _told_of_holds(self, queries: Queries) -> bool:
        """Card management has the return, in which orders on hold have interim lines."""
        batch_id = self._made["batch_id"]
        taken = queries.one(
            "select 1 as n from outbox where batch_id = ? and kind = 'centre_return'"
            " and acknowledged = 1 limit 1",
            batch_id,
        )
        return taken is not None and Code.ON_HOLD in {
            r["reason"] for r in interim_lines(queries, batch_id)
        }

    def _nothing_left_but_doubt(self, queries: Queries) -> bool:
        """Every card went through key replacement, and as many bodies as there are damaged
        cartons never came to a reader."""
        found = queries.one(
            "select count(*) as n from body where batch_id = ? and place in"
            " ('transit/inventory>key_replacement', 'key_replacement/work')",
            self._made["batch_id"],
        )
        return bool(self._damaged) and found is not None and found["n"] == len(self._damaged)

    def _centre(self, *arguments: str) -> None:
        command = [*python("centre"), *arguments, "--home", str(self._config.home)]
        run_program(command, self._config, arguments[0])
