"""A backup made while others commit brings back a centre that verifies and goes on, and what it
does not have is told."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Condition, Event, Thread
from typing import Any, cast

import pytest
from click.testing import CliRunner

from actors.hsm.pkcs11_provider import Pkcs11Provider
from actors.inventory import Inventory
from actors.keeping import decide_deleted
from centre import backup, floor
from centre.backup import BackupRefused, Manifest, Restored
from centre.cli import main
from centre.config import LEDGER as IN_THE_HOME
from centre.config import Config, load
from centre.home import initialise
from centre.wiring import make_provider, now
from domain.bodies import Writing
from domain.changes import Delete, Refused
from domain.lines import BackupMade, Receipt
from domain.places import Line
from ledger import heads
from ledger.commit import Ledger
from ledger.keeping import LEDGER, backups
from ledger.queries import Queries
from ledger.verify import verify
from proof.postgres import PostgresServer, running
from tests.ledger.building import factory_return, record
from tests.lines.small_floor import Door

RECORDS = 20
MADE = BackupMade("K1", "safe", (LEDGER,), "2026-12-31")


@dataclass
class Place:
    """A centre's home, not up, and whoever commits into its ledger."""

    config: Config
    other: str | None
    """The URL of the database that a restored ledger goes to; None: in its home."""
    server: PostgresServer | None = None
    files: int = 0
    acknowledged: list[str] = field(default_factory=list)
    changed: Condition = field(default_factory=Condition)

    def take_one(self, ledger: Ledger, queries: Queries, door: Door) -> None:
        number = self.files = self.files + 1
        records = [record(number * RECORDS + n, batch=f"B{number}") for n in range(RECORDS)]
        file = factory_return(records, file_id=f"F{number}", batch=f"B{number}")
        assert asyncio.run(Inventory(door, queries).accept_return(file)).accepted
        with self.changed:
            self.acknowledged.append(file.file_id)
            self.changed.notify_all()

    @contextmanager
    def committing(self) -> Iterator[None]:
        """Factory returns are taken one after the other in another thread; at the end none is."""
        stop, failed = Event(), []

        def work() -> None:
            try:
                with (
                    closing(Ledger(self.config.ledger, now)) as ledger,
                    closing(Queries(self.config.ledger)) as queries,
                ):
                    door = Door(ledger, Line.INVENTORY)
                    while not stop.is_set():
                        self.take_one(ledger, queries, door)
            except BaseException as e:
                failed.append(e)
                raise

        thread = Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
        assert not failed

    def found(self, wanted: list[bytes]) -> int:
        """How many of these stand in the tables' files."""
        if self.server is not None:
            self.server.run("checkpoint")
            paths = (self.server.directory / "data" / "base").rglob("*")
        else:
            paths = self.config.home.glob("ledger.db*")
        content = b"".join(path.read_bytes() for path in paths if path.is_file())
        return sum(text in content for text in wanted)

    def wait_for_more(self, files: int) -> None:
        with self.changed:
            wanted = len(self.acknowledged) + files
            assert self.changed.wait_for(lambda: len(self.acknowledged) >= wanted, timeout=60)


def sign_heads(config: Config) -> None:
    """As the supervisor of a running centre does."""
    provider = cast(Pkcs11Provider, make_provider(config))
    try:
        with closing(Queries(config.ledger)) as queries, closing(Ledger(config.ledger, now)) as led:
            links = heads.unsigned_heads(queries)
            digests = [heads.head_digest(k["line"], k["number"], k["hash"], k["at"]) for k in links]
            signed = [
                heads.signed_head(k, s) for k, s in zip(links, provider.sign(digests), strict=True)
            ]
            heads.append_head_file(config.head_file, signed)
            led.record_heads(signed)
    finally:
        provider.close()


@pytest.fixture(scope="module")
def databases() -> Iterator[Callable[[str], tuple[str, str | None, PostgresServer | None]]]:
    """By name of a database: the URL of a ledger, and of one to restore it to."""
    directory = Path(tempfile.mkdtemp(prefix="cc-", dir="/tmp"))
    with running(directory) as server:
        yield (
            lambda name: (
                (IN_THE_HOME, None, None)
                if name == "SQLite"
                else (server.create("ledger"), server.create("restored"), server)
            )
        )
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="module", params=["SQLite", "PostgreSQL"])
def place(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    databases: Callable[[str], tuple[str, str | None, PostgresServer | None]],
    home: Config,
) -> Place:
    """With the token of `home`: to make its keys takes long."""
    ledger, other, server = databases(request.param)
    folder = tmp_path_factory.mktemp("home") / "home"
    shutil.copytree(home.conf.parent, folder / "keys")
    return Place(initialise(folder, ledger), other, server)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return initialise(tmp_path_factory.mktemp("plain") / "home")


