"""The Ray actors around the lines, and the handles through which they reach one another.

Actors are named and detached, restarted without limit, task retries off: what is asked twice
must carry the same command id. A constructor does no I/O (an actor whose constructor raises is
never restarted): a line takes its epoch and loads from the ledger in a supervised loop, and
answers `Away` until then.
"""

from __future__ import annotations

import asyncio
import os
import pickle
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import ray
import structlog
from ray.exceptions import GetTimeoutError, RayError, RayTaskError

from actors import metrics
from actors.hsm.pool import KeyPool
from domain.changes import Away, Changes, Committed, Fault, Refused
from domain.codes import Code
from domain.lines import LedgerDoor
from domain.provider import (
    Answer,
    KeyEntry,
    KeyRefused,
    KeyState,
    KnownKey,
    Provider,
    ProviderError,
    RecordUnsealable,
    Request,
)
from ledger.commit import Ledger
from ledger.connection import LedgerUnusable
from ledger.queries import Queries

log = structlog.get_logger()

PAUSES = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
"""Seconds between tries; the last one repeats."""
COMMIT_TRIES = 6
CALL_SECONDS = 30.0
PROVIDER_SECONDS = 15.0
"""Within which a key provider answers a chunk, its session opened anew included."""
OPTIONS: dict[str, Any] = {"max_restarts": -1, "max_task_retries": 0, "num_cpus": 0}


def fault_of(task: asyncio.Task[None] | None, name: str) -> str:
    """Why a background task ended that should not have, logged; empty if it did not."""
    if task is None or task.cancelled() or task.exception() is None:
        return ""
    error = type(task.exception()).__name__
    log.error("actor.fault", actor=name, error=error)
    return f"fault: {error}"


async def ask(method: Any, *args: Any, seconds: float = CALL_SECONDS) -> Any:
    """Call an actor's method. What our code raised comes back as it was; a dead, restarting or
    silent actor is Away, a fault inside it Fault."""
    try:
        async with asyncio.timeout(seconds):
            return await method.remote(*args)
    except TimeoutError:
        raise Away("no answer in time") from None
    except RayTaskError as e:
        if isinstance(e.cause, Away | Refused | KeyRefused | RecordUnsealable):
            raise e.cause from None
        log.error("actor.fault", error=type(e.cause).__name__)
        raise Fault(f"a fault inside an actor: {type(e.cause).__name__}") from None
    except (RayError, GetTimeoutError) as e:
        raise Away(type(e).__name__) from None


async def call(actor: Any, method: str, *args: Any, seconds: float = CALL_SECONDS) -> Any:
    """Call `method` of what stands behind a shell, through the shell's own `call`; as `ask`.

    Arguments and answer travel as bytes: Ray's serialiser, which can carry functions too, is a
    Python class and takes several times as long over our dataclasses.
    """
    return unpacked(await ask(actor.call, method, packed(args), seconds=seconds))


def packed(value: Any) -> bytes:
    return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)


def unpacked(value: bytes) -> Any:
    """What `packed` packed in another process of this centre (Ray itself does no other)."""
    return pickle.loads(value)


def handle(name: str) -> Any:
    """The handle of a named actor. Raises Away while there is none."""
    try:
        return ray.get_actor(name)
    except ValueError:
        raise Away(f"no actor {name}") from None


class LedgerShell:
    """The one committing process of an SQLite ledger: its lock is unfair among processes."""

    def __init__(self, url: str, now: Callable[[], str], prepare: Callable[[], None]) -> None:
        self._url, self._now, self._prepare = url, now, prepare
        self._ledger: Ledger | None = None

    def _open(self) -> Ledger:
        if self._ledger is None:
            self._prepare()
            self._ledger = Ledger(self._url, self._now)
        return self._ledger

    def call(self, method: str, args: bytes) -> bytes:
        """Call a method of the ledger."""
        return packed(getattr(self._open(), method)(*unpacked(args)))

    def health(self) -> dict[str, Any]:
        self._open()
        return {"pid": os.getpid(), "state": "ready"}


