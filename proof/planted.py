"""Planted bugs: one safeguard at a time is switched off, from outside, and the simulator must find
that it is missing. What nothing misses is not tested.

    python -m proof.planted --seed 1 [--only NAME]
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

from actors import lots, sorting
from actors.hsm import replacement_state, sealing
from actors.hsm.leases import LeaseTerms
from actors.hsm.replacement_state import KeyState
from actors.shell_ledger import LineDoor
from domain.bodies import Body, Writing
from domain.card.profile import KeyInformation, Profile
from domain.changes import Away, Changes, Committed, EventType
from domain.lines import ClosePackage, Receipt
from ledger import commit
from ledger.commit import Ledger
from proof.simulation.home import make_home, memory_directory
from proof.simulation.world import quiet_logs, simulate

MOST_SEEDS = 50
HOURS = 1.0


class _Blind:
    """A ledger's connection that finds one thing otherwise than it is: `sees` answers instead of
    the first row of what has `word` in its SQL."""

    def __init__(self, connection: Any, word: str, sees: Any) -> None:
        self._connection, self._word, self._sees = connection, word, sees

    def row(self, sql: str, *parameters: Any) -> Any:
        return self._sees if self._word in sql else self._connection.row(sql, *parameters)

    def value(self, sql: str, *parameters: Any) -> Any:
        return self._sees if self._word in sql else self._connection.value(sql, *parameters)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


@contextmanager
def _seen(word: str, sees: Callable[[int], Any]) -> Iterator[None]:
    """Every commit sees a `_Blind` ledger; `sees` is given its epoch."""
    real = Ledger._take

    def take(self: Ledger, changes: Changes, epoch: int, payload_hash: str) -> Committed:
        connection = self._connection
        self._connection = _Blind(connection, word, sees(epoch))  # type: ignore[assignment]
        try:
            return real(self, changes, epoch, payload_hash)
        finally:
            self._connection = connection

    with patch.object(Ledger, "_take", take):
        yield


@contextmanager
def epoch() -> Iterator[None]:
    """Commits under an old epoch are taken: every one finds that its own is the newest."""
    with _seen("from epoch", lambda epoch: epoch):
        yield


@contextmanager
def command_id() -> Iterator[None]:
    """A command that was taken is not known again: neither looked up nor unique."""
    real = Ledger.__init__

    def make(self: Ledger, *args: Any) -> None:
        real(self, *args)
        self._connection.run("drop index if exists commit_command")

    with _seen("and command_id", lambda _epoch: None), patch.object(Ledger, "__init__", make):
        yield


@contextmanager
def outbox_transaction() -> Iterator[None]:
    """What is to leave comes into the outbox by a second transaction."""
    real = Ledger.commit

    def commit_in_two(self: Ledger, changes: Changes, epoch: int) -> Committed:
        leaving = [i for i in changes.inserts if i.table == "outbox"]
        rest = tuple(i for i in changes.inserts if i.table != "outbox")
        committed = real(self, replace(changes, inserts=rest), epoch)
        if leaving and not committed.repeated:
            with self._connection.writing():
                for insert in leaving:
                    commit._insert(self._connection, insert)
        return committed

    with patch.object(Ledger, "commit", commit_in_two):
        yield


@contextmanager
def double_entry() -> Iterator[None]:
    """A movement takes out of one account and forgets to put into another: it is not written."""
    real = Ledger._take

    def take(self: Ledger, changes: Changes, epoch: int, payload_hash: str) -> Committed:
        return real(self, replace(changes, movements=changes.movements[1:]), epoch, payload_hash)

    with patch.object(Ledger, "_take", take):
        yield


@contextmanager
def row_fence() -> Iterator[None]:
    """Rows are changed whatever they have become since it was decided."""
    real = commit._update

    def update(connection: Any, update: Any) -> None:
        real(connection, replace(update, expect=()))

    with patch.object(commit, "_update", update):
        yield


@contextmanager
def look_at_the_chip() -> Iterator[None]:
    """A chip that was written in part counts as one that was not: its keys are written again."""
    real = replacement_state.key_state

    def blind(profile: Profile, keys: Mapping[int, KeyInformation]) -> KeyState:
        state = real(profile, keys)
        if state.temporary and state.formal:
            return replace(state, temporary=tuple(k.usage for k in profile.keys), formal=())
        return state

    with patch("actors.hsm.replacement.key_state", blind):
        yield


@contextmanager
def lease() -> Iterator[None]:
    """A session goes on, whoever had its body since and however long ago its lease ran out."""
    with patch.object(LeaseTerms, "holds", lambda *_: True):
        yield


@contextmanager
def in_doubt() -> Iterator[None]:
    """When a lease runs out its body is free again, though its chip may have been written."""

    def freed(writing: Writing, body: Body) -> None:
        writing.change(
            body, EventType.BODY_RELEASED, identification_code="", order_id="", released=False,
            leased_to="", leased_until="", leased_in="",
        )  # fmt: skip

    with patch("actors.hsm.replacement.doubt", freed):
        yield


@contextmanager
def commit_before_reply() -> Iterator[None]:
    """A reply leaves although nobody knows whether its effect is in the ledger."""
    real = LineDoor.commit

    async def hopeful(self: LineDoor, changes: Changes) -> Committed:
        try:
            return await real(self, changes)
        except Away:
            return Committed(changes.reply, 0, repeated=False)

    with patch.object(LineDoor, "commit", hopeful), patch("actors.shell_ledger.COMMIT_TRIES", 1):
        yield


@contextmanager
def read_back() -> Iterator[None]:
    """What a chip reads back is not compared with its order's record."""
    with patch.object(sealing, "first_difference", lambda *_: ""):
        yield


