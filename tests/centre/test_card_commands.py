"""`centre card scrap`, `count`, `adjust`: each person at a terminal of their own, against open
doors, a real custody line and a real ledger."""

from __future__ import annotations

import asyncio
import json
import os
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from actors.stock import count
from centre.config import TEMPLATE
from centre.running import take_home
from domain.card.profile import load_profile
from domain.codes import Code
from domain.factory_return import FACE, index_text
from domain.lines import Receipt, StockCount
from domain.words import WORDS
from gateways.doors import serve
from gateways.floor import Floor as DoorsFloor
from ledger.queries import Queries
from tests.centre.at_terminal import Said, at_terminal
from tests.gateways.surroundings import PlainProvider
from tests.lines.test_floor_acts import AtKeys, Floor, face, floor
from tests.lines.test_stock import AT_KEYS

__all__ = ["floor"]
FACES = ("A00000001", "A00000002", "A00000003")
"""Numbers on the faces of the cards of `record(1)` and on."""
SCAN = "scan the face"
NEXT_SCAN = "张 scanned"


class Provider(PlainProvider):
    """Knows the faces of the cards."""

    async def index(self, values: Sequence[str]) -> list[str]:
        known = {index_text(FACE, number): face(n) for n, number in enumerate(FACES, start=1)}
        return [known.get(v, "") for v in values]


@dataclass
class Counted(AtKeys):
    async def count_stock(self, command: StockCount) -> Receipt:
        return await count(self.line, self.b.doors[self.line], self.b.queries, command)


@dataclass
class Desks:
    """The people of a small floor, each with a session in a file."""

    home: Path
    floor: Floor

    def run(self, *args: str, who: str = "", typed: Sequence[tuple[str, str]] = ()) -> Said:
        session = ("--session", str(self.home / f"{who}.session")) if who else ()
        return at_terminal(*args, "--home", str(self.home), *session, typed=typed)


@contextmanager
def open_doors(behind: Floor) -> Iterator[str]:
    """In a thread of their own; their address."""
    loop, stop = asyncio.new_event_loop(), asyncio.Event()
    opened: list[str] = []
    ready = threading.Event()
    b = behind.b

    async def stand() -> None:
        line, queries = Counted(b), Queries(b.url)
        behind.office.lines[line.line] = line
        floor = DoorsFloor(
            b.inventory, b.sorting, Provider(), {}, queries, load_profile("ssc-3des"),
            counted={line.line: line}, custody=behind.office.line,
        )  # fmt: skip
        doors = await serve(floor, "127.0.0.1:0")
        opened.append(doors.address)
        ready.set()
        await stop.wait()
        await doors.stop(0.2)
        queries.close()

    thread = threading.Thread(target=loop.run_until_complete, args=(stand(),))
    thread.start()
    assert ready.wait(20)
    yield opened[0]
    loop.call_soon_threadsafe(stop.set)
    thread.join()
    loop.close()


@pytest.fixture
def desks(floor: Floor, tmp_path: Path) -> Iterator[Desks]:
    """A centre that says it is up, and is as far as these commands go."""
    home = tmp_path / "home"
    (home / "run").mkdir(parents=True)
    (home / "centre.toml").write_text(TEMPLATE, encoding="utf-8")
    for name in ("ou", "ouyang"):
        (home / f"{name}.session").write_text(floor.office.tokens[name])
    lock = take_home(home)
    assert lock is not None
    with open_doors(floor) as address:
        state = {"at": "", "pid": 0, "listen": address, "joining": "", "machines": {}, "actors": {}}
        (home / "run" / "state.json").write_text(json.dumps(state))
        yield Desks(home, floor)
    os.close(lock)


def test_two_people_scrap_a_card_that_they_scan(desks: Desks) -> None:
    """Each scans its face hidden, at their own terminal; another card is refused with what to do;
    no number stands on a screen."""
    scrap = ("card", "scrap", "C1.0001", "--reason", "damaged")
    wrong = desks.run(*scrap, who="ou", typed=[(SCAN, FACES[1])])
    assert (wrong.code, Code.CARD_NOT_IN_HAND in wrong.text) == (1, True), wrong.text
    proposed = desks.run(*scrap, who="ou", typed=[(SCAN, FACES[0])])
    (act,) = re.findall(r"(A\d+) card.scrap C1.0001: proposed", proposed.text)
    done = desks.run("act", "confirm", act, who="ouyang", typed=[(SCAN, FACES[0])])
    assert (done.code, f"{act} card.scrap C1.0001: done" in done.text) == (0, True), done.text
    assert desks.floor.stands() == ("key_replacement/rejected", Code.SCRAPPED, False)
    for said in (wrong, proposed, done):
        assert not any(number in said.text for number in FACES)


def test_a_place_is_counted_by_scan_and_adjusted_by_two(desks: Desks) -> None:
    """The screen shows how many were scanned and nothing of the books; what differs ends with 1
    and is adjusted by two; found again it is brought back, and the same scan differs no more."""
    there = [(NEXT_SCAN, FACES[0]), (NEXT_SCAN, "")]
    for typed, code, after in (
        ([(NEXT_SCAN, "")], Code.STOCK_MISSING, Code.STOCK_MISSING),
        (there, Code.STOCK_FOUND, Code.FORMAL_KEYS_FOREIGN),
    ):
        counted = desks.run("count", AT_KEYS, typed=typed)
        assert (counted.code, WORDS[code].chinese in counted.text) == (1, True), counted.text
        assert not any(number in counted.text for number in FACES)
        (count_id,) = set(re.findall(r"key_replacement-N\d+", counted.text))
        adjust = desks.run("adjust", count_id, "--reason", "misplaced", who="ou")
        (act,) = re.findall(r"(A\d+) stock.adjust \S+: proposed", adjust.text)
        done = desks.run("act", "confirm", act, who="ouyang")
        assert (done.code, f"{act} stock.adjust {count_id}: done" in done.text) == (0, True)
        assert desks.floor.stands() == (AT_KEYS, after, True)
    same = desks.run("count", AT_KEYS, typed=there)
    assert same.code == 0, same.text
    assert desks.floor.finding() == ""
