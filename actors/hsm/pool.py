"""The pool of key providers: sessions with the HSM that work side by side, each of which may fail.

Who routes: every process that asks for keys holds a pool of its own over the same members, and
knows for itself which of them it has taken out. A carton has its home among all configured members
by a hash of its id, and while that one is out the next in the ring; so whoever asks, the keys of
one carton are as a rule drawn at one member. No promise hangs on it: a member that is asked for a
chip it does not know reads from the ledger which chips of the carton had theirs (`hsm.quota`).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any, Protocol
from zlib import crc32

import structlog

from actors import metrics
from domain.changes import Away, Fault, KeysAway
from domain.lines import KeyCustodian, KeyProvider
from domain.provider import Answer, Chip, KeyEntry, KeyState, KnownKey, ProviderError, Request

log = structlog.get_logger()

PAUSES = (1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 60.0)
"""Seconds before a member that was taken out is tried again, longer after each failure in a row;
the last one repeats."""
JITTER = (0.8, 1.2)
"""A pause is taken times a random number between these: pools do not come back in step."""


class Member(KeyProvider, KeyCustodian, Protocol):
    """One session with the HSM, in a process of its own."""

    async def self_test(self) -> list[str]:
        """The known answers that hold. Raises Away if one does not."""
        ...

    async def refresh(self) -> None:
        """Forget what is remembered of the token's keys: another member changed them."""
        ...


