"""Personal data end with their time: no key that is left opens any copy, and the chain holds."""

from __future__ import annotations

import asyncio
import base64
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from pkcs11 import Attribute, ObjectClass
from pkcs11.exceptions import PKCS11Error

from actors.hsm import sealing
from actors.hsm.token import KeyToken, TokenConfig, token_config, write_softhsm_conf
from actors.inventory import Inventory
from actors.keeping import DestroyDataKeys, Keeping
from counterparts.factory import Delivery, make_delivery
from counterparts.return_file import drop, file_bytes, record_line
from domain.bodies import Writing
from domain.changes import Changes, Committed, Event, EventType
from domain.codes import Code
from domain.factory_return import FactoryRecord
from domain.lines import BackupMade, OrderAct, OrdersCommand, SignFor
from domain.places import Line
from domain.provider import RecordUnsealable
from gateways.centre_return import write_return
from gateways.expiry import remove_expired
from gateways.factory_returns import FramedReturn, take_return
from gateways.floor import Floor
from gateways.inbox import Inbox
from ledger.connection import connect
from ledger.copying import copy_ledger
from ledger.keeping import LEDGER, TOKEN, Kept, Open, backups, overdue
from ledger.queries import Queries
from ledger.verify import verify
from tests.lines.small_floor import Door, SmallFloor, note_of, records_of

CARDS = 60
TAKEN = date(2026, 1, 5)
LAST_DAY = TAKEN + timedelta(days=90)
AFTER = LAST_DAY + timedelta(days=1)


class Killed(Exception):
    """The line died here."""


@dataclass
class Killer:
    """Lets so many steps (commits, keys destroyed, each before and after) pass, then the line dies
    at the next; None: it lives."""

    left: int | None = None

    def __call__(self, step: str) -> None:
        if self.left == 0:
            raise Killed(step)
        if self.left is not None:
            self.left -= 1


@dataclass
class DyingDoor:
    door: Door
    killer: Killer

    async def commit(self, changes: Changes) -> Committed:
        self.killer("before a commit")
        committed = await self.door.commit(changes)
        self.killer("after a commit")
        return committed

    async def reclaim(self) -> bool:
        self.killer("before clearing")
        done = await self.door.reclaim()
        self.killer("after clearing")
        return done


