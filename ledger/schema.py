"""Tables of the ledger, as SQLite has them; of text, integers and JSON, so that PostgreSQL has the
same (`Database.defined`).

`event`, `movement` and `commit_link` are append-only and linked by hashes; the other tables are
what they add up to (`ledger.verify` replays it). Sealed personal data stand in `personal` alone.
"""

from __future__ import annotations

from domain.changes import Away, Refused
from ledger import migrations
from ledger.connection import Connection

VERSION = migrations.VERSION

TABLES: tuple[str, ...] = (
    "create table ledger_version (version integer not null) strict",
    # What was committed: one link per commit and stream.
    """create table epoch (line text primary key, epoch integer not null) strict""",
    """create table commit_link (
        line text not null, number integer not null, epoch integer not null, at text not null,
        command_id text not null, payload_hash text not null, reply text not null,
        previous text not null, hash text not null,
        primary key (line, number)) strict""",
    "create unique index commit_command on commit_link (line, command_id)",
    "create index commit_at on commit_link (at)",
    """create table event (
        id integer primary key, line text not null, number integer not null,
        position integer not null, type text not null, body_id text not null,
        order_id text not null, place text not null, condition text not null,
        data text not null) strict""",
    "create unique index event_place on event (line, number, position)",
    "create index event_body on event (body_id, type) where body_id <> ''",
    "create index event_order on event (order_id) where order_id <> ''",
    "create index event_type on event (type, id)",
    # What befell a batch or a carton as a whole: few, and found without looking at those of cards.
    """create index event_batch on event ((data->>'batch_id'), type)
        where body_id = '' and order_id = ''""",
    """create index event_carton on event ((data->>'carton_id'), type)
        where body_id = '' and order_id = ''""",
    """create table movement (
        id integer primary key, line text not null, number integer not null,
        position integer not null, source_place text not null, source_condition text not null,
        target_place text not null, target_condition text not null, kind text not null,
        bank text not null, count integer not null check (count > 0)) strict""",
    "create unique index movement_place on movement (line, number, position)",
    """create table head (
        line text not null, number integer not null, hash text not null, at text not null,
        signature text not null, primary key (line, number)) strict""",
    # What came in.
    """create table file_in (
        file_id text primary key, kind text not null, batch_id text not null,
        digest text not null, records integer not null,
        closed integer not null default 0) strict""",
    "create index file_in_batch on file_in (batch_id, kind)",
    # Of batches whose return is not written: what people and lines ask for again and again.
    "create index file_in_open on file_in (batch_id, kind) where closed = 0",
    """create table refused_record (
        file_id text not null, record_number integer not null, order_id text not null,
        batch_id text not null, bank text not null, carton_id text not null,
        identification_code text not null, field text not null, code text not null,
        corrected_by text not null, primary key (file_id, record_number)) strict""",
    "create index refused_batch on refused_record (batch_id)",
    "create index refused_identification on refused_record (identification_code)",
    "create index refused_order on refused_record (order_id)",
    """create table delivery (
        delivery_id text primary key, batch_id text not null, factory_id text not null,
        state text not null) strict""",
    "create index delivery_batch on delivery (batch_id)",
    """create table carton (
        carton_id text primary key, delivery_id text not null, batch_id text not null,
        bank text not null, kind text not null, noted integer not null,
        counted integer not null, destination text not null) strict""",
    "create index carton_delivery on carton (delivery_id)",
    "create index carton_batch on carton (batch_id)",
    # Of one batch, bank and kind: bodies that stand in for missing ones, and how often that was
    # settled. Who decides on the numbers of a group guards `times`.
    """create table settled_group (
        batch_id text not null, bank text not null, kind text not null, times integer not null,
        stand_ins integer not null, primary key (batch_id, bank, kind)) strict""",
    # Orders and bodies are two things.
    """create table orders (
        order_id text primary key, batch_id text not null, bank text not null,
        branch text not null, carton_id text not null, identification_code text not null,
        has_temporary integer not null) strict""",
    "create index orders_batch on orders (batch_id)",
    "create unique index orders_identification on orders (identification_code)",
    # Orders that card management cancelled or holds; an empty reason: released again.
    """create table order_stop (
        order_id text primary key, reason text not null) strict""",
    """create table body (
        body_id text primary key, kind text not null, bank text not null, batch_id text not null,
        carton_id text not null, identification_code text not null, order_id text not null,
        place text not null, condition text not null, lease integer not null,
        released integer not null, live integer not null, destination text not null,
        package_id text not null, ticket text not null, leased_to text not null default '',
        leased_until text not null default '', leased_in text not null default '') strict""",
    "create index body_leased on body (leased_until) where leased_until <> ''",
    """create unique index body_identification on body (kind, identification_code)
        where identification_code <> ''""",
    "create unique index body_order on body (order_id) where order_id <> '' and live = 1",
    # The unique ones are partial, and look-ups by chip or order name neither kind nor life.
    "create index body_chip on body (identification_code)",
    "create index body_bound on body (order_id)",
    "create unique index body_ticket on body (carton_id, ticket) where ticket <> ''",
    "create index body_place on body (place, batch_id)",
    "create index body_carton on body (carton_id)",
    "create index body_batch on body (batch_id)",
    "create index body_package on body (package_id) where package_id <> ''",
    """create table package (
        package_id text primary key, batch_id text not null, bank text not null,
        kind text not null, destination text not null, has_temporary integer not null,
        state text not null) strict""",
    "create index package_batch on package (batch_id)",
    "create index package_open on package (batch_id) where state = 'open'",
    # Personal data: sealed under the batch's data key; `expires_on` is the day to delete them.
    """create table personal (
        order_id text primary key, batch_id text not null, sealed text not null,
        expires_on text not null) strict""",
    "create index personal_expiry on personal (expires_on, batch_id)",
    """create table number_index (
        kind text not null, value text not null, order_id text not null,
        primary key (kind, value, order_id)) strict""",
    "create index number_index_order on number_index (order_id)",
    # People, their login sessions (by the hash of the token), and what takes two of them.
    """create table person (
        name text primary key, roles text not null, credential text not null,
        state text not null, failures integer not null, refused_at text not null,
        password_to_change integer not null) strict""",
    """create table login (
        session text primary key, token text not null, name text not null, since text not null,
        until text not null, terminal text not null) strict""",
    "create unique index login_token on login (token)",
    """create table act (
        act_id text primary key, kind text not null, subject text not null,
        content text not null, proposed_by text not null, proposed_in text not null,
        confirmed_by text not null, confirmed_in text not null, state text not null,
        result text not null, sealed text not null) strict""",
    # What goes out.
    """create table return_line (
        file_id text not null, position integer not null, batch_id text not null,
        order_id text not null, body_id text not null, kind text not null, bank text not null,
        branch text not null, result text not null, reason text not null,
        final integer not null, package_id text not null, revision integer not null default 0,
        superseded_by integer not null default 0, primary key (file_id, position)) strict""",
    # Positions run on through the revisions of a batch. Whatever a program decides, an order and
    # a body have one final line at most.
    "create unique index return_position on return_line (batch_id, position)",
    """create unique index return_final_order on return_line (order_id)
        where final = 1 and order_id <> '' and result <> 'surplus'""",
    """create unique index return_final_body on return_line (body_id)
        where final = 1 and body_id <> ''""",
    """create index return_open on return_line (batch_id, body_id)
        where final = 0 and superseded_by = 0""",
    """create index return_superseded on return_line (batch_id, superseded_by)
        where superseded_by > 0""",
    "create index return_order on return_line (order_id) where order_id <> ''",
    "create index return_body on return_line (body_id) where body_id <> ''",
    """create table outbox (
        id text primary key, kind text not null, batch_id text not null,
        acknowledged integer not null) strict""",
    "create index outbox_open on outbox (id) where acknowledged = 0",
    "create index outbox_open_return on outbox (batch_id)"
    " where kind = 'centre_return' and acknowledged = 0",
    "create index outbox_batch on outbox (batch_id, kind)",
)

