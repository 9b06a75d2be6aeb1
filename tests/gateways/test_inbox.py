"""The factory return as a file: the rules and the receipt of the gRPC door, each file answered
once, whole files only, and the same end after a crash at any point."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from counterparts.return_file import drop, file_bytes, record_line
from domain.changes import Away
from domain.codes import UNADVISED, Code
from domain.factory_return import FactoryRecord
from gateways import inbox as inbox_module
from gateways.card_management import record_from_wire
from gateways.floor import Floor, Limits
from gateways.inbox import Inbox, run_inbox
from gateways.layouts import load_layout
from tests.gateways.surroundings import (
    BATCH,
    PROFILE,
    Place,
    PlainProvider,
    RecordingInventory,
    good_records,
    until,
)

RECORDS = 12


def records(count: int = RECORDS) -> list[FactoryRecord]:
    raw = [r.SerializeToString() for r in good_records(count)]
    return [r for r in map(record_from_wire, raw) if r is not None]


def line_of(r: FactoryRecord, **other: str) -> bytes:
    """Written by hand after docs/files.md, so that layout and document are held to each other."""
    values = {
        "order_id": r.order_id, "bank_code": r.bank_code, "branch_code": r.branch_code,
        "carton_id": r.carton_id, "identification_code": r.identification_code,
        "social_card_number": r.social_card_number, "bank_card_number": r.bank_card_number,
        "has_temporary_card": str(int(r.has_temporary_card)),
        "identity_number": r.identity_number, "sex": r.sex, "nation": r.nation,
        "birth_place": r.birth_place, "birth_date": r.birth_date, "name": r.name,
    } | other  # fmt: skip
    return ("D|" + "|".join(values.values())).encode("gb18030")


def file_of(
    lines: list[bytes],
    *,
    file_id: str = "F1",
    batch_id: str = BATCH,
    corrects: str = "",
    end: bytes = b"\n",
) -> bytes:
    head = f"H|FACTORY-RETURN-1|{file_id}|{batch_id}|{corrects}".encode()
    body = b"".join(line + end for line in (head, *lines))
    return body + f"T|{len(lines)}|{hashlib.sha256(body).hexdigest()}".encode() + end


WHOLE = file_of([line_of(r) for r in records()])


class Box:
    """An inbox over a ledger of the test's own."""

    def __init__(self, directory: Path, *, real: bool = True, limits: Limits | None = None) -> None:
        self.place = Place.make(directory)
        self.provider = PlainProvider()
        self.recording = RecordingInventory()
        self.floor = Floor(
            inventory=self.place.inventory() if real else self.recording,
            sorting=self.place.sorting(),
            provider=self.provider,
            chip_lines={},
            queries=self.place.queries,
            profile=PROFILE,
            limits=limits or Limits(),
        )
        self.path = directory / "inbox"
        self.inbox = Inbox(self.floor, self.path)

    def result(self, name: str = "F") -> list[list[str]]:
        text = (self.path / "done" / f"{name}.result.txt").read_bytes().decode("gb18030")
        return [line.split("|") for line in text.splitlines()]

    def code(self, name: str = "F") -> str:
        return self.result(name)[0][2]


@asynccontextmanager
async def opened(
    directory: Path, *, real: bool = True, limits: Limits | None = None
) -> AsyncIterator[Box]:
    box = Box(directory, real=real, limits=limits)
    try:
        yield box
    finally:
        box.place.close()


def test_a_whole_file_is_taken_and_answered(tmp_path: Path) -> None:
    """Into the ledger, with a result in GB 18030 beside the moved file; names of minorities, rare
    ones and those whose second byte is the delimiter's come through. CR LF ends are read too."""

    async def run() -> None:
        names = ["阿依古丽·买买提", "𠮷田", "\U00031350一", b"\x82|".decode("gb18030") + "文"]
        lines = [line_of(r, name=n) for r, n in zip(records(), names, strict=False)]
        for end in (b"\n", b"\r\n"):
            path = tmp_path / end.hex()
            path.mkdir()
            async with opened(path, real=False) as box:
                (box.path / "F").write_bytes(file_of(lines, end=end))
                assert await box.inbox.look() == 1
                assert box.result()[0][1:3] == ["1", "OK"]
                assert box.result()[0][7:10] == ["4", "4", "0"]
                assert box.result()[-1] == ["T", "0"]
                (taken,) = box.recording.returns
                for record, name in zip(taken.records, names, strict=True):
                    assert f'"name":"{name}"' in record.sealed.decode()
                assert sorted(p.name for p in (box.path / "done").iterdir()) == [
                    "F", "F.result.txt"
                ]  # fmt: skip
                assert [p.name for p in box.path.iterdir()] == ["done"]
                assert (box.path / "done" / "F.result.txt").stat().st_mode & 0o077 == 0

    asyncio.run(run())


