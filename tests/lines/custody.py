"""The custody line as these tests build it: a clock that they move, passwords that cost little, and
a shelf of keys in the place of a provider (`tests/hsm` proves the real one)."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from argon2 import PasswordHasher

from actors.accounts import Settings
from actors.ceremonies import Ceremonies
from actors.custody import Custody
from actors.floor_acts import FloorActs
from actors.inventory import Inventory
from actors.passwords import Passwords
from domain.card.profile import load_profile
from domain.changes import Away, Changes, Committed
from domain.codes import Code
from domain.custody import (
    Act,
    ActKind,
    Answered,
    Confirmation,
    Founding,
    Login,
    NewPassword,
    Proposal,
    Role,
)
from domain.lines import ActingLine, LedgerDoor, Note, NoteCarton, SignFor
from domain.places import Kind, Line
from domain.provider import KeyEntry, KeyRefused, KeyState, KnownKey
from ledger.commit import Ledger
from ledger.key_use import key_dependents
from ledger.people import known_keys
from ledger.queries import Queries
from ledger.verify import Report, verify
from tests.ledgers import new_ledger

PROFILE = load_profile("ssc-3des")
IDLE = timedelta(minutes=15)
PROOF = "what stands in the owner's file"
PASSWORD = "a password of {} ones"
FIRST_PASSWORD = "typed beside a supervisor"
CHEAP = Passwords(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
USAGES = tuple(slot.usage for slot in PROFILE.keys)


def password_of(name: str) -> str:
    return PASSWORD.format(name)


class SteppingClock:
    """A little later each time it is looked at."""

    def __init__(self) -> None:
        self.now = datetime(2024, 3, 1, 8, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.now += timedelta(milliseconds=10)
        return self.now


class KeyShelf:
    """`KeyCustodian` that keeps what a provider would keep. With `fault`, the next call that
    changes something raises it, before or after it took effect."""

    def __init__(self) -> None:
        self.keys: dict[str, KeyEntry] = {}
        self.parts: dict[str, list[bytes]] = {}
        self.combined = 0
        self.fault: Exception | None = None
        self.fault_after: Exception | None = None

    def _fail(self, *, after: bool = False) -> None:
        name = "fault_after" if after else "fault"
        fault = getattr(self, name)
        setattr(self, name, None)
        if fault is not None:
            raise fault

    async def combine(
        self, label: str, suite: str, parts: Sequence[bytes], lost: KnownKey | None = None
    ) -> KeyEntry:
        self._fail()
        value = _value(b"".join(parts))
        if lost is not None and value != lost.check_value:
            raise KeyRefused(Code.KEY_CHECK_VALUE_DIFFERS, label)
        if self.parts.setdefault(label, list(parts)) != list(parts):
            raise KeyRefused(Code.KEY_BLOCK_REPEATED_DIFFERENT, label)
        if label not in self.keys:
            self.combined += 1
            usage, version = label.split(":")[-2], int(label.rpartition("v")[2])
            self.keys[label] = KeyEntry(
                label, usage, version, suite, lost.state if lost else KeyState.STAGED, value
            )
        self._fail(after=True)
        return self.keys[label]

    async def part_value(self, label: str, suite: str, number: int, part: bytes) -> str:
        if not part:
            raise KeyRefused(Code.KEY_BLOCK_BAD, "part")
        return _value(part)

    async def set_state(self, labels: Sequence[str], state: KeyState) -> list[KeyEntry]:
        self._fail()
        if missing := set(labels) - self.keys.keys():
            raise KeyRefused(Code.KEY_UNKNOWN, min(missing))
        version = self.keys[labels[0]].version
        for label, entry in self.keys.items():
            family = label.partition(":")[0] == labels[0].partition(":")[0] == "formal"
            if label in labels:
                self.keys[label] = replace(entry, state=state)
            elif state is KeyState.ACTIVE and family and entry.version < version:
                self.keys[label] = replace(entry, state=KeyState.RETIRED)
        self._fail(after=True)
        return [self.keys[label] for label in labels]

    async def destroy(self, labels: Sequence[str]) -> None:
        self._fail()
        for label in labels:
            self.keys.pop(label, None)

    async def destroy_data_keys(self, batch_ids: Sequence[str]) -> None:
        raise AssertionError("the custody line destroys no data keys")

    async def inventory(self) -> list[KeyEntry]:
        return [self.keys[label] for label in sorted(self.keys)]

    async def export(self, labels: Sequence[str], kek_version: int) -> bytes:
        return "\n".join(labels).encode()

    async def backup(self, kek_version: int) -> bytes:
        return b"a backup"

    async def read_backup(self, blob: bytes) -> list[KeyEntry]:
        if blob == b"a backup":
            return [KeyEntry("bank:102:kmc:v1", "kmc", 1, "3des", KeyState.ACTIVE, "ABCDEF")]
        return [KeyEntry(*fields) for fields in json.loads(blob)]

    async def restore(self, blob: bytes, states: Mapping[str, str]) -> list[KeyEntry]:
        return [
            self.keys.setdefault(e.label, replace(e, state=states[e.label]))
            for e in await self.read_backup(blob)
            if e.label in states
        ]

    def saved(self, subject: str) -> bytes:
        """The keys of one kind, as they are now, in a file that `restore` takes."""
        entries = [vars(e) for label, e in self.keys.items() if label.startswith(subject)]
        return json.dumps([list(e.values()) for e in entries]).encode()

    async def stage_temporary_keys(self, block: bytes) -> list[KeyEntry]:
        self._fail()
        batch = json.loads(block)["batch_id"]
        entries = [
            KeyEntry(f"temporary:{batch}:{usage}:v0", usage, 0, "3des", KeyState.STAGED,
                     _value(usage.encode()))
            for usage in USAGES
        ]  # fmt: skip
        staged = [self.keys.setdefault(e.label, e) for e in entries]
        self._fail(after=True)
        return staged


def block_of(batch_id: str) -> bytes:
    """A factory's block that this shelf opens."""
    keys = [
        {"usage": usage, "version": PROFILE.temporary_version, "wrapped": "00",
         "check_value": _value(usage.encode())}
        for usage in USAGES
    ]  # fmt: skip
    top = {"format": 1, "factory_id": "F", "batch_id": batch_id, "suite": PROFILE.suite}
    return json.dumps({**top, "keys": keys}).encode()