TYPES: dict[str, dict[str, str]] = {}
"""The columns of each table and their types (`text`, `integer`), in order; from TABLES."""

COLUMNS: dict[str, tuple[str, ...]] = {}
"""The columns of each table that a line may write, in order."""

WRITABLE = (
    "file_in", "refused_record", "delivery", "carton", "settled_group", "orders", "order_stop",
    "body", "package", "personal", "number_index", "person", "login", "act",
    "return_line", "outbox",
)  # fmt: skip


def _columns(ddl: str) -> tuple[str, dict[str, str]]:
    head, _, rest = ddl.partition("(")
    body = rest.rpartition(")")[0].partition("primary key (")[0]
    parts = [p.split() for p in body.split(",") if p.split()]
    return head.split()[2], {p[0]: p[1] for p in parts}


for _ddl in TABLES:
    if _ddl.startswith("create table"):
        _name, _types = _columns(_ddl)
        TYPES[_name] = _types
        if _name in WRITABLE:
            COLUMNS[_name] = tuple(_types)


def create(connection: Connection) -> None:
    """Make the tables in an empty database, or bring those of an older program forward.

    Raises LedgerUnusable for a schema that this program does not know; a newer one is refused.
    """
    database = connection.database
    if not connection.value(database.present):
        try:
            with connection.writing():
                for ddl in TABLES:
                    connection.run(database.defined(ddl))
                connection.run("insert into ledger_version values (?)", VERSION)
        except (Away, Refused):
            # Another process may have made them meanwhile.
            if not connection.value(database.present):
                raise
    migrations.forward(connection, int(connection.value("select version from ledger_version")))
