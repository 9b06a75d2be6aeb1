"""The processes of the centre, simulated: each can die between any two effects and comes back.

What runs in them is real: `Ledger`, `LineDoor` (the retries of a commit under its command id), the
lines, `KeyPool`, the provider.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from actors.hsm.pkcs11_provider import Pkcs11Provider
from actors.hsm.pool import KeyPool
from actors.shell import CALL_SECONDS, PAUSES
from actors.shell_ledger import LineDoor
from domain.changes import Away, Changes, Committed, Fault, Refused
from domain.lines import KeyProvider, LedgerDoor
from domain.provider import ProviderError
from ledger.commit import Ledger
from ledger.queries import Queries
from proof.simulation.faults import FailingConnection, Faults
from proof.simulation.trace import Trace


class Watching(Protocol):
    """What is told of every step, and finds what is broken (`promises`)."""

    def epoch_opened(self, line: str, epoch: int) -> None: ...

    def decided(self, changes: Changes) -> None: ...

    def committed(self, changes: Changes, epoch: int, committed: Committed | None) -> None: ...

    def broken(self, promise: int, text: str, *cards: str) -> None: ...


class Nursery:
    """Tasks of one process: killed together."""

    def __init__(self) -> None:
        # In the order in which they began: a set's would differ from run to run.
        self._tasks: dict[asyncio.Task[Any], None] = {}

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.ensure_future(work)
        self._tasks[task] = None
        task.add_done_callback(lambda done: self._tasks.pop(done, None))
        return task

    async def kill(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class LedgerActor:
    """The one committing process (`actors.shell_ledger.Write`); what is under way goes on when the
    caller gives up or dies."""

    def __init__(
        self, path: Path, now: Callable[[], str], faults: Faults, watching: Watching
    ) -> None:
        self._path, self._now = path, now
        self._faults, self._watching = faults, watching
        self._ledger: Ledger | None = Ledger(path, now)
        self._calls = Nursery()
        self.changes = 0
        """How often a commit was tried."""
        self._change = asyncio.Event()

    async def __call__(self, method: str, *args: Any) -> Any:
        if method == "commit":
            self._watching.decided(args[0])
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._calls.spawn(self._deliver(method, args, answer))
        try:
            async with asyncio.timeout(CALL_SECONDS):
                return await answer
        except TimeoutError:
            raise Away("no answer in time") from None

    async def _deliver(
        self, method: str, args: tuple[Any, ...], answer: asyncio.Future[Any]
    ) -> None:
        fate = self._faults.message("ledger", 120.0)
        await asyncio.sleep(fate.out)
        given: Any = None
        error: Exception | None = Away("ActorUnavailableError")
        if not fate.lost:
            try:
                given, error = self._execute(method, *args), None
            except (Away, Refused) as e:
                error = e
        await asyncio.sleep(fate.back)
        if not answer.done():
            if error is not None or fate.answer_lost:
                answer.set_exception(error or Away("ActorUnavailableError"))
            else:
                answer.set_result(given)
        if fate.again is not None:
            await asyncio.sleep(fate.again)
            try:
                self._execute(method, *args)
            except (Away, Refused):
                return

    def _execute(self, method: str, *args: Any) -> Any:
        """One call, which nothing interrupts but the death of this process."""
        if self._ledger is None:
            raise Away("ActorDiedError")
        if method == "open_epoch":
            epoch = self._ledger.open_epoch(*args)
            self._watching.epoch_opened(args[0], epoch)
            return epoch
        if method != "commit":
            return getattr(self._ledger, method)(*args)
        return self._commit(*args)

    def _commit(self, changes: Changes, epoch: int) -> Committed:
        ledger = self._ledger
        assert ledger is not None
        failing = None
        if self._faults.chance(self._faults.rates.statement):
            failing = FailingConnection.of(ledger, self._faults.random)
            self._faults.trace.fault(f"ledger {failing.kind}", "ledger", changes.command_id)
        committed = None
        try:
            committed = ledger.commit(changes, epoch)
            return committed
        finally:
            if failing is not None:
                failing.end(ledger)
                if failing.dead:
                    self._die()
            self._watching.committed(changes, epoch, committed)
            self.changes += 1
            self._change.set()
            self._change = asyncio.Event()

    async def changed(self, since: int) -> None:
        """Until a commit was tried after `since` were."""
        while self.changes <= since:
            await self._change.wait()

    def _die(self) -> None:
        if self._ledger is not None:
            self._ledger.close()
            self._ledger = None
            self._calls.spawn(self._come_back())

    async def _come_back(self) -> None:
        await asyncio.sleep(self._faults.random.uniform(0.2, 5.0))
        self._ledger = Ledger(self._path, self._now)

    async def close(self) -> None:
        await self._calls.kill()
        if self._ledger is not None:
            self._ledger.close()


class KeyMember:
    """A member of a line's pool of key providers, over the one session with the token that a
    process can have. While it is `away` every call fails."""

    def __init__(self, provider: Pkcs11Provider, faults: Faults) -> None:
        self._provider, self._faults = provider, faults
        self.away = False

    def __getattr__(self, method: str) -> Any:
        return partial(self._call, method)

    async def _call(self, method: str, *args: Any) -> Any:
        fate = self._faults.message("key provider", 10.0)
        await asyncio.sleep(fate.out)
        if self.away or fate.lost:
            raise Away("the key provider: the token failed")
        try:
            answer = getattr(self._provider, method)(*args)
        except ProviderError as e:
            raise Away(f"the key provider: {e}") from None
        await asyncio.sleep(fate.back)
        if fate.answer_lost:
            raise Away("ActorUnavailableError")
        return answer


class MakeLine(Protocol):
    """Builds a line, as `actors.shell.MakeLine` does."""

    def __call__(
        self, ledger: LedgerDoor, queries: Queries, provider: KeyProvider, epoch: int
    ) -> Any: ...


class Instance:
    """One life of a line: its door with an epoch, what it remembers, what it has under way."""

    def __init__(self, line: Any, door: LineDoor, queries: Queries) -> None:
        self.line, self.door, self.queries = line, door, queries
        self.tasks = Nursery()

    async def end(self) -> None:
        await self.tasks.kill()
        self.queries.close()


STEP_SECONDS = 15.0
"""Between two looks of a line at what can be done, when there was nothing. Production looks twice
a second; a simulated day has no time for that."""
LEASE_LOOK_SECONDS = 60.0


class LineActor:
    """A line as others reach it, with supervision: killed, it comes back with a new epoch;
    replaced, the old instance goes on for a while beside the new one."""

    def __init__(
        self, name: str, make: MakeLine, ledger: LedgerActor, path: Path,
        members: Sequence[KeyMember], faults: Faults, watching: Watching, *, stepping: bool,
    ) -> None:  # fmt: skip
        self.name = name
        self._make, self._ledger, self._path, self._members = make, ledger, path, members
        self._faults, self._watching, self._stepping = faults, watching, stepping
        self._trace: Trace = faults.trace
        self._now: Instance | None = None
        self._old: Instance | None = None
        self._supervision = Nursery()
        self._supervision.spawn(self._start())

    def __getattr__(self, method: str) -> Any:
        """Any method of the line, as a Ray call of it."""
        return partial(self._call, method)

    async def _call(self, method: str, *args: Any) -> Any:
        fate = self._faults.message(self.name, 60.0)
        try:
            async with asyncio.timeout(CALL_SECONDS):
                await asyncio.sleep(fate.out)
                if fate.lost:
                    raise Away("ActorUnavailableError")
                instance = self._now
                if self._old is not None and self._faults.chance(0.5):
                    instance = self._old
                answer = await self._within(instance, method, *args)
                if fate.again is not None and instance is not None:
                    instance.tasks.spawn(self._again(fate.again, instance, method, *args))
                await asyncio.sleep(fate.back)
                if fate.answer_lost:
                    raise Away("ActorUnavailableError")
                return answer
        except TimeoutError:
            raise Away("no answer in time") from None

    async def _within(self, instance: Instance | None, method: str, *args: Any) -> Any:
        """Run a method in an instance: what was begun there goes on, whoever waits for it."""
        if instance is None:
            raise Away(f"{self.name} is loading")
        if instance.door.retired:
            raise Away(f"{self.name}: another instance took over")
        task = instance.tasks.spawn(getattr(instance.line, method)(*args))
        await asyncio.wait({task})
        if task.cancelled():
            raise Away("ActorDiedError")
        error = task.exception()
        if error is None:
            return task.result()
        if not isinstance(error, Away | Refused):
            self._watching.broken(0, f"{self.name}.{method} failed: {error!r}")
            raise Fault(type(error).__name__)
        raise error

    async def _again(self, seconds: float, instance: Instance, method: str, *args: Any) -> None:
        await asyncio.sleep(seconds)
        try:
            await self._within(instance, method, *args)
        except (Away, Refused):
            return

    async def _start(self) -> None:
        """As `LineShell._load`: until it has an epoch."""
        attempt = 0
        while True:
            try:
                epoch = await self._ledger("open_epoch", self.name)
                break
            except Away:
                await asyncio.sleep(PAUSES[min(attempt, len(PAUSES) - 1)])
                attempt += 1
        door = LineDoor(self._ledger, self.name, epoch)
        queries = Queries(self._path)
        keys = KeyPool({f"hsm-{n}": m for n, m in enumerate(self._members)})
        self._now = Instance(self._make(door, queries, keys, epoch), door, queries)
        self._trace.note(self.name, f"ready, epoch {epoch}")
        if self._stepping:
            self._now.tasks.spawn(self._steps(self._now))

    async def _steps(self, instance: Instance) -> None:
        while not instance.door.retired:
            since = self._ledger.changes
            try:
                more = await self._within(instance, "step")
            except (Away, Refused):
                await asyncio.sleep(STEP_SECONDS)
                continue
            if not more:
                await asyncio.sleep(STEP_SECONDS)
                # Not for ever: leases run out by the clock.
                with suppress(TimeoutError):
                    async with asyncio.timeout(LEASE_LOOK_SECONDS):
                        await self._ledger.changed(since)

    async def kill(self) -> None:
        """This process dies; another takes its place."""
        instance, self._now = self._now, None
        if instance is not None:
            self._trace.fault("line killed", self.name)
            await instance.end()
            await asyncio.sleep(self._faults.random.uniform(0.1, 3.0))
            await self._start()

    async def replace(self) -> None:
        """Somebody takes this process for dead and starts another; it goes on for a while."""
        if self._now is None or self._old is not None:
            return
        self._trace.fault("line replaced", self.name)
        self._old = self._now
        await self._start()
        await asyncio.sleep(self._faults.random.uniform(0.0, 20.0))
        old, self._old = self._old, None
        await old.end()

    async def close(self) -> None:
        await self._supervision.kill()
        for instance in (self._now, self._old):
            if instance is not None:
                await instance.end()
