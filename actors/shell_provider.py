"""The actor around a key provider, and the pool of them as everybody else reaches it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from actors import metrics
from actors.hsm.pool import KeyPool
from actors.shell import call, handle, packed, this_process, unpacked
from domain.changes import Away
from domain.codes import Code
from domain.provider import (
    Answer,
    KeyEntry,
    KeyState,
    KnownKey,
    Provider,
    ProviderError,
    Request,
)

PROVIDER_SECONDS = 15.0
"""Within which a key provider answers a chunk, its session opened anew included."""
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
        return {**this_process(), "state": "ready"}


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


def health_of_keys(keys: KeyPool, note: str) -> dict[str, Any]:
    """State, note and code of a part that asks these providers: ready, or paused without keys."""
    if keys.out:
        note = f"{note}; key providers out: {', '.join(keys.out)}"
    if keys.away:
        return {"state": "paused", "note": note, "code": str(Code.KEY_PROVIDER_AWAY)}
    return {"state": "ready", "note": note}