class RayLedger:
    """`LedgerDoor` over the ledger actor. A commit whose answer was lost is asked again under
    its command id; a stale epoch retires the line that holds this door."""

    def __init__(self, actor: Any, line: str, epoch: int) -> None:
        self._actor, self._line, self._epoch = actor, line, epoch
        self.retired = False

    async def commit(self, changes: Changes) -> Committed:
        for attempt in range(COMMIT_TRIES):
            try:
                committed: Committed = await call(self._actor, "commit", changes, self._epoch)
                return committed
            except Refused as e:
                self.retired = self.retired or e.code == Code.EPOCH_STALE
                raise
            except Away as e:
                log.warning(
                    "commit.away",
                    line=self._line,
                    command_id=changes.command_id,
                    reason=str(e),
                    attempt=attempt,
                )
                await asyncio.sleep(PAUSES[min(attempt, len(PAUSES) - 1)])
        raise Away("the ledger does not answer")

    async def reclaim(self) -> bool:
        reclaimed: bool = await call(self._actor, "reclaim")
        return reclaimed


ABOUT_THE_SESSION = ("self_test", "refresh")
"""Methods of a provider that are no operations on keys, and are not counted as such."""


class ProviderShell:
    """One HSM session in one process. A lost session is opened again by the next call."""

    def __init__(self, make: Callable[[], Provider], prepare: Callable[[], None]) -> None:
        self._make, self._prepare = make, prepare
        self._provider: Provider | None = None

    def call(self, method: str, args: bytes) -> bytes:
        """Call a method of the provider."""
        return packed(self._call(method, *unpacked(args)))

    def _call(self, name: str, *args: Any) -> Any:
        try:
            if self._provider is None:
                self._prepare()
                self._provider = self._make()
                metrics.expect_provider()
            method = getattr(self._provider, name)
            if name in ABOUT_THE_SESSION:
                return method()
            return metrics.provider_call(name, method, args)
        except ProviderError as e:
            raise Away(f"the key provider: {e}") from None

    def health(self) -> dict[str, Any]:
        self._call("index", ["health"])
        return {"pid": os.getpid(), "state": "ready"}


