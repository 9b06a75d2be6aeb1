"""Backups of a centre, made while the floor runs, and what brings a centre back out of one.

A backup is a folder: the ledger at one moment, the signed heads of that moment, the configuration,
the public keys, and a manifest with the SHA-256 of each file. It has no key but those of which a
copy of the token was asked for. It is there whole or not at all, and listed in the ledger
before it is written, so that every copy that may exist is known.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from actors.hsm.token import copy_tokens
from actors.keeping import decide_restored
from centre.config import Config, load, with_ledger
from centre.hold import hold_of
from centre.home import make_directories
from centre.running import sync, take_home, write_whole
from domain.bodies import Writing
from domain.lines import BackupMade
from domain.places import Line
from ledger.commit import Ledger
from ledger.connection import database
from ledger.copying import copy_ledger
from ledger.heads import (
    HeadFileDamaged,
    beyond,
    head_lines,
    latest_links,
    newest_heads,
    read_head_file,
)
from ledger.queries import Queries
from ledger.schema import VERSION
from ledger.verify import Report, verify

FORMAT = "centre-backup-1"
MANIFEST = "manifest.json"
HEADS, TOML, HEAD_KEY, TRANSPORT_KEY, TOKENS = (
    "heads.jsonl", "centre.toml", "head-public.pem", "centre-transport.pem", "tokens",
)  # fmt: skip


class BackupRefused(Exception):
    """Nothing was made or brought back; the message says why, and what to do."""


@dataclass(frozen=True)
class Manifest:
    """What a backup holds. `files`: SHA-256 (hex) and bytes of each by its path; `links`: the
    newest commit (line, number, hash, at) of each line; `heads`: the newest signed one of each."""

    backup_id: str
    at: str
    schema: int
    database: str
    files: Mapping[str, Mapping[str, Any]]
    links: Sequence[Mapping[str, Any]]
    heads: Sequence[Mapping[str, Any]]
    format: str = FORMAT

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(int(f["bytes"]) for f in self.files.values())


@dataclass(frozen=True)
class Lost:
    """Commits of a line that a signed head kept outside names and a ledger does not have: those
    from `first` to `last`, which was made at `at`."""

    line: str
    first: int
    last: int
    at: str

    @property
    def commits(self) -> int:
        return self.last - self.first + 1


def make_backup(config: Config, out: Path, made: BackupMade, at: str, *, token: bool) -> Manifest:
    """Write a backup of the centre to the new folder `out`; `made` was listed before. Raises
    BackupRefused, LedgerUnusable, Away, OSError: then there is no `out`."""
    if out.exists():
        raise BackupRefused(f"{out} is there already: name another folder")
    if not out.parent.is_dir():
        raise BackupRefused(f"{out.parent} is no folder")
    with _in_one_piece(out) as folder:
        db = database(config.ledger)
        before = newest_heads(config.head_file)
        links = copy_ledger(config.ledger, folder / db.copy_name)
        if beyond(before.values(), links):
            raise BackupRefused(
                "the ledger is behind its signed heads: what `centre verify` says comes first"
            )
        kept = _covered(_read(config.head_file), links)
        (folder / HEADS).write_bytes(head_lines(kept))
        for source, name in (
            (config.home / TOML, TOML),
            (config.head_public_key, HEAD_KEY),
            (config.transport_public_key, TRANSPORT_KEY),
        ):
            shutil.copyfile(source, folder / name)
        if token:
            copy_tokens(config.conf.parent, folder / TOKENS)
        newest = {head["line"]: head for head in kept}
        manifest = Manifest(
            made.backup_id, at, VERSION, db.name, _measured(folder), links, [*newest.values()]
        )
        text = json.dumps(asdict(manifest), ensure_ascii=False, indent=1)
        write_whole(folder / MANIFEST, text.encode(), private=True)
    return manifest


def read_manifest(backup: Path) -> Manifest:
    """The manifest of a backup whose files are all there and as they were written. Raises
    BackupRefused."""
    try:
        manifest = Manifest(**json.loads((backup / MANIFEST).read_text("utf-8")))
        found = _measured(backup)
        wrong = [n for n in {*manifest.files, *found} if manifest.files.get(n) != found.get(n)]
    except (OSError, ValueError, TypeError) as e:
        raise BackupRefused(f"{backup} is no backup: {type(e).__name__}") from None
    if manifest.format != FORMAT:
        raise BackupRefused(f"{backup}: a format that this program does not know")
    if wrong:
        raise BackupRefused(f"{min(wrong)} is not as it was written: take another backup")
    if manifest.schema > VERSION:
        raise BackupRefused(f"schema {manifest.schema} is newer than this program's {VERSION}")
    return manifest


@dataclass(frozen=True)
class Restored:
    """A home that was brought back. `lost`: what the newest heads kept outside say that it does
    not have; `accepted`: a person said that it goes on without."""

    config: Config
    manifest: Manifest
    report: Report
    lost: Sequence[Lost]
    accepted: bool


def restore(
    backup: Path,
    home: Path,
    now: Callable[[], str],
    *,
    ledger: str | None = None,
    newest: Path | None = None,
    accept_loss: bool = False,
) -> Restored:
    """Bring the centre of `backup` back into the new or empty folder `home`. `ledger`: the URL of
    another database for it (SQLite: of the home). `newest`: the newest head file that is left.
    The ledger is verified against the heads; what these say is missing is told, and unless
    `accept_loss` the home is not brought up with it (`accept`). Raises BackupRefused,
    LedgerUnusable: then there is no `home`."""
    manifest = read_manifest(backup)
    if home.exists() and (not home.is_dir() or any(home.iterdir())):
        raise BackupRefused(f"{home} is not empty: name a new folder")
    outside = _read(newest) if newest else _read(backup / HEADS)
    with _in_one_piece(home) as folder:
        make_directories(folder)
        toml = (backup / TOML).read_text("utf-8")
        if ledger is not None:
            toml = with_ledger(toml, ledger)
        (folder / TOML).write_text(toml, "utf-8")
        config = load(folder)
        shutil.copyfile(backup / HEAD_KEY, config.head_public_key)
        shutil.copyfile(backup / TRANSPORT_KEY, config.transport_public_key)
        if (backup / TOKENS).exists():
            shutil.copytree(backup / TOKENS, config.conf.parent / TOKENS)
        db = database(config.ledger)
        source = backup / db.copy_name
        if not source.exists():
            raise BackupRefused(f"a backup of {manifest.database} does not go into {db.name}")
        db.take_copy(source)
        with closing(Ledger(config.ledger, now)) as opened:
            opened.outrun()
        with closing(Queries(config.ledger)) as queries:
            links = latest_links(queries)
        write_whole(config.head_file, head_lines(_covered(outside, links)))
        public_key = config.head_public_key.read_bytes()
        report = verify(config.ledger, config.head_file, public_key)
        if not report.ok:
            raise BackupRefused(f"the ledger of the backup does not verify: {report.finding}")
        write_whole(config.head_file, head_lines(outside))
        lost = _lost(outside, links)
        if not lost or accept_loss:
            _go_on(config, manifest.backup_id, manifest.at, now)
    return Restored(load(home), manifest, report, lost, bool(lost) and accept_loss)


def missing(config: Config) -> list[Lost]:
    """What the home's head file says that its ledger does not have. Raises LedgerUnusable, Away,
    HeadFileDamaged."""
    with closing(Queries(config.ledger)) as queries:
        return _lost(newest_heads(config.head_file).values(), latest_links(queries))


def accept(config: Config, now: Callable[[], str]) -> list[Lost]:
    """A person says that the centre goes on with a ledger that is behind its head file: heads of
    what is lost are put aside as evidence, and the chain says what they named. Answers that.
    The home must not be up."""
    lock = take_home(config.home)
    if lock is None:
        raise BackupRefused(f"a centre is up in {config.home}")
    try:
        lost = missing(config)
        if lost:
            _go_on(config, "", "", now)
        return lost
    finally:
        os.close(lock)


def _go_on(config: Config, backup_id: str, made_at: str, now: Callable[[], str]) -> None:
    """Each step may be done again after a crash: the head file is cut last."""
    outside = _read(config.head_file)
    with closing(Queries(config.ledger)) as queries:
        links = latest_links(queries)
    gone = beyond(outside, links)
    lost = {item.line: (item.first, item.last) for item in _lost(outside, links)}
    if gone:
        stamp = re.sub(r"\D", "", now())[:14]
        aside = config.head_file.with_name(f"{config.head_file.stem}-lost-{stamp}.jsonl")
        write_whole(aside, head_lines(gone))
    writing = decide_restored(backup_id, made_at, lost)
    commit_alone(config, writing, now)
    write_whole(config.head_file, head_lines(_covered(outside, links)))


def commit_alone(config: Config, writing: Writing, now: Callable[[], str]) -> None:
    """Commit for the inventory line of a centre that is not up; the caller holds the home. Raises
    Held when its ledger has a head elsewhere."""
    with closing(hold_of(config)) as hold, closing(Ledger(config.ledger, now)) as ledger:
        hold.keep()
        ledger.commit(writing.changes(), ledger.open_epoch(Line.INVENTORY))


def _lost(outside: Iterable[Mapping[str, Any]], links: Sequence[Mapping[str, Any]]) -> list[Lost]:
    newest = {link["line"]: link["number"] for link in links}
    last: dict[str, Mapping[str, Any]] = {}
    for head in beyond(outside, links):
        if head["number"] > last.get(head["line"], {"number": 0})["number"]:
            last[head["line"]] = head
    return [
        Lost(line, newest.get(line, 0) + 1, head["number"], head["at"])
        for line, head in sorted(last.items())
    ]


def _covered(
    outside: Sequence[Mapping[str, Any]], links: Sequence[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    newest = {link["line"]: link["number"] for link in links}
    return [head for head in outside if head["number"] <= newest.get(head["line"], 0)]


def _read(head_file: Path) -> list[dict[str, Any]]:
    try:
        return read_head_file(head_file)
    except FileNotFoundError:
        return []
    except HeadFileDamaged as e:
        raise BackupRefused(str(e)) from None


@contextmanager
def _in_one_piece(folder: Path) -> Iterator[Path]:
    """A folder beside `folder` that becomes it at the end, or is gone."""
    partial = folder.with_name(f".{folder.name}.partial")
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir(mode=0o700)
    try:
        yield partial
        for path in partial.rglob("*"):
            sync(path)
        sync(partial)
        partial.rename(folder)
        sync(folder.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _measured(folder: Path) -> dict[str, dict[str, Any]]:
    return {
        str(path.relative_to(folder)): {"sha256": _sha256(path), "bytes": path.stat().st_size}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