@contextmanager
def accepted_lot() -> Iterator[None]:
    """Cards are packed whatever becomes of their lot."""

    def to_pack(self: lots.LotWork, batch_id: str, limit: int) -> list[Any]:
        return self._queries.bodies(
            "b.batch_id = ? and b.place = ? order by b.destination, b.body_id limit ?",
            batch_id, lots.WORK, limit,
        )  # fmt: skip

    with (
        patch.object(lots.LotWork, "to_pack", to_pack),
        patch.object(lots.LotWork, "next", lambda *_: None),
    ):
        yield


@contextmanager
def package_scan() -> Iterator[None]:
    """A package is closed whatever was scanned in it."""

    def trusting(command: ClosePackage, bodies: Sequence[Any], others: Any) -> Receipt:
        return Receipt(True, records=len(bodies), taken=len(bodies))

    with patch.object(sorting, "compare", trusting):
        yield


@dataclass(frozen=True)
class Planted:
    """A safeguard that is switched off, and the promises of which one must break."""

    name: str
    plant: Callable[[], Any]
    promises: tuple[int, ...]
    known_seed: int = 0
    """One that is known to find it in a short simulation, for the tests; 0: takes too long."""


BUGS = (
    Planted("epoch", epoch, (5,), known_seed=3),
    Planted("command id", command_id, (4,)),
    Planted("transaction around the outbox", outbox_transaction, (4,)),
    Planted("double entry", double_entry, (1,), known_seed=3),
    Planted("fence of rows", row_fence, (1, 2, 4, 5)),
    Planted("fence of leases", lease, (5,)),
    Planted("in doubt", in_doubt, (2, 5), known_seed=3),
    Planted("look at the chip", look_at_the_chip, (5,), known_seed=3),
    Planted("commit before reply", commit_before_reply, (4, 5), known_seed=3),
    Planted("data read back", read_back, (3,), known_seed=3),
    Planted("accepted lot", accepted_lot, (3,), known_seed=3),
    Planted("package scan", package_scan, (3,)),
)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m proof.planted", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="part of a name")
    options = parser.parse_args(arguments)
    place, started, found, most = memory_directory(), time.perf_counter(), 0, 0
    bugs = [b for b in BUGS if options.only in b.name]
    try:
        with quiet_logs():
            home = make_home(place / "template")
        for bug in bugs:
            for tried in range(1, MOST_SEEDS + 1):
                with bug.plant():
                    outcome = simulate(options.seed + tried - 1, HOURS, home)
                right = outcome.promise in bug.promises
                if right:
                    break
            found, most = found + right, max(most, tried)
            verdict = f"found after {tried} seeds" if right else f"NOT FOUND in {tried} seeds"
            print(f"without {bug.name}: {verdict}: {outcome.broken or 'all promises hold'}",
                  flush=True)  # fmt: skip
    finally:
        shutil.rmtree(place, ignore_errors=True)
    seconds = time.perf_counter() - started
    print(f"planted-bugs: {found} of {len(bugs)} found, each after at most {most} seeds (from"
          f" {options.seed}, {HOURS:g} simulated hours each), {seconds:.0f} s")  # fmt: skip
    return 0 if found == len(bugs) else 1


if __name__ == "__main__":
    sys.exit(main())