class RayProvider:
    """A member of the pool over a provider actor. Its operations change nothing that matters twice
    (the same act on keys again answers the same), so they are simply asked again."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    async def _call(self, method: str, *args: Any) -> Any:
        return await call(self._actor, method, *args, seconds=PROVIDER_SECONDS)

    async def perform(self, requests: Sequence[Request]) -> list[Answer]:
        answers: list[Answer] = await self._call("perform", list(requests))
        return answers

    async def seal(self, batch_id: str, records: Sequence[tuple[str, bytes]]) -> list[bytes]:
        sealed: list[bytes] = await self._call("seal", batch_id, list(records))
        return sealed

    async def unseal(self, batch_id: str, records: Sequence[tuple[str, bytes]]) -> list[bytes]:
        plain: list[bytes] = await self._call("unseal", batch_id, list(records))
        return plain

    async def index(self, values: Sequence[str]) -> list[str]:
        found: list[str] = await self._call("index", list(values))
        return found

    async def sign(self, digests: Sequence[bytes]) -> list[bytes]:
        signatures: list[bytes] = await self._call("sign", list(digests))
        return signatures

    async def self_test(self) -> list[str]:
        held: list[str] = await self._call("self_test")
        return held

    async def refresh(self) -> None:
        await self._call("refresh")

    # `KeyCustodian`.

    async def combine(
        self, label: str, suite: str, parts: Sequence[bytes], lost: KnownKey | None = None
    ) -> KeyEntry:
        entry: KeyEntry = await self._call("combine", label, suite, list(parts), lost)
        return entry

    async def part_value(self, label: str, suite: str, number: int, part: bytes) -> str:
        value: str = await self._call("part_value", label, suite, number, part)
        return value

    async def set_state(self, labels: Sequence[str], state: KeyState) -> list[KeyEntry]:
        entries: list[KeyEntry] = await self._call("set_state", list(labels), state)
        return entries

    async def destroy(self, labels: Sequence[str]) -> None:
        await self._call("destroy", list(labels))

    async def destroy_data_keys(self, batch_ids: Sequence[str]) -> None:
        await self._call("destroy_data_keys", list(batch_ids))

    async def inventory(self) -> list[KeyEntry]:
        entries: list[KeyEntry] = await self._call("inventory")
        return entries

    async def export(self, labels: Sequence[str], kek_version: int) -> bytes:
        blob: bytes = await self._call("export", list(labels), kek_version)
        return blob

    async def backup(self, kek_version: int) -> bytes:
        blob: bytes = await self._call("backup", kek_version)
        return blob

    async def read_backup(self, blob: bytes) -> list[KeyEntry]:
        entries: list[KeyEntry] = await self._call("read_backup", blob)
        return entries

    async def restore(self, blob: bytes, states: Mapping[str, str]) -> list[KeyEntry]:
        entries: list[KeyEntry] = await self._call("restore", blob, dict(states))
        return entries

    async def stage_temporary_keys(self, block: bytes) -> list[KeyEntry]:
        entries: list[KeyEntry] = await self._call("stage_temporary_keys", block)
        return entries


def key_pool(providers: Sequence[str]) -> KeyPool:
    """A pool over the provider actors of these names. Raises Away while one was not started."""
    return KeyPool({name: RayProvider(handle(name)) for name in providers})


class MakeLine(Protocol):
    """Builds a line from its door, its eyes, its keys and its epoch."""

    def __call__(
        self, ledger: LedgerDoor, queries: Queries, keys: KeyPool, epoch: int, /
    ) -> Any: ...


def health_of_keys(keys: KeyPool, note: str) -> dict[str, Any]:
    """State, note and code of a part that asks these providers: ready, or paused without keys."""
    if keys.out:
        note = f"{note}; key providers out: {', '.join(keys.out)}"
    if keys.away:
        return {"state": "paused", "note": note, "code": str(Code.KEY_PROVIDER_AWAY)}
    return {"state": "ready", "note": note}


class LineShell:
    """The actor around one line. `stepping`: the line has a `step` to be called again and again
    (at once while it says that there is more, else after a pause)."""

    STEP_SECONDS = 0.5

    def __init__(
        self,
        name: str,
        ledger: str,
        make: MakeLine,
        prepare: Callable[[], None],
        stepping: bool,
        providers: Sequence[str],
    ) -> None:
        self._name, self._ledger, self._make = name, ledger, make
        self._prepare, self._stepping, self._providers = prepare, stepping, providers
        self._keys: KeyPool | None = None
        self._line: Any = None
        self._door: RayLedger | None = None
        self._task: asyncio.Task[None] | None = None
        self._note = "not started"

    async def call(self, method: str, args: bytes) -> bytes:
        """Call a method of the line. Away until it has loaded."""
        line = self._loaded()
        with metrics.call_seconds(self._name, method).time():
            return packed(await getattr(line, method)(*unpacked(args)))

    async def health(self) -> dict[str, Any]:
        """Also starts the line: the first call after a restart does."""
        self._start()
        if self._line is None or self._keys is None:
            return {"pid": os.getpid(), "state": "loading", "note": self._note}
        return {"pid": os.getpid(), **health_of_keys(self._keys, self._note)}

    def _start(self) -> None:
        if self._task is None or self._task.done():
            self._note = fault_of(self._task, self._name) or self._note
            self._task = asyncio.ensure_future(self._run())

    def _loaded(self) -> Any:
        self._start()
        if self._line is None:
            raise Away(f"{self._name} is loading: {self._note}")
        if self._door is not None and self._door.retired:
            raise Away(f"{self._name}: another instance took over")
        return self._line

    async def _run(self) -> None:
        self._prepare()
        attempt = 0
        while self._line is None:
            try:
                await self._load()
            except (Away, OSError, LedgerUnusable) as e:
                self._note = f"waits: {e}"
                log.warning("line.loading", line=self._name, reason=str(e))
                await asyncio.sleep(PAUSES[min(attempt, len(PAUSES) - 1)])
                attempt += 1
        while self._stepping and not (self._door and self._door.retired):
            if not await self._step():
                await asyncio.sleep(self.STEP_SECONDS)

    async def _load(self) -> None:
        actor = handle("ledger")
        epoch = await call(actor, "open_epoch", self._name)
        self._door = RayLedger(actor, self._name, epoch)
        queries = Queries(self._ledger)
        self._keys = key_pool(self._providers)
        self._line = self._make(self._door, queries, self._keys, epoch)
        self._note = f"epoch {epoch}"
        log.info("line.ready", line=self._name, epoch=epoch)

    async def _step(self) -> bool:
        try:
            with metrics.call_seconds(self._name, "step").time():
                return bool(await self._line.step())
        except (Away, Refused) as e:
            log.warning("line.step", line=self._name, reason=str(e))
            return False


class RayLine:
    """A line as others reach it: any method of its Protocol, through `LineShell.call`."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def __getattr__(self, method: str) -> Any:
        return partial(call, self._actor, method)


def start(name: str, shell: type, *args: Any, **options: Any) -> Any:
    """The named, detached actor `name`, made if there is none yet."""
    return (
        ray.remote(shell)
        .options(name=name, lifetime="detached", get_if_exists=True, **{**OPTIONS, **options})
        .remote(*args)
    )