def letter_of() -> dict[str, str]:
    """What the factory's letter says of such a block."""
    return {usage: _value(usage.encode()) for usage in USAGES}


def _value(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()[:6].upper()


_instances = itertools.count(1)


def custody_line(
    door: LedgerDoor,
    queries: Queries,
    shelf: KeyShelf,
    clock: SteppingClock,
    delivered: dict[str, bytes] | None = None,
    lines: Mapping[str, ActingLine] | None = None,
) -> Custody:
    """`lines`: those that carry out acts on cards; one that is missing is away."""
    out = {} if delivered is None else delivered
    ceremonies = Ceremonies(
        shelf,
        PROFILE,
        lambda: known_keys(queries),
        lambda labels: key_dependents(queries, labels),
        lambda name, content: out.update({name: content}),
    )
    floor = FloorActs(queries, partial(_nearby, {} if lines is None else lines))
    tokens = (f"token {n}" for n in itertools.count(next(_instances) * 1000))
    settings = Settings(clock, IDLE, lambda: PROOF, lambda: next(tokens), CHEAP)
    return Custody(door, queries, shelf, ceremonies, floor, f"c{next(_instances)}", settings)


def _nearby(lines: Mapping[str, ActingLine], name: str) -> ActingLine:
    if name not in lines:
        raise Away(f"no line {name}")
    return lines[name]


@dataclass
class Killed(Exception):
    """The line died here."""


class CuttingDoor:
    """`LedgerDoor` into a ledger of this process. With `cut`, the line dies after that many more
    commits: they took effect and nobody was told; with `cut` 0 before the next one."""

    def __init__(self, ledger: Ledger, line: Line) -> None:
        self._ledger, self._epoch = ledger, ledger.open_epoch(line)
        self.cut: int | None = None

    async def commit(self, changes: Changes) -> Committed:
        if self.cut == 0:
            raise Killed
        committed = self._ledger.commit(changes, self._epoch)
        if self.cut is not None:
            self.cut -= 1
            if self.cut == 0:
                raise Killed
        return committed

    async def reclaim(self) -> bool:
        return self._ledger.reclaim()


@dataclass
class Office:
    """A ledger, the custody line over it, and people who log in and act."""

    place: Path
    clock: SteppingClock = field(default_factory=SteppingClock)
    shelf: KeyShelf = field(default_factory=KeyShelf)
    delivered: dict[str, bytes] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    lines: dict[str, ActingLine] = field(default_factory=dict)
    """Those of the floor, by name; one that is not here is away."""

    shared: Ledger | None = None
    """The one writer of a ledger that other lines use too."""

    def __post_init__(self) -> None:
        self.place.mkdir(parents=True, exist_ok=True)
        self.url = self.shared.database.url if self.shared else new_ledger(self.place)
        self.ledger = self.shared or Ledger(
            self.url, lambda: self.clock().isoformat(timespec="milliseconds")
        )
        self.queries = Queries(self.url)
        self.restart()

    def restart(self) -> None:
        """Another instance of the line; nothing is remembered but the ledger."""
        self.door = CuttingDoor(self.ledger, Line.CUSTODY)
        self.line = custody_line(
            self.door, self.queries, self.shelf, self.clock, self.delivered, self.lines
        )

    def close(self) -> None:
        self.queries.close()
        if self.shared is None:
            self.ledger.close()

    def verify(self) -> Report:
        return verify(self.url, None, None)

    def receive(self, batch_id: str, cards: int) -> None:
        """Cards of a batch come into the vault."""
        inventory = Inventory(CuttingDoor(self.ledger, Line.INVENTORY), self.queries)
        carton = NoteCarton("T1", "102", Kind.TEMPORARY_CARD, cards, "window-430102")
        asyncio.run(inventory.accept_note(Note("D1", batch_id, "F", "d", (carton,))))
        asyncio.run(inventory.sign_for(SignFor("D1", {"T1": cards})))

    # What people do.

    def found(self, name: str, proof: str = PROOF, password: str = "") -> Answered:
        founding = Founding(name, password or password_of(name), proof)
        return asyncio.run(self.line.found(founding))

    def log_in(self, name: str, password: str = "", keep: str = "") -> Answered:
        login = Login(name, "tty1", password or password_of(name))
        answered = asyncio.run(self.line.log_in(login))
        if answered.token:
            self.tokens[keep or name] = answered.token
        return answered

    def change_password(self, by: str, old: str, new: str) -> Answered:
        return asyncio.run(self.line.change_password(self.tokens[by], NewPassword(old, new)))

    def come(self, name: str) -> None:
        """Somebody new logs in and takes a password of their own."""
        assert self.log_in(name, FIRST_PASSWORD).receipt.accepted
        changed = self.change_password(name, FIRST_PASSWORD, password_of(name))
        assert changed.receipt.accepted, changed.receipt

    def propose(self, by: str, kind: str, subject: str, **more: object) -> Answered:
        command_id = str(
            more.pop("command_id", f"{by} {kind} {subject} {self.clock().isoformat()}")
        )
        proposal = Proposal(command_id, kind, subject, **more)  # type: ignore[arg-type]
        return asyncio.run(self.line.propose(self.tokens.get(by, ""), proposal))

    def confirm(self, by: str, act_id: str, **more: object) -> Answered:
        confirmation = Confirmation(act_id, **more)  # type: ignore[arg-type]
        return asyncio.run(self.line.confirm(self.tokens.get(by, ""), confirmation))

    def withdraw(self, by: str, act_id: str) -> Answered:
        return asyncio.run(self.line.withdraw(self.tokens.get(by, ""), act_id))

    def step(self) -> None:
        asyncio.run(self.line.step())

    def who(self, by: str) -> Answered:
        return asyncio.run(self.line.who(self.tokens.get(by, "")))

    def both(self, one: str, other: str, kind: str, subject: str, **more: object) -> Act:
        """Proposed by one, confirmed by the other; the act as it stands then."""
        second = {k: more.pop(k) for k in ("second",) if k in more}
        proposed = self.propose(one, kind, subject, **more)
        assert proposed.receipt.accepted, proposed.receipt
        confirmed = self.confirm(other, proposed.acts[0].act_id, **dict(second.get("second", {})))  # type: ignore[call-overload]
        return confirmed.acts[0] if confirmed.acts else proposed.acts[0]

    def settle(self) -> None:
        """Two supervisors and two custodians, all of them logged in."""
        for name in ("sun", "su"):
            assert self.found(name, password=FIRST_PASSWORD).receipt.accepted
            self.come(name)
        for name in ("ke", "kang"):
            add = {"roles": (str(Role.KEY_CUSTODIAN),), "password": FIRST_PASSWORD}
            assert self.both("sun", "su", ActKind.PEOPLE_ADD, name, **add).state == "done"
            self.come(name)

    def generate(self, kind: str = ActKind.KEY_GENERATE, subject: str = "formal") -> Act:
        """A set of keys out of two components."""
        usages = USAGES if subject == "formal" else (subject.rpartition(":")[2],)
        return self.both(
            "ke", "kang", kind, subject,
            parts=parts(usages, "one"), second={"parts": parts(usages, "two")},
        )  # fmt: skip


def parts(usages: Sequence[str], whose: str) -> dict[str, bytes]:
    """Components that nobody has to open: the shelf takes whatever is sealed."""
    return {usage: f"sealed {whose} {usage}".encode() for usage in usages}


def code_of(answered: Answered) -> str:
    return answered.receipt.code
