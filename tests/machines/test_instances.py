"""Instances of one line on PostgreSQL, each with a writing connection of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from actors.shell import packed, unpacked
from actors.shell_line import LineShell
from centre.wiring import make_inventory, now
from domain.changes import Away, Refused
from domain.codes import Code
from domain.lines import Note, NoteCarton, Receipt
from domain.places import Kind, Line
from ledger.connection import connect
from ledger.queries import Queries

SECONDS = 20.0


def instance(url: str) -> LineShell:
    return LineShell(Line.INVENTORY, url, make_inventory, now, False, (), lambda: None)


def note(delivery: str) -> Note:
    carton = NoteCarton(f"{delivery}-C1", "102", Kind.SOCIAL_SECURITY_CARD, 5, "")
    return Note(delivery, "B1", "F1", f"digest of {delivery}", (carton,))


async def accept(line: LineShell, delivery: str) -> Receipt:
    receipt: Receipt = unpacked(await line.call("accept_note", packed((note(delivery),))))
    return receipt


async def loaded(line: LineShell) -> str:
    """Ask for its health until it has loaded; what it notes (its epoch)."""
    async with asyncio.timeout(SECONDS):
        while (health := await line.health())["state"] == "loading":  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # health is what starts it: there is no event to wait for
    return str(health["note"])


def written(url: str) -> dict[str, Any]:
    """How much stands in the ledger."""
    queries = Queries(url)
    try:
        return {
            table: queries.rows(f"select count(*) as n from {table}")[0]["n"]
            for table in ("commit_link", "event", "movement", "delivery", "carton")
        }
    finally:
        queries.close()


def test_an_instance_that_was_replaced_moves_nothing(new_ledger: Callable[[], str]) -> None:
    """Two instances of one line live at once, as when a machine was cut off: the older one's
    commit is refused inside the transaction and nothing changes, it answers Away from then on, and
    the newer one goes on. Only when the older is the one that the head asks for does it take over,
    under a new epoch, and then the other is refused."""
    url = new_ledger()

    async def play() -> None:
        older, newer = instance(url), instance(url)
        assert "epoch 1" in await loaded(older)
        assert (await accept(older, "D1")).accepted
        assert "epoch 2" in await loaded(newer)
        before = written(url)
        with pytest.raises(Refused) as refused:
            await accept(older, "D2")
        assert refused.value.code == Code.EPOCH_STALE
        assert written(url) == before
        with pytest.raises(Away, match="another instance took over"):
            await accept(older, "D2")
        assert (await accept(newer, "D2")).accepted
        assert "epoch 3" in await loaded(older)
        with pytest.raises(Refused):
            await accept(newer, "D3")
        assert (await accept(older, "D3")).accepted

    asyncio.run(play())
    assert written(url)["delivery"] == 3


def test_a_line_answers_while_its_commit_waits(new_ledger: Callable[[], str]) -> None:
    """A commit that the database keeps waiting holds up neither health nor the next question; it
    takes effect, once, when the database goes on."""
    url = new_ledger()

    async def play() -> None:
        line = instance(url)
        await loaded(line)
        other = connect(url, write=True)
        other.run("begin")
        other.run("lock table commit_link in share mode")
        commits = asyncio.gather(accept(line, "D1"), accept(line, "D1"))
        # Repeats are known by a commit before them: these two wait for the same one.
        for _ in range(20):
            health = await asyncio.wait_for(line.health(), 1.0)
            assert health["state"] != "loading"
        assert not commits.done()
        other.run("rollback")
        other.close()
        receipts = await asyncio.wait_for(commits, SECONDS)
        assert all(r.accepted for r in receipts)

    asyncio.run(play())
    assert written(url)["delivery"] == 1