class Home:
    """A small floor, and the files of a home around it."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.floor = SmallFloor.make(place)
        self.queries = self.floor.queries
        self.today = TAKEN

    @property
    def inbox(self) -> Inbox:
        return Inbox(self.gateway(), self.place / "inbox")

    def gateway(self) -> Floor:
        floor = self.floor
        return Floor(
            inventory=floor.inventory,
            sorting=floor.sorting,
            provider=floor.keys,
            chip_lines={},
            queries=floor.queries,
            profile=floor.profile,
            today=lambda: self.today,
        )

    def take(self, seed: int) -> Delivery:
        """On the first day, a factory return by the inbox, and a delivery of which no card came."""
        self.today = TAKEN
        self.floor.restart_lines()
        inbox = self.inbox
        pem = (self.place / "transport.pem").read_bytes()
        delivery = make_delivery(seed, CARDS, self.place.parent / f"factory-{seed}", pem)
        lines = [record_line(cast(Any, r)) for r in records_of(delivery)]
        drop(
            self.place / "inbox", f"F{seed}", file_bytes(delivery.file_id, delivery.batch_id, lines)
        )
        assert asyncio.run(inbox.look()) == 1
        note = note_of(delivery)
        asyncio.run(self.floor.inventory.accept_note(note))
        counts = SignFor(delivery.delivery_id, {c.carton_id: 0 for c in note.cartons})
        asyncio.run(self.floor.inventory.sign_for(counts))
        return delivery

    def close_batch(self, batch_id: str) -> None:
        """Every order is cancelled, the return leaves and is taken."""
        orders = self.queries.rows("select order_id from orders where batch_id = ?", batch_id)
        ids = tuple(o["order_id"] for o in orders)
        sorting = self.floor.sorting
        asyncio.run(
            sorting.command_orders(OrdersCommand(f"cancel-{batch_id}", OrderAct.CANCEL, ids))
        )
        asyncio.run(self.floor.sort())
        for row in self.queries.rows("select * from outbox where batch_id = ?", batch_id):
            path = self.place / "return" / f"{row['id']}.jsonl"
            keys = self.floor.keys
            asyncio.run(write_return(self.queries, keys, row["id"], batch_id, path))
            asyncio.run(sorting.acknowledge([row["id"]]))
        lists = self.place / "lists" / batch_id
        lists.mkdir(parents=True)
        (lists / "430102-sorting.csv").write_text("a list", encoding="utf-8")

    def keep(self, killer: Killer | None = None) -> None:
        """The inventory line as it starts, stepping until nothing is left to do today."""
        killer = killer or Killer()
        door = DyingDoor(Door(self.floor.ledger, Line.INVENTORY), killer)

        async def destroy(batch_ids: Sequence[str]) -> None:
            killer("before the key")
            self.floor.provider.destroy_data_keys(batch_ids)
            killer("after the key")

        destroy_keys: DestroyDataKeys = destroy
        keeping = Keeping(door, self.queries, destroy_keys, lambda: self.today, orders_at_once=10)
        self.floor.inventory = Inventory(door, self.queries, keeping)

        async def all_steps() -> None:
            while await self.floor.inventory.step():
                pass

        asyncio.run(all_steps())

    def kept(self, delivery: Delivery) -> Kept | None:
        over = overdue(self.queries, self.today)
        mine = [k for k in over if k.batch_id == delivery.batch_id]
        return mine[0] if mine else None

    def verified(self) -> str:
        return verify(self.place / "ledger.db", None, None).finding


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """Each test has a batch of its own in it."""
    made = Home(tmp_path_factory.mktemp("keeping") / "home")
    yield made
    made.floor.close()


def sealed_rows(ledger: Path) -> list[dict[str, Any]]:
    queries = Queries(ledger)
    try:
        return queries.rows("select order_id, batch_id, sealed from personal order by order_id")
    finally:
        queries.close()


def traces(
    records: Iterable[FactoryRecord], sealed: Iterable[str], values: Iterable[str]
) -> set[bytes]:
    """What must be nowhere: names as they are coded in files, numbers, and the rows themselves."""
    texts = {*sealed, *values}
    found = set()
    for r in records:
        texts |= {r.social_card_number, r.bank_card_number, r.identity_number}
        # Two characters are four bytes, which random bytes may be too.
        found |= {r.name.encode(), *([r.name.encode("gb18030")] if len(r.name) > 2 else [])}
    return found | {text.encode() for text in texts if text}


def seen_in(paths: Iterable[Path], wanted: set[bytes]) -> dict[str, int]:
    """How many of `wanted` stand in each file."""
    found = {}
    for path in sorted(p for p in paths if p.is_file()):
        content = path.read_bytes()
        if n := sum(text in content for text in wanted):
            found[path.name] = n
    return found


def opened_by_any_key(config: TokenConfig, rows: Sequence[dict[str, Any]]) -> int:
    """How many of these records some key of a token opens."""
    opened = 0
    with KeyToken(config) as token:
        wanted = {Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.DECRYPT: True}
        keys = list(token.session.get_objects(wanted))
        assert keys  # the wrapping key at least
        for row in rows:
            for key in keys:
                try:
                    sealing.unseal(key, row["order_id"], base64.b64decode(row["sealed"]))
                except (RecordUnsealable, PKCS11Error):
                    continue
                opened += 1
    return opened


def test_nothing_opens_what_is_over(home: Home, tmp_path: Path) -> None:
    """After the last day no name, number, sealed record or look-up value stands in the database's
    files or the home's; an older backup of the ledger has sealed records that no key left in the
    token opens, a copy of the token's folder from before does, and the register says so until it
    is removed; the chain verifies before and after."""
    delivery = home.take(5)
    records, ledger = records_of(delivery), home.place / "ledger.db"
    rows = sealed_rows(ledger)
    values = [r["value"] for r in home.queries.rows("select value from number_index")]
    wanted = traces(records, [r["sealed"] for r in rows], values)
    home.close_batch(delivery.batch_id)
    made = BackupMade("K1", "safe", (LEDGER,), "2026-12-31")
    copied = BackupMade("K2", "another safe", (TOKEN,), "2026-12-31")
    home.keep()
    for backup in (made, copied):
        asyncio.run(home.floor.inventory.record_backup(backup))
    old = tmp_path / "old.db"
    copy_ledger(ledger, old)
    shutil.copytree(home.place / "token", tmp_path / "token")
    before = seen_in(home.place.rglob("*"), wanted)
    assert "F5" in before
    assert {"ledger.db", "ledger.db-wal"} & before.keys()
    assert any(name.endswith(".jsonl") for name in before)

    home.today = LAST_DAY
    home.keep()
    assert len(sealed_rows(ledger)) == len(rows) > 25
    home.today = AFTER
    home.keep()
    assert remove_expired(home.queries, home.place) > 0
    arrived = (home.place / "inbox" / "done" / "F5").stat().st_mtime
    assert home.inbox.expire(arrived + 91 * 86_400) == 2
    assert seen_in(home.place.rglob("*"), wanted) == {}
    assert home.verified() == ""
    listed = backups(home.queries)
    assert [(b.backup_id, b.destroyed, b.readable_with) for b in listed] == [
        ("K1", 1, ("K2",)),
        ("K2", 1, ()),
    ]

    assert seen_in([old], traces(records, [], [])) == {}
    assert sealed_rows(old) == rows
    with pytest.raises(RecordUnsealable):
        home.floor.provider.unseal(
            delivery.batch_id, [(rows[0]["order_id"], base64.b64decode(rows[0]["sealed"]))]
        )
    home.floor.provider.close()
    assert opened_by_any_key(token_config(home.place / "token", home.place / "pin"), rows) == 0
    write_softhsm_conf(tmp_path / "token")
    assert opened_by_any_key(token_config(tmp_path / "token", home.place / "pin"), rows) == len(
        rows
    )
    asyncio.run(home.floor.inventory.remove_backup("K2"))
    assert [(b.backup_id, b.readable_with) for b in backups(home.queries)] == [("K1", ())]
    assert asyncio.run(home.floor.inventory.remove_backup("K2")).code == Code.BACKUP_UNKNOWN


def test_killed_anywhere_it_is_finished(home: Home) -> None:
    """The line dies before and after every commit, the key's destruction and the clearing of the
    file; after each the chain verifies, and the next instance ends with everything gone, said
    once."""
    delivery = home.take(6)
    home.close_batch(delivery.batch_id)
    home.today = AFTER
    deaths: list[str] = []
    while True:
        try:
            home.keep(Killer(len(deaths)))
        except Killed as e:
            deaths.append(str(e))
            assert home.verified() == ""
            continue
        break
    # The last deaths come when nothing is left to do but the clearing.
    assert {f"{w} {s}" for w in ("before", "after") for s in ("the key", "a commit")} <= {*deaths}
    assert len(deaths) >= 7
    assert home.kept(delivery) is None
    said = (
        "select count(*) as n from event"
        " where type = 'personal_data_destroyed' and data->>'batch_id' = ?"
    )
    assert home.queries.one(said, delivery.batch_id) == {"n": 1}
    left = (
        "select count(*) as n from number_index n join orders o on o.order_id = n.order_id"
        " where o.batch_id = ?"
    )
    assert home.queries.one(left, delivery.batch_id) == {"n": 0}


def test_an_open_batch_is_kept_and_shown(home: Home) -> None:
    """Before the return is written, before it is taken, and while an order has no final line, the
    data stay, however old; and the reason is told."""
    delivery = home.take(7)
    home.today = AFTER + timedelta(days=1_000)

    def reason() -> Open | None:
        home.keep()
        kept = home.kept(delivery)
        assert kept is not None
        assert not kept.destroyed
        return kept.open

    assert reason() is Open.RETURN
    asyncio.run(home.floor.sort())
    assert reason() is Open.RECEIPT
    rows = home.queries.rows("select id from outbox where batch_id = ?", delivery.batch_id)
    asyncio.run(home.floor.sorting.acknowledge([row["id"] for row in rows]))
    assert reason() is Open.FINAL  # no card came: missing is not the last word


def test_a_closed_batch_gets_no_new_key(home: Home) -> None:
    """A file for a batch whose data were destroyed is refused before anything is sealed."""
    delivery = home.take(8)
    home.close_batch(delivery.batch_id)
    home.today = AFTER
    home.keep()
    late = FramedReturn("F9", delivery.batch_id, "d9", records_of(delivery)[:2])
    correction = FramedReturn("F8", delivery.batch_id, "d8", records_of(delivery)[:2], late.file_id)
    for file, code in ((late, Code.BATCH_TAKEN), (correction, Code.BATCH_CLOSED)):
        receipt = asyncio.run(take_return(home.gateway(), file))
        assert (receipt.accepted, receipt.code) in ((False, code), (False, Code.NOTHING_TO_CORRECT))
    labels = [e.label for e in home.floor.provider.inventory()]
    assert f"data:{delivery.batch_id}" not in labels


def test_rows_go_by_the_event_alone(home: Home, tmp_path: Path) -> None:
    """Sealed records or look-up values that are gone without the event are a finding, also after
    their expiry; and so is an event of a day on which their time was not over."""
    delivery = home.take(9)
    home.close_batch(delivery.batch_id)
    assert home.verified() == ""
    one = f"in (select order_id from orders where batch_id = '{delivery.batch_id}' limit 1)"
    for number, (sql, named) in enumerate(
        (
            (f"delete from personal where order_id {one}", "personal"),
            (f"delete from number_index where order_id {one}", "number_index"),
        )
    ):
        copy = tmp_path / f"{number}.db"
        copy_ledger(home.place / "ledger.db", copy)
        connection = connect(copy, write=True)
        connection.execute(sql).close()
        connection.close()
        assert named in verify(copy, None, None).finding
    early = Writing(Line.INVENTORY, "early")
    said = {"batch_id": delivery.batch_id, "orders": 1, "on": LAST_DAY.isoformat()}
    early.event(Event(EventType.PERSONAL_DATA_DESTROYED, data=said))
    asyncio.run(Door(home.floor.ledger, Line.INVENTORY).commit(early.changes()))
    assert "before their expiry" in home.verified()