class KeyPool:
    """`KeyProvider` and `KeyCustodian` over several members; `members` by name, in the order of the
    ring.

    A member that gives no answer (Away) is taken out, and what it was asked goes to the next at
    once: every operation may be asked twice, acts on keys too. It is tried after growing pauses and
    comes back by itself, when it has forgotten its handles and passed its self-test. When none is
    left every call raises KeysAway, until one is back.

    A Fault (the program failed over what was asked) is asked of one other member: if that one
    answers, the first is taken out; if it fails too, the fault lies in the question.
    """

    def __init__(
        self,
        members: Mapping[str, Member],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._members = dict(members)
        self._ring = tuple(self._members)
        self._sleep = sleep
        self._out: dict[str, asyncio.Task[None]] = {}
        self._failures: dict[str, int] = {}
        """In a row, by member."""
        self._turn = count()
        for name in self._ring:
            metrics.member_in(name).set(1)

    @property
    def out(self) -> list[str]:
        """Members that are taken out now."""
        return [name for name in self._ring if name in self._out]

    @property
    def away(self) -> bool:
        """Whether no member is left."""
        return len(self._out) == len(self._ring)

    # What a line asks.

    async def perform(self, requests: Sequence[Request]) -> list[Answer]:
        """All requests of one carton go to the same member; the members work side by side."""
        parts = self._split(requests)
        given = await asyncio.gather(
            *(
                self._ask(self._from(name), "perform", [requests[at] for at in part])
                for name, part in parts.items()
            ),
            # All are waited for: none goes on behind the back of a caller that asks again.
            return_exceptions=True,
        )
        answers = [Answer()] * len(requests)
        for part, answered in zip(parts.values(), given, strict=True):
            if isinstance(answered, BaseException):
                raise answered
            for at, answer in zip(part, answered, strict=True):
                answers[at] = answer
        return answers

    async def seal(self, batch_id: str, records: Sequence[tuple[str, bytes]]) -> list[bytes]:
        sealed: list[bytes] = await self._ask(self._anyone(), "seal", batch_id, records)
        return sealed

    async def unseal(self, batch_id: str, records: Sequence[tuple[str, bytes]]) -> list[bytes]:
        plain: list[bytes] = await self._ask(self._anyone(), "unseal", batch_id, records)
        return plain

    async def index(self, values: Sequence[str]) -> list[str]:
        found: list[str] = await self._ask(self._anyone(), "index", values)
        return found

    async def sign(self, digests: Sequence[bytes]) -> list[bytes]:
        signatures: list[bytes] = await self._ask(self._anyone(), "sign", digests)
        return signatures

    # What custodians do with keys: one member does it, all others see it.

    async def combine(
        self, label: str, suite: str, parts: Sequence[bytes], lost: KnownKey | None = None
    ) -> KeyEntry:
        entry: KeyEntry = await self._change("combine", label, suite, parts, lost)
        return entry

    async def set_state(self, labels: Sequence[str], state: KeyState) -> list[KeyEntry]:
        entries: list[KeyEntry] = await self._change("set_state", labels, state)
        return entries

    async def destroy(self, labels: Sequence[str]) -> None:
        await self._change("destroy", labels)

    async def destroy_data_keys(self, batch_ids: Sequence[str]) -> None:
        await self._change("destroy_data_keys", batch_ids)

    async def restore(self, blob: bytes, states: Mapping[str, str]) -> list[KeyEntry]:
        entries: list[KeyEntry] = await self._change("restore", blob, states)
        return entries

    async def stage_temporary_keys(self, block: bytes) -> list[KeyEntry]:
        entries: list[KeyEntry] = await self._change("stage_temporary_keys", block)
        return entries

    async def part_value(self, label: str, suite: str, number: int, part: bytes) -> str:
        value: str = await self._ask(self._anyone(), "part_value", label, suite, number, part)
        return value

    async def inventory(self) -> list[KeyEntry]:
        entries: list[KeyEntry] = await self._ask(self._anyone(), "inventory")
        return entries

    async def read_backup(self, blob: bytes) -> list[KeyEntry]:
        entries: list[KeyEntry] = await self._ask(self._anyone(), "read_backup", blob)
        return entries

    async def export(self, labels: Sequence[str], kek_version: int) -> bytes:
        blob: bytes = await self._ask(self._anyone(), "export", labels, kek_version)
        return blob

    async def backup(self, kek_version: int) -> bytes:
        blob: bytes = await self._ask(self._anyone(), "backup", kek_version)
        return blob

    # Who is asked.

    def _from(self, first: str) -> Iterator[str]:
        """The members in the order in which they are asked, `first` before the others."""
        at = self._ring.index(first)
        return iter(self._ring[at:] + self._ring[:at])

    def _anyone(self) -> Iterator[str]:
        return self._from(self._ring[next(self._turn) % len(self._ring)])

    def _split(self, requests: Sequence[Request]) -> dict[str, list[int]]:
        """Which requests, by their place in the chunk, each member gets. One that belongs to no
        carton goes where least is to be done, but opens no part of its own."""
        parts: dict[str, list[int]] = {}
        anywhere = []
        for at, request in enumerate(requests):
            # A channel with a bank's application names its chip inside.
            chip: Chip | None = getattr(getattr(request, "channel", request), "chip", None)
            if chip is None:
                anywhere.append(at)
            else:
                parts.setdefault(self._home(chip.carton_id), []).append(at)
        if anywhere and not parts:
            parts[self._first_in(self._anyone())] = []
        for at in anywhere:
            min(parts.values(), key=len).append(at)
        return parts

    def _home(self, carton_id: str) -> str:
        home = self._ring[crc32(carton_id.encode()) % len(self._ring)]
        return self._first_in(self._from(home))

    def _first_in(self, order: Iterator[str]) -> str:
        for name in order:
            if name not in self._out:
                return name
        raise KeysAway("no key provider is left")

    async def _ask(self, order: Iterator[str], method: str, *args: Any) -> Any:
        """The answer of the first member of `order` that gives one."""
        faulty: dict[str, Fault] = {}
        for name in order:
            if name in self._out:
                continue
            try:
                answer = await getattr(self._members[name], method)(*args)
            except Fault as e:
                if faulty:
                    raise
                faulty[name] = e
            except (Away, ProviderError) as e:
                self._take_out(name, e)
            else:
                self._failures.pop(name, None)
                for other, fault in faulty.items():
                    self._take_out(other, fault)
                return answer
        for fault in faulty.values():
            raise fault
        raise KeysAway("no key provider is left")

    async def _change(self, method: str, *args: Any) -> Any:
        """Have one member change the keys, and all others see it. A member that is out sees it
        when it comes back."""
        answer = await self._ask(self._anyone(), method, *args)
        await asyncio.gather(*(self._refresh(name) for name in self._ring if name not in self._out))
        return answer

    async def _refresh(self, name: str) -> None:
        try:
            await self._members[name].refresh()
        except (Away, ProviderError) as e:
            self._take_out(name, e)

    # Out and back.

    def _take_out(self, name: str, error: Exception) -> None:
        if name in self._out:
            return
        log.warning("key_provider.out", member=name, reason=str(error))
        metrics.member_in(name).set(0)
        self._out[name] = asyncio.ensure_future(self._bring_back(name))

    async def _bring_back(self, name: str) -> None:
        while True:
            failures = self._failures[name] = self._failures.get(name, 0) + 1
            pause = PAUSES[min(failures, len(PAUSES)) - 1]
            await self._sleep(pause * random.uniform(*JITTER))
            try:
                await self._members[name].refresh()
                await self._members[name].self_test()
            except (Away, ProviderError) as e:
                log.warning("key_provider.still_out", member=name, reason=str(e))
                continue
            break
        del self._out[name]
        log.info("key_provider.back", member=name)
        metrics.member_in(name).set(1)
