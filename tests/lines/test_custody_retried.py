"""Acts that fail on the way, and commands that come again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from domain.changes import Away
from domain.codes import Code
from domain.custody import ActKind, ActState
from ledger import people
from tests.lines.custody import USAGES, Office, block_of, code_of, parts


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    office = Office(tmp_path)
    office.settle()
    yield office
    office.close()


class Disk(dict[str, bytes]):
    """Where exports and backups are delivered; with `fault` it can't be written."""

    fault: Exception | None = None

    def update(self, *args: Any) -> None:  # type: ignore[override]
        if self.fault is not None:
            raise self.fault
        super().update(*args)


def state_of(office: Office, act_id: str) -> str:
    act = people.act(office.queries, act_id)
    assert act is not None
    return act.state


@pytest.mark.parametrize("fault", [OSError(28, "no space left"), ValueError("a fault")])
def test_an_act_that_fails_keeps_no_other_back(office: Office, fault: Exception) -> None:
    """A backup that can't be written, or meets a fault of the program, waits and is tried again;
    what was confirmed after it is done meanwhile."""
    usages = ("kek",)
    office.both("ke", "kang", ActKind.KEY_GENERATE, "kek",
                parts=parts(usages, "one"), second={"parts": parts(usages, "two")})  # fmt: skip
    office.both("ke", "kang", ActKind.KEY_ACTIVATE, "kek", version=1)
    office.delivered = disk = Disk()
    office.restart()
    disk.fault = fault
    backup = office.propose("ke", ActKind.KEY_BACKUP, "all").acts[0]
    with contextlib.suppress(ValueError):
        assert office.confirm("kang", backup.act_id).acts[0].state == ActState.CONFIRMED
    later = office.propose("ke", ActKind.KEY_ACCEPT_TEMPORARY, "B1", block=block_of("B1")).acts[0]
    office.shelf.fault = Away("it restarts")
    office.confirm("kang", later.act_id, check_values=dict(later.content["check_values"]))
    assert state_of(office, later.act_id) == ActState.CONFIRMED
    asyncio.run(office.line.step())
    assert state_of(office, backup.act_id) == ActState.CONFIRMED
    assert state_of(office, later.act_id) == ActState.DONE
    disk.fault = None
    asyncio.run(office.line.step())
    assert state_of(office, backup.act_id) == ActState.DONE
    assert office.verify().ok


def test_a_command_that_comes_again_with_other_content_is_refused(office: Office) -> None:
    """Whatever differs, roles, a component, a block or a password, it is not the same command; the
    act that was proposed stands, and the same content is answered by it."""
    add, key, block = ActKind.PEOPLE_ADD, ActKind.KEY_GENERATE, ActKind.KEY_ACCEPT_TEMPORARY
    person = {"roles": ("operator",), "password": "typed by whoever is added"}
    for by, kind, subject, first, other in (
        ("sun", add, "li", person, {**person, "roles": ("inspector",)}),
        ("sun", add, "wu", person, {**person, "password": "another password of wu"}),
        ("ke", key, "formal", {"parts": parts(USAGES, "one")}, {"parts": parts(USAGES, "two")}),
        ("ke", block, "B1", {"block": block_of("B1")}, {"block": block_of("B2")}),
    ):
        again = {"command_id": f"c {subject}"}
        act = office.propose(by, kind, subject, **first, **again).acts[0]
        assert code_of(office.propose(by, kind, subject, **other, **again)) == Code.COMMAND_DIFFERS
        same = office.propose(by, kind, subject, **first, **again)
        assert (same.receipt.repeated, same.acts[0].act_id) == (True, act.act_id)