def test_a_faulty_record_is_refused_by_itself(tmp_path: Path) -> None:
    """With its place, field and code; bytes that are not GB 18030 refuse their line at the field
    where they stand, and what stands before them lets the body be recognised. No result and no log
    line holds a value."""

    async def run() -> None:
        all_records = records()
        lines = [line_of(r) for r in all_records]
        lines[1] = line_of(all_records[1], bank_code="999")
        lines[3] = line_of(all_records[3], name="")[:-1] + b"|\xff\xff"
        lines[4] = lines[4].replace(b"D|", b"D|\xff", 1)
        lines[5] = b"D|nothing of a record"
        lines[6] = line_of(all_records[6], has_temporary_card="x")
        lines[7] = line_of(all_records[7], order_id=all_records[0].order_id)
        lines[8] = b""
        lines[9] = line_of(all_records[9], name="王" * 201)
        with capture_logs() as logs:
            async with opened(tmp_path, real=False) as box:
                (box.path / "F").write_bytes(file_of(lines))
                assert await box.inbox.look() == 1
                header, *refused, trailer = box.result()
                (taken,) = box.recording.returns
        assert header[7:10] == ["12", "4", "0"]
        assert [(r[1], r[3], r[4]) for r in refused] == [
            ("2", "bank_code", "UNKNOWN_BANK"),
            ("4", "name", "BAD_CODING"),
            ("5", "order_id", "BAD_CODING"),
            ("6", "", "BAD_FORMAT"),
            ("7", "has_temporary_card", "BAD_FORMAT"),
            ("8", "order_id", "REPEATED_NUMBER"),
            ("9", "", "BAD_FORMAT"),
            ("10", "name", "BAD_FORMAT"),
        ]
        assert trailer == ["T", "8"]
        third = taken.refused[1]
        assert third.identification_code == all_records[3].identification_code
        assert third.order_id == all_records[3].order_id
        assert Code.BAD_CODING in UNADVISED
        shown = repr(logs) + repr(box.result())
        for r in all_records:
            assert r.identity_number not in shown
            assert r.name not in shown

    asyncio.run(run())


def test_the_counterpart_s_file_is_taken(tmp_path: Path) -> None:
    """What card management's stand-in drops is the file of the document, byte for byte."""

    async def run() -> None:
        async with opened(tmp_path) as box:
            content = file_bytes("F1", BATCH, map(record_line, good_records(RECORDS)))
            assert content == WHOLE
            drop(box.path, "F", content)
            assert await box.inbox.look() == 1
            assert box.code() == "OK"

    asyncio.run(run())