def files_in(config: Config) -> set[str]:
    with closing(Queries(config.ledger)) as queries:
        return {r["file_id"] for r in queries.rows("select file_id from file_in")}


def verified(config: Config) -> str:
    key = config.head_public_key.read_bytes()
    return verify(config.ledger, config.head_file, key).finding


def taken_again(config: Config, number: int) -> Receipt:
    """The sender repeats one of its files to the centre that was restored."""
    records = [record(number * RECORDS + n, batch=f"B{number}") for n in range(RECORDS)]
    file = factory_return(records, file_id=f"F{number}", batch=f"B{number}")
    with closing(Ledger(config.ledger, now)) as ledger, closing(Queries(config.ledger)) as queries:
        line = Inventory(Door(ledger, Line.INVENTORY), queries)
        return asyncio.run(line.accept_return(file))


def check_manifest(manifest: Manifest, out: Path) -> None:
    assert backup.read_manifest(out) == manifest
    assert {path.stat().st_mode & 0o077 for path in out.glob("ledger.*")} == {0}
    assert not [name for name in manifest.files if "token" in name or "pin" in name]


def test_a_backup_under_commits_is_restored_and_goes_on(place: Place, tmp_path: Path) -> None:
    """What was acknowledged before it is in it; the restored ledger verifies against its heads; the
    newest heads kept outside tell what it lacks; it does not come up before a person says so, and
    then goes on: senders repeat what was lost, and a line of before is refused."""
    config, out = place.config, tmp_path / "backup"
    with place.committing():
        place.wait_for_more(3)
        sign_heads(config)
        before = set(place.acknowledged)
        manifest = backup.make_backup(config, out, MADE, now(), token=False)
        place.wait_for_more(3)
        sign_heads(config)
    check_manifest(manifest, out)
    with closing(Ledger(config.ledger, now)) as ledger:
        newest_epoch = ledger.open_epoch(Line.INVENTORY)

    back = backup.restore(out, tmp_path / "new", now, ledger=place.other, newest=config.head_file)
    inside = files_in(back.config)
    assert before <= inside < set(place.acknowledged)
    assert back.report.ok
    assert back.report.signatures > 0
    assert not back.accepted
    check_loss(back, manifest, config)
    with pytest.raises(floor.Behind, match="inventory"):
        floor.up(back.config, lambda _: None)

    assert backup.accept(back.config, now) == back.lost
    assert backup.missing(back.config) == [] == backup.accept(back.config, now)
    (aside,) = back.config.home.glob("heads-lost-*.jsonl")
    assert all(heads.is_head(json.loads(line)) for line in aside.read_text().splitlines())
    assert verified(back.config) == ""
    first = min(int(f[1:]) for f in set(place.acknowledged) - inside)
    assert not taken_again(back.config, first).repeated
    assert taken_again(back.config, 1).repeated
    with closing(Ledger(back.config.ledger, now)) as ledger:
        assert ledger.open_epoch(Line.INVENTORY) > newest_epoch
    shutil.copytree(config.conf.parent, back.config.conf.parent, dirs_exist_ok=True)
    (back.config.conf.parent / "softhsm2.conf").unlink()
    initialise(back.config.home)
    sign_heads(back.config)
    assert verified(back.config) == ""


def check_loss(back: Restored, manifest: Manifest, config: Config) -> None:
    """The lost commits are those between the backup and the newest signed head of the line."""
    (lost,) = back.lost
    newest = heads.newest_heads(config.head_file)[Line.INVENTORY]
    (link,) = manifest.links
    assert (lost.first, lost.last) == (link["number"] + 1, newest["number"])
    assert lost.at == newest["at"]


def test_what_is_damaged_or_in_the_way_is_refused(home: Config, tmp_path: Path) -> None:
    """A changed, missing or added file, a newer schema, a home or a folder that is not empty; and
    what fails in the middle leaves nothing behind."""
    out = tmp_path / "backup"
    backup.make_backup(home, out, MADE, now(), token=True)
    assert any((out / "tokens").rglob("*.object"))
    with pytest.raises(BackupRefused, match="already"):
        backup.make_backup(home, out, MADE, now(), token=False)
    manifest = json.loads((out / "manifest.json").read_text("utf-8"))
    changes: tuple[Callable[[Path], Any], ...] = (
        lambda b: (b / "ledger.db").write_bytes(b"other"),
        lambda b: (b / "heads.jsonl").unlink(),
        lambda b: (b / "more").write_bytes(b""),
        lambda b: (b / "manifest.json").write_text(json.dumps({**manifest, "schema": 10_000})),
        lambda b: (b / "manifest.json").unlink(),
    )
    for change in changes:
        bad = tmp_path / "bad"
        shutil.copytree(out, bad)
        change(bad)
        with pytest.raises(BackupRefused):
            backup.restore(bad, tmp_path / "none", now)
        shutil.rmtree(bad)
    with pytest.raises(BackupRefused, match="not empty"):
        backup.restore(out, home.home, now)
    home.transport_public_key.rename(tmp_path / "away")
    with pytest.raises(FileNotFoundError):
        backup.make_backup(home, tmp_path / "half", MADE, now(), token=False)
    (tmp_path / "away").rename(home.transport_public_key)
    assert {p.name for p in tmp_path.iterdir()} == {"backup"}


