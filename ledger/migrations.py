"""How a ledger that an older program wrote becomes one of this program: step by step, forward.

A step is taken in one transaction with the number that it leads to, so a crash leaves the ledger
at the version before or after it. Its statements stand as they were when they were written: they
change what that version was, whatever `schema.TABLES` has become since. What they arrive at must
be the text of `schema.TABLES`, since `verify` compares it: a new column of a table stands behind
its others, with the default that `alter table … add column` gives it. They are written as
`schema.TABLES` is, for both databases (`Database.defined`).
"""

from __future__ import annotations

from ledger.connection import Connection, LedgerUnusable

FIRST = 6
"""The oldest version that can be brought forward."""
STEPS: dict[int, tuple[str, ...]] = {
    7: (
        "alter table body add column leased_to text not null default ''",
        "alter table body add column leased_until text not null default ''",
        "alter table body add column leased_in text not null default ''",
        "create index body_leased on body (leased_until) where leased_until <> ''",
    ),
    8: (  # revisions of a return
        "alter table return_line add column revision integer not null default 0",
        "alter table return_line add column superseded_by integer not null default 0",
        """update return_line set body_id = coalesce((select b.body_id from body b
            where b.order_id = return_line.order_id and b.batch_id = return_line.batch_id
            order by b.live desc, b.body_id desc limit 1), '')
            where order_id <> '' and result <> 'surplus'""",
        """update return_line set body_id = coalesce((select b.body_id from body b
            join refused_record r on r.identification_code = b.identification_code
            where r.identification_code <> '' and r.order_id = return_line.order_id
            and r.batch_id = return_line.batch_id order by b.body_id limit 1), '')
            where order_id <> '' and result = 'surplus'""",
        "create unique index return_position on return_line (batch_id, position)",
        """create unique index return_final_order on return_line (order_id)
            where final = 1 and order_id <> '' and result <> 'surplus'""",
        """create unique index return_final_body on return_line (body_id)
            where final = 1 and body_id <> ''""",
        """create index return_open on return_line (batch_id, body_id)
            where final = 0 and superseded_by = 0""",
        """create index return_superseded on return_line (batch_id, superseded_by)
            where superseded_by > 0""",
    ),
    9: ("create index personal_expiry on personal (expires_on, batch_id)",),
    10: (
        "create index commit_at on commit_link (at)",
        "drop index event_body",
        "create index event_body on event (body_id, type) where body_id <> ''",
        "drop index event_type",
        "create index event_type on event (type, id)",
        """create index event_batch on event ((data->>'batch_id'), type)
        where body_id = '' and order_id = ''""",
        """create index event_carton on event ((data->>'carton_id'), type)
        where body_id = '' and order_id = ''""",
        "alter table file_in add column closed integer not null default 0",
        "update file_in set closed = 1 where exists (select 1 from outbox o"
        " where o.batch_id = file_in.batch_id and o.kind = 'centre_return')",
        "create index file_in_open on file_in (batch_id, kind) where closed = 0",
        "create index refused_order on refused_record (order_id)",
        "create index carton_batch on carton (batch_id)",
        "create index return_order on return_line (order_id) where order_id <> ''",
        "create index return_body on return_line (body_id) where body_id <> ''",
        "drop index outbox_open",
        "create index outbox_open on outbox (id) where acknowledged = 0",
        "create index outbox_open_return on outbox (batch_id)"
        " where kind = 'centre_return' and acknowledged = 0",
        "create index outbox_batch on outbox (batch_id, kind)",
    ),
}
"""By the version that it leads to, in ascending order."""
VERSION = max(STEPS, default=FIRST)


def forward(connection: Connection, version: int) -> None:
    """Bring a ledger of `version` to VERSION. Raises LedgerUnusable when this program can't."""
    if version > VERSION:
        raise LedgerUnusable(
            f"the ledger has schema {version}, this program knows {VERSION}: run the program that"
            " wrote it, or a newer one"
        )
    if version < FIRST:
        raise LedgerUnusable(
            f"the ledger has schema {version}, this program brings forward {FIRST} and newer:"
            " run a program in between first"
        )
    for target in sorted(STEPS):
        if target > version:
            _step(connection, target)


def _step(connection: Connection, target: int) -> None:
    with connection.writing():
        # Another process may have taken this step meanwhile.
        if connection.value("select version from ledger_version") < target:
            for statement in STEPS[target]:
                connection.run(connection.database.defined(statement))
            connection.run("update ledger_version set version = ?", target)
