"""The custody of keys as a line reaches it: `KeyCustodian` over a provider actor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from actors.shell import ask, packed, unpacked
from domain.provider import KeyEntry, KeyState


class RayCustodian:
    """Each act goes to the custody that stands in the provider's process, and may be asked again:
    what was done before is answered, not done twice."""

    def __init__(self, provider: Any) -> None:
        self._provider = provider

    async def combine(self, label: str, suite: str, parts: Sequence[bytes]) -> KeyEntry:
        entry: KeyEntry = await self._act("combine", label, suite, list(parts))
        return entry

    async def part_value(self, suite: str, part: bytes) -> str:
        value: str = await self._act("part_value", suite, part)
        return value

    async def set_state(self, labels: Sequence[str], state: KeyState) -> list[KeyEntry]:
        return await self._entries("set_state", list(labels), state)

    async def destroy(self, labels: Sequence[str]) -> None:
        await self._act("destroy", list(labels))

    async def inventory(self) -> list[KeyEntry]:
        return await self._entries("inventory")

    async def export(self, labels: Sequence[str], kek_version: int) -> bytes:
        blob: bytes = await self._act("export", list(labels), kek_version)
        return blob

    async def backup(self, kek_version: int) -> bytes:
        blob: bytes = await self._act("backup", kek_version)
        return blob

    async def restore(self, blob: bytes) -> list[KeyEntry]:
        return await self._entries("restore", blob)

    async def stage_temporary_keys(self, block: bytes) -> list[KeyEntry]:
        return await self._entries("stage_temporary_keys", block)

    async def _entries(self, act: str, *args: Any) -> list[KeyEntry]:
        entries: list[KeyEntry] = await self._act(act, *args)
        return entries

    async def _act(self, act: str, *args: Any) -> Any:
        return unpacked(await ask(self._provider.act, act, packed(args)))