def test_a_ledger_behind_its_heads_is_neither_saved_nor_started(
    home: Config, tmp_path: Path
) -> None:
    """A ledger whose end was cut off would make a good-looking backup: it is refused, and so is
    the floor."""
    config = backup.restore(_saved(home, tmp_path / "b"), tmp_path / "cut", now).config
    key = {"line": Line.SORTING, "number": 7, "hash": "0" * 64, "at": now(), "signature": "00"}
    heads.append_head_file(config.head_file, [key])
    with pytest.raises(BackupRefused, match="behind"):
        backup.make_backup(config, tmp_path / "out", MADE, now(), token=False)
    with pytest.raises(floor.Behind, match="sorting: 7"):
        floor.up(config, lambda _: None)


def _saved(config: Config, out: Path) -> Path:
    backup.make_backup(config, out, MADE, now(), token=False)
    return out


def test_the_commands_keep_the_register(home: Config, tmp_path: Path) -> None:
    """`centre backup OUT` is listed with its expiry, `note` lists what was made by hand, `remove`
    destroys a folder and takes it off; a restored home says in its chain that it is one."""
    runner, at_home = CliRunner(), ["--home", str(home.home)]

    def run(*args: str, code: int = 0) -> str:
        done = runner.invoke(main, [*args], catch_exceptions=False)
        assert done.exit_code == code, done.output
        return done.output

    out = tmp_path / "copy"
    made = run("backup", str(out), *at_home)
    backup_id = re.findall(r"B\d{8}T\d{6}Z-\w{4}", made)[0]
    run("backup", str(out), *at_home, code=1)  # it is there already
    run("backup", "note", "tape 7", "--keys", *at_home)
    listed = json.loads(run("backup", "list", "--json", *at_home))
    assert [b["holds"] for b in listed] == [["ledger"], ["token"]]
    assert listed[0]["backup_id"] == backup_id
    run("restore", str(out), "--home", str(tmp_path / "new"))
    with closing(Queries(load(tmp_path / "new").ledger)) as queries:
        # It knows of the copy that it came out of, and not of what came later.
        assert [b.backup_id for b in backups(queries)] == [backup_id]
        (said,) = queries.rows("select data from event where type = 'ledger_restored'")
    assert json.loads(said["data"]) == {
        "backup_id": backup_id, "at": backup.read_manifest(out).at, "lost": {},
    }  # fmt: skip
    run("backup", "remove", backup_id, *at_home)
    assert not out.exists()
    run("backup", "remove", backup_id, *at_home, code=1)
    assert [b["place"] for b in json.loads(run("backup", "list", "--json", *at_home))] == ["tape 7"]
    assert verified(home) == ""


def test_deleted_rows_leave_the_files(place: Place) -> None:
    """What was deleted of personal data stands in no table file of the database after `reclaim`,
    on either; a guard of the deletion refuses another number of rows."""
    with (
        closing(Ledger(place.config.ledger, now)) as ledger,
        closing(Queries(place.config.ledger)) as queries,
    ):
        door = Door(ledger, Line.INVENTORY)
        place.take_one(ledger, queries, door)
        batch = f"B{place.files}"
        rows = queries.rows("select order_id, sealed from personal where batch_id = ?", batch)
        ids = [r["order_id"] for r in rows]
        values = queries.rows(
            "select value from number_index where order_id in (select value from json_each(?))",
            json.dumps(ids),
        )
        texts = [*(r["sealed"] for r in rows), *(r["value"] for r in values)]
        wanted = [text.encode() for text in texts]
        assert place.found(wanted) > 0
        wrong = Writing(Line.INVENTORY, f"wrong:{batch}")
        wrong.delete(Delete("personal", "order_id", ids, len(ids) + 1))
        with pytest.raises(Refused):
            asyncio.run(door.commit(wrong.changes()))
        gone = decide_deleted(batch, ids, len(values))
        asyncio.run(door.commit(gone.changes()))
        assert ledger.reclaim()
        assert place.found(wanted) == 0