def frame_faults() -> list[tuple[str, bytes, Code]]:
    lines = [line_of(r) for r in records()]
    trailer = WHOLE.splitlines()[-1] + b"\n"
    return [
        ("empty", b"", Code.MALFORMED),
        ("no header", WHOLE.partition(b"\n")[2], Code.MALFORMED),
        ("another format", WHOLE.replace(b"RETURN-1", b"RETURN-2", 1), Code.MALFORMED),
        ("a path as file id", file_of(lines, file_id="../F1"), Code.MALFORMED),
        ("a path as what it corrects", file_of(lines, corrects="../F0"), Code.MALFORMED),
        ("no batch id", file_of(lines, batch_id=""), Code.MALFORMED),
        ("no records", file_of([]), Code.MALFORMED),
        ("no trailer", WHOLE[: -len(trailer)], Code.TRAILER_MISSING),
        ("half copied", WHOLE[: len(WHOLE) // 2], Code.TRAILER_MISSING),
        ("half a trailer", WHOLE[:-20], Code.DIGEST_DIFFERS),
        ("something after the trailer", WHOLE + WHOLE, Code.MALFORMED),
        ("a line lost", b"".join(
            line for n, line in enumerate(WHOLE.splitlines(keepends=True)) if n != 3
        ), Code.COUNT_DIFFERS),
        ("another name", WHOLE.replace(b"|1|", b"|2|", 1), Code.DIGEST_DIFFERS),
        ("too many", file_of(lines * 2), Code.FILE_TOO_LARGE),
        ("far too many", file_of(lines * 40), Code.FILE_TOO_LARGE),
    ]  # fmt: skip


def test_a_fault_of_the_frame_refuses_the_whole(tmp_path: Path) -> None:
    """With its code and what to do next; provider and line hear nothing of it, the file does not
    stay in the inbox, and the next one is taken."""

    async def run() -> None:
        async with opened(tmp_path, real=False, limits=Limits(max_records_per_file=20)) as box:
            for number, (name, data, code) in enumerate(frame_faults()):
                (box.path / f"F{number}").write_bytes(data)
                assert await box.inbox.look() == 1
                header, trailer = box.result(f"F{number}")
                assert (header[1], header[2]) == ("0", code), name
                assert header[4], name
                assert trailer == ["T", "0"]
            assert (box.recording.returns, box.provider.calls) == ([], [])
            (box.path / "G").write_bytes(WHOLE)
            assert await box.inbox.look() == 1
            assert box.code("G") == "OK"

    asyncio.run(run())


def test_a_file_in_the_making_waits(tmp_path: Path) -> None:
    """`NAME.part`, hidden files, directories and links are let be; the renamed file is taken."""

    async def run() -> None:
        async with opened(tmp_path) as box:
            (box.path / "F.part").write_bytes(WHOLE[:100])
            (box.path / ".F").write_bytes(WHOLE)
            (box.path / "link").symlink_to(tmp_path / "ledger.db")
            assert await box.inbox.look() == 0
            (box.path / "F.part").write_bytes(WHOLE)
            (box.path / "F.part").rename(box.path / "F")
            assert await box.inbox.look() == 1
            assert box.code() == "OK"
            assert sorted(p.name for p in box.path.iterdir()) == [".F", "done", "link"]

    asyncio.run(run())


def test_the_same_file_again_changes_nothing(tmp_path: Path) -> None:
    """Under its old name or another: the first receipt, marked as repeated, and no file of done/ is
    lost. Other content under the id, or another file for the batch, is refused."""

    async def run() -> None:
        async with opened(tmp_path) as box:
            lines = [line_of(r) for r in records()]
            for name, data in (
                ("F", WHOLE),
                ("F", WHOLE),
                ("G", WHOLE),
                ("H", file_of(lines[1:])),
                ("I", file_of(lines, file_id="F2")),
            ):
                (box.path / name).write_bytes(data)
                assert await box.inbox.look() == 1
            answers = [box.result(n)[0] for n in ("F", "F.2", "G")]
            assert [a[1] for a in answers] == ["1", "1", "1"]
            assert [a[9] for a in answers] == ["0", "1", "1"]
            assert {a[8] for a in answers} == {str(RECORDS)}
            assert (box.code("H"), box.code("I")) == ("ID_REUSED", "BATCH_TAKEN")
            count = box.place.watching.one("select count(*) as n from orders")
            assert count == {"n": RECORDS}
            assert (box.path / "done" / "F.2").read_bytes() == WHOLE

    asyncio.run(run())


class Died(BaseException):
    """Stands for a killed process: nothing of ours catches it."""


CRASHES: list[tuple[str, bool]] = [
    ("write_bytes", True), ("write_bytes", False), ("sync_directory", True),
    ("take_return", True), ("take_return", False),
]  # fmt: skip


@pytest.mark.parametrize(("step", "before"), CRASHES)
def test_a_crash_at_any_point_ends_in_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, before: bool
) -> None:
    """Before or after a step that has an effect: an inbox that remembers nothing finishes it, one
    file, one result, the orders once."""

    async def run() -> None:
        async with opened(tmp_path) as box:
            (box.path / "F").write_bytes(WHOLE)
            with monkeypatch.context() as patch:
                patch.setattr(inbox_module, step, dying(getattr(inbox_module, step), before))
                with pytest.raises(Died):
                    await box.inbox.look()
            await Inbox(box.floor, box.path).look()
            assert sorted(p.name for p in (box.path / "done").iterdir()) == ["F", "F.result.txt"]
            assert [p.name for p in box.path.iterdir()] == ["done"]
            assert box.result()[0][1:3] == ["1", "OK"]
            assert box.result()[0][8] == str(RECORDS)
            assert box.place.watching.one("select count(*) as n from orders") == {"n": RECORDS}

    asyncio.run(run())


def dying(step: Callable[..., object], before: bool) -> Callable[..., object]:
    if asyncio.iscoroutinefunction(step):

        async def dies_later(*arguments: object) -> object:
            if not before:
                await step(*arguments)
            raise Died

        return dies_later

    def dies(*arguments: object) -> object:
        if not before:
            step(*arguments)
        raise Died

    return dies


def test_a_part_that_is_away_delays_and_loses_nothing(tmp_path: Path) -> None:
    """The file stays and is tried again with pauses, others are taken meanwhile; the log has the
    type of the error and no text of it."""

    async def run() -> None:
        with capture_logs() as logs:
            async with opened(tmp_path, real=False) as box:
                (box.path / "F").write_bytes(WHOLE)
                (box.path / "G").write_bytes(b"nothing")
                box.recording.fault = Away("张三")
                assert await box.inbox.look() == 1
                assert (box.path / "F").exists()
                box.recording.fault = None
                task = asyncio.create_task(run_inbox(box.floor, box.path, 0.02))
                await until(lambda: (box.path / "done" / "F").exists())
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                assert box.code() == "OK"
        assert "张三" not in repr(logs)
        assert [e["reason"] for e in logs if e["event"] == "inbox.waiting"] == ["Away"]

    asyncio.run(run())


def test_what_was_taken_expires(tmp_path: Path) -> None:
    """After as many days as personal data are kept, counted from the file's arrival."""

    async def run() -> None:
        async with opened(tmp_path) as box:
            (box.path / "F").write_bytes(WHOLE)
            os.utime(box.path / "F", (0, 0))
            await box.inbox.look()
            now = (box.path / "done" / "F").stat().st_mtime
            assert box.inbox.expire(now + 89 * 86_400) == 0
            assert box.inbox.expire(now + 91 * 86_400) == 2

    asyncio.run(run())


@pytest.mark.parametrize("name", ["factory_return", "factory_return_result", "centre_return"])
def test_the_document_shows_the_layout(name: str) -> None:
    """docs/files.md has each layout's table as the layout itself gives it."""
    document = (Path(__file__).parents[2] / "docs" / "files.md").read_text(encoding="utf-8")
    assert load_layout(name).as_markdown() in document
