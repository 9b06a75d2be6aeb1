"""The inbox: factory returns that come as files instead of over gRPC.

A sender writes `NAME.part` and renames it to `NAME` when it is whole. The centre answers with
`done/NAME.result.txt` and then moves the file to `done/NAME`. Every step can be repeated: after a
crash at any point the file is still in the inbox, inventory answers what it took before with the
first receipt, and a result that is there already stays as it is.

The directory is looked at once a second: it may be shared with another machine, whose writing
wakes no local watcher (inotify sees what goes through this kernel only), and reading one directory
costs less than a millisecond.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import stat
import time
from dataclasses import dataclass
from pathlib import Path

import structlog

from domain.codes import Code
from domain.lines import Receipt
from gateways.answers import refusal
from gateways.factory_returns import take_return
from gateways.files_out import sync_directory, write_bytes
from gateways.floor import Floor
from gateways.framing import FrameRefused
from gateways.return_file import Named, answers, largest_file, names_of, read_file, write_result

log = structlog.get_logger()

LOOK_SECONDS = 1.0
LONGEST_PAUSE = 30.0
EXPIRY_SECONDS = 3_600.0
PARTIAL = ".part"
LONGEST_NAME = 200
"""Bytes of a file's name. A longer one leaves no room for the result's: done/ has another."""
RESULT = ".result.txt"

_PRINTABLE = re.compile(r"[A-Za-z0-9._-]{1,100}", re.ASCII)


@dataclass
class _Pause:
    """A file that could not be taken yet."""

    failures: int
    until: float


async def run_inbox(floor: Floor, directory: Path, look_seconds: float = LOOK_SECONDS) -> None:
    """Take what lies in `directory`, one file after the other, until cancelled."""
    inbox = Inbox(floor, directory)
    expired = -EXPIRY_SECONDS
    while True:
        await inbox.look()
        if time.monotonic() - expired >= EXPIRY_SECONDS:
            try:
                await asyncio.to_thread(inbox.expire, time.time())
            except OSError as e:
                log.warning("inbox.not_expired", error=type(e).__name__)
            expired = time.monotonic()
        await asyncio.sleep(look_seconds)


class Inbox:
    """One pass at a time, by `look`."""

    def __init__(self, floor: Floor, directory: Path) -> None:
        self._floor = floor
        self._directory = directory
        self._done = directory / "done"
        self._pauses: dict[str, _Pause] = {}
        for made in (directory, self._done):
            # What lies here is personal data in clear.
            made.mkdir(parents=True, exist_ok=True, mode=0o700)

    async def look(self) -> int:
        """Take every whole file whose pause is over; answers how many were answered."""
        try:
            names = await asyncio.to_thread(self._names)
        except OSError as e:
            log.warning("inbox.away", error=type(e).__name__)
            return 0
        self._pauses = {name: p for name, p in self._pauses.items() if name in names}
        answered = 0
        for name in names:
            pause = self._pauses.get(name)
            if pause and time.monotonic() < pause.until:
                continue
            try:
                await self._take(name)
            except Exception as e:  # noqa: BLE001  # a file that can't be taken holds up no other
                self._put_off(name, e)
            else:
                self._pauses.pop(name, None)
                answered += 1
        return answered

    def _names(self) -> list[str]:
        return sorted(
            entry.name
            for entry in os.scandir(self._directory)
            if entry.is_file(follow_symlinks=False)
            and not entry.name.startswith(".")
            and not entry.name.endswith(PARTIAL)
        )

    def _put_off(self, name: str, error: Exception) -> None:
        pause = self._pauses.setdefault(name, _Pause(0, 0.0))
        seconds = min(LOOK_SECONDS * 2 ** min(pause.failures, 8), LONGEST_PAUSE)
        pause.failures += 1
        pause.until = time.monotonic() + seconds
        # The type alone: the text of an error may quote what was sent.
        log.warning("inbox.waiting", file=_shown(name), reason=type(error).__name__)

    async def _take(self, name: str) -> None:
        limit = self._floor.limits.max_records_per_file
        data = await asyncio.to_thread(_read, self._directory / name, largest_file(limit))
        named = Named() if data is None else names_of(data)
        sha256 = "" if data is None else hashlib.sha256(data).hexdigest()
        place = await asyncio.to_thread(self._place, name, sha256)
        if not place.answered:
            receipt = await self._receipt(data)
            result = write_result(receipt, named, sha256)
            await asyncio.to_thread(write_bytes, place.result, [result])
            log.info(
                "factory_return.answered",
                door="inbox",
                file=_shown(name),
                file_id=named.file_id,
                batch_id=named.batch_id,
                code=receipt.code,
                records=receipt.records,
                taken=receipt.taken,
                refused=len(receipt.refused),
                repeated=receipt.repeated,
            )
        await asyncio.to_thread(self._move, name, place.file)

    async def _receipt(self, data: bytes | None) -> Receipt:
        limit = self._floor.limits.max_records_per_file
        if data is None:
            return refusal(Code.FILE_TOO_LARGE, f"at most {limit} records")
        try:
            file = await asyncio.to_thread(read_file, data, limit)
        except FrameRefused as e:
            return refusal(e.code, e.detail)
        return await take_return(self._floor, file)

    def _place(self, name: str, sha256: str) -> _Place:
        """Where the file goes: under its name, or the first free `NAME.N` if an earlier file had
        the name. A result without its file is of a centre that died before it moved the file."""
        if len(os.fsencode(name)) > LONGEST_NAME:
            name = f"name-{hashlib.sha256(os.fsencode(name)).hexdigest()[:32]}"
        number = 1
        while True:
            as_name = name if number == 1 else f"{name}.{number}"
            place = _Place(self._done / as_name, self._done / f"{as_name}{RESULT}")
            if not place.file.exists():
                if not place.result.exists():
                    return place
                if answers(place.result.read_bytes(), sha256):
                    return _Place(place.file, place.result, answered=True)
            number += 1

    def _move(self, name: str, target: Path) -> None:
        source = self._directory / name
        # What lies in done/ expires by the time of its arrival, not of its making.
        os.utime(source)
        os.rename(source, target)
        sync_directory(self._done)
        sync_directory(self._directory)

    def expire(self, now: float) -> int:
        """Remove what lies in done/ for longer than personal data are kept, and what nobody went on
        writing for as long; answers how many. A whole file that can't be taken stays: it is
        told by the doctor."""
        oldest = now - self._floor.limits.personal_data_days * 86_400
        removed = 0
        unfinished = (e for e in os.scandir(self._directory) if e.name.endswith(PARTIAL))
        for entry in [*os.scandir(self._done), *unfinished]:
            if entry.stat(follow_symlinks=False).st_mtime < oldest:
                os.unlink(entry.path)
                removed += 1
        if removed:
            log.info("inbox.expired", files=removed)
        return removed


@dataclass(frozen=True)
class _Place:
    file: Path
    result: Path
    answered: bool = False


def _read(path: Path, largest: int) -> bytes | None:
    """None: larger than any file that could be taken."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError("not a file")
        data = file.read(largest + 1)
    return data if len(data) <= largest else None


def _shown(name: str) -> str:
    """A name for the log: one that may hold a person's is not shown."""
    return name if _PRINTABLE.fullmatch(name) else "(name not shown)"
