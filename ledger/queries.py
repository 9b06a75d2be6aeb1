"""What lines and gateways read. One query per chunk, never one per card."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from domain.bodies import Body
from domain.codes import CORRECTABLE, STRANGERS
from domain.groups import Group
from domain.places import Kind, Line, held
from ledger.connection import Connection, Database, as_json

BODY = (
    "b.body_id, b.kind, b.bank, b.batch_id, b.carton_id, b.place, b.condition,"
    " b.identification_code, b.order_id, b.lease, b.released, b.live, b.destination, b.package_id,"
    " b.ticket, b.leased_to, b.leased_until, b.leased_in"
)
OF_NO_CARD = "e.body_id = '' and e.order_id = ''"
"""Events `e` of a whole batch, carton, lot or package; with it, those of one batch or carton (by
`data->>'batch_id'`, `data->>'carton_id'`) are found without those of all others. SQLite takes the
index for a value that is no plain column: `e.data->>'carton_id' = k.carton_id || ''`."""


@dataclass(frozen=True)
class Identified:
    """What the ledger knows of one identification code. Empty fields: nothing."""

    identification_code: str
    order_id: str = ""
    branch: str = ""
    order_batch: str = ""
    refused_code: str = ""
    stopped: str = ""
    body: Body | None = None


@dataclass(frozen=True)
class OrderState:
    """How an order stands. `stopped`: why card management stopped it, empty if it did not, None
    if it never did; `final`: the centre return has its last line."""

    order_id: str
    stopped: str | None
    final: bool
    body: Body | None = None


@dataclass(frozen=True)
class Carton:
    carton_id: str
    delivery_id: str
    batch_id: str
    bank: str
    kind: str
    counted: int
    destination: str


class Queries:
    """A reading connection. Not for use by two threads at once."""

    def __init__(self, url: str | Path) -> None:
        self._connection = Connection(url, write=False)

    @property
    def database(self) -> Database:
        return self._connection.database

    def close(self) -> None:
        self._connection.close()

    def begin(self) -> None:
        """From here on all reads see one snapshot, until `close`."""
        self._connection.begin_reading()

    def rows(self, sql: str, *parameters: Any) -> list[dict[str, Any]]:
        return self._connection.rows(sql, *parameters)

    def one(self, sql: str, *parameters: Any) -> dict[str, Any] | None:
        found = self.rows(sql, *parameters)
        return found[0] if found else None

    def bodies(self, where: str, *parameters: Any) -> list[Body]:
        """Bodies `b` for which `where` holds, in the order of their ids unless it says more."""
        sql = f"select {BODY} from body b where {where}"
        if "order by" not in where:
            sql += " order by b.body_id"
        return [Body.from_row(r) for r in self.rows(sql, *parameters)]

    def file_in(self, file_id: str) -> dict[str, Any] | None:
        return self.one("select * from file_in where file_id = ?", file_id)

    def reply(self, line: str, command_id: str) -> Any:
        """What a command was answered with when it took effect; None if it did not."""
        found = self.one(
            "select reply from commit_link where line = ? and command_id = ?", line, command_id
        )
        return json.loads(found["reply"]) if found else None

    def batch_return(self, batch_id: str) -> dict[str, Any] | None:
        """The accepted factory return of a batch."""
        return self.one(
            "select * from file_in where batch_id = ? and kind = 'factory_return'", batch_id
        )

    def is_closed(self, batch_id: str) -> bool:
        """Whether the centre return of a batch was written: it takes no more deliveries."""
        return bool(
            self.rows(
                "select id from outbox where batch_id = ? and kind = 'centre_return'", batch_id
            )
        )

    def delivery(self, delivery_id: str) -> dict[str, Any] | None:
        return self.one("select * from delivery where delivery_id = ?", delivery_id)

    def deliveries(self, batch_id: str) -> list[dict[str, Any]]:
        return self.rows("select * from delivery where batch_id = ?", batch_id)

    def cartons_of_delivery(self, delivery_id: str) -> list[dict[str, Any]]:
        return self.rows(
            "select * from carton where delivery_id = ? order by carton_id", delivery_id
        )

    def batches_of_cartons(self, carton_ids: Sequence[str]) -> dict[str, str]:
        """The batch of each carton that is on a delivery note."""
        found = self.rows(
            "select carton_id, batch_id from carton"
            " where carton_id in (select value from json_each(?))",
            as_json(carton_ids),
        )
        return {r["carton_id"]: r["batch_id"] for r in found}

    def known_cartons(self, carton_ids: Sequence[str]) -> list[str]:
        found = self.rows(
            "select carton_id from carton where carton_id in (select value from json_each(?))",
            as_json(carton_ids),
        )
        return [r["carton_id"] for r in found]

    def groups(self, batch_id: str) -> dict[tuple[str, str], Group]:
        """The numbers of a batch by (bank, kind)."""
        advised: dict[tuple[str, str], int] = {}
        counted: dict[tuple[str, str], int] = {}
        for r in self.rows(
            "select bank, count(*) as n from orders where batch_id = ? group by bank", batch_id
        ):
            advised[r["bank"], Kind.SOCIAL_SECURITY_CARD] = r["n"]
        for r in self.rows(
            "select c.bank, c.kind, sum(c.noted) as noted,"
            " sum(case when d.state = 'signed' then c.counted else 0 end) as counted"
            " from carton c join delivery d on d.delivery_id = c.delivery_id"
            " where c.batch_id = ? group by c.bank, c.kind",
            batch_id,
        ):
            if r["kind"] == Kind.TEMPORARY_CARD:
                advised[r["bank"], r["kind"]] = r["noted"]
            counted[r["bank"], r["kind"]] = r["counted"]
        unadvised = {
            (r["bank"], r["kind"]): r["n"]
            for r in self.rows(
                "select bank, kind, count(*) as n from body where batch_id = ?"
                " and condition in (select value from json_each(?)) group by bank, kind",
                batch_id,
                as_json(sorted(STRANGERS)),
            )
        }
        settled = self.settled_groups(batch_id)
        nothing = {"stand_ins": 0, "times": 0}
        return {
            key: Group(
                advised.get(key, 0),
                counted.get(key, 0),
                unadvised.get(key, 0),
                settled.get(key, nothing)["stand_ins"],
                settled.get(key, nothing)["times"],
            )
            for key in {*advised, *counted}
        }

    def settled_groups(self, batch_id: str) -> dict[tuple[str, str], dict[str, Any]]:
        """Rows of `settled_group` of a batch, by (bank, kind)."""
        found = self.rows("select * from settled_group where batch_id = ?", batch_id)
        return {(r["bank"], r["kind"]): r for r in found}

    def uncorrected(self, batch_id: str) -> list[dict[str, Any]]:
        """Refused records of a batch that no correction has taken up, in their order."""
        return self.rows(
            "select file_id, record_number, order_id, identification_code from refused_record"
            " where batch_id = ? and corrected_by = '' order by file_id, record_number",
            batch_id,
        )

    def advised_since(self, limit: int, batch_id: str = "") -> list[tuple[Body, str]]:
        """Bodies (of a batch, or of all) that key replacement holds because no accepted record
        stood for them, and the orders for which a correction has named their chips since. Not if
        the order has a card already."""
        orders = {
            r["identification_code"]: r["order_id"]
            for r in self.rows(
                "select o.identification_code, o.order_id from body b"
                " join orders o on o.identification_code = b.identification_code"
                # By length: there is an index of orders, and bodies without one are many.
                " where b.place = ? and b.batch_id in (select f.batch_id from file_in f"
                # Since its last return nothing came in of the others.
                "  where f.closed = 0 and ? in ('', f.batch_id))"
                " and length(b.order_id) = 0"
                " and o.batch_id = b.batch_id and b.condition in (select value from json_each(?))"
                " and not exists"
                " (select 1 from body l where l.order_id = o.order_id and l.live = 1)"
                " order by b.body_id limit ?",
                held(Line.KEY_REPLACEMENT), batch_id, as_json(sorted(CORRECTABLE)), limit,
            )
        }  # fmt: skip
        if not orders:
            return []
        bodies = self.bodies(
            "b.identification_code in (select value from json_each(?)) and b.place = ?",
            as_json(list(orders)), held(Line.KEY_REPLACEMENT),
        )  # fmt: skip
        return [(b, orders[b.identification_code]) for b in bodies]

    def repeated_numbers(
        self, numbers: Sequence[str], identification_codes: Sequence[str], order_ids: Sequence[str]
    ) -> set[str]:
        """Which of these look-up values, identification codes and order ids stand in the ledger
        already. (A person's identity number may return: a remade card has a new order.)"""
        found = self.rows(
            "select value as v from number_index"
            " where kind in ('social_card_number', 'bank_card_number')"
            " and value in (select value from json_each(?))"
            " union select identification_code from orders"
            " where identification_code in (select value from json_each(?))"
            " union select order_id from orders"
            " where order_id in (select value from json_each(?))",
            as_json(numbers),
            as_json(identification_codes),
            as_json(order_ids),
        )
        return {r["v"] for r in found}

    def identify(self, identification_codes: Sequence[str]) -> dict[str, Identified]:
        """What is known of each identification code (those of which nothing is known too)."""
        codes = as_json(identification_codes)
        found = self.rows(
            "select j.value as identification_code, coalesce(o.order_id, '') as order_id,"
            " coalesce(o.branch, '') as branch, coalesce(o.batch_id, '') as order_batch,"
            " coalesce((select min(r.code) from refused_record r"
            " where r.identification_code = j.value), '') as refused_code,"
            " coalesce((select s.reason from order_stop s where s.order_id = o.order_id), '')"
            " as stopped"
            " from json_each(?) j left join orders o on o.identification_code = j.value",
            codes,
        )
        bodies = {
            b.identification_code: b
            for b in self.bodies("b.identification_code in (select value from json_each(?))", codes)
        }
        return {
            f["identification_code"]: Identified(**f, body=bodies.get(f["identification_code"]))
            for f in found
        }

    def orders_by_number(self, kind: str, values: Sequence[str]) -> dict[str, Identified]:
        """The order that a look-up value stands for, with its body if it has one."""
        found = self.rows(
            "select n.value, o.order_id, o.branch, o.batch_id as order_batch,"
            " o.identification_code from number_index n"
            " join orders o on o.order_id = n.order_id"
            " where n.kind = ? and n.value in (select value from json_each(?))",
            kind,
            as_json(values),
        )
        bodies = {
            b.order_id: b
            for b in self.bodies(
                "b.order_id in (select value from json_each(?)) order by b.live, b.body_id",
                as_json([r["order_id"] for r in found]),
            )
        }
        return {r.pop("value"): Identified(**r, body=bodies.get(r["order_id"])) for r in found}

    def bodies_of_orders(self, order_ids: Sequence[str]) -> dict[str, Body]:
        """The body of each of these orders that has one: the live one, else the newest."""
        found = self.bodies(
            "b.order_id <> '' and b.order_id in (select value from json_each(?))"
            " order by b.live, b.body_id",
            as_json(sorted({*order_ids})),
        )
        return {b.order_id: b for b in found}

    def packages(self, where: str, *parameters: Any) -> list[dict[str, Any]]:
        """Packages `p` for which `where` holds, by destination: the columns of their table and
        `count`, how many bodies are on the list of each."""
        return self.rows(
            "select p.*, (select count(*) from body b where b.package_id = p.package_id"
            f" and b.package_id <> '') as count from package p where {where}"
            " order by p.destination, p.package_id",
            *parameters,
        )

    def order_states(self, order_ids: Sequence[str]) -> dict[str, OrderState]:
        """How each of these orders stands; those that are not known are left out."""
        bodies = self.bodies_of_orders(order_ids)
        return {
            r["order_id"]: OrderState(
                r["order_id"], r["stopped"], bool(r["final"]), bodies.get(r["order_id"])
            )
            for r in self.rows(
                "select o.order_id, s.reason as stopped, exists (select 1 from return_line l"
                "  where l.order_id = o.order_id and l.final = 1 and l.order_id <> ''"
                "  and l.result <> 'surplus') as final"
                " from orders o left join order_stop s on s.order_id = o.order_id"
                " where o.order_id in (select value from json_each(?))",
                as_json(order_ids),
            )
        }

    def stopped_orders(self, order_ids: Sequence[str]) -> dict[str, str]:
        """Those of these orders that are cancelled or on hold, with the reason."""
        found = self.rows(
            "select order_id, reason from order_stop where reason <> ''"
            " and order_id in (select value from json_each(?))",
            as_json(order_ids),
        )
        return {r["order_id"]: r["reason"] for r in found}

    def orders_of_numbers(self, values: Sequence[str]) -> list[str]:
        """All orders that one of these look-up values stands for: a remade card has a new one."""
        found = self.rows(
            "select distinct order_id from number_index"
            " where kind in ('social_card_number', 'bank_card_number', 'identity_number')"
            " and value in (select value from json_each(?)) order by order_id",
            as_json(values),
        )
        return [r["order_id"] for r in found]

    def bodies_by_id(self, body_ids: Sequence[str]) -> dict[str, Body]:
        if not body_ids:
            return {}
        found = self.bodies("b.body_id in (select value from json_each(?))", as_json(body_ids))
        return {b.body_id: b for b in found}

    def look_up_values(self, kind: str, order_id: str) -> list[str]:
        """The look-up values of the numbers of this kind that an order has."""
        found = self.rows(
            "select value from number_index where order_id = ? and kind = ?", order_id, kind
        )
        return [r["value"] for r in found]

    def bodies_by_ticket(self, tickets: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Body]:
        """Bodies that lay in a feeder, by (carton, ticket)."""
        pairs = [list(pair) for pair in tickets if pair[1]]
        if not pairs:
            return {}
        found = self.bodies(
            "b.ticket <> '' and (b.carton_id, b.ticket) in"
            " (select j.value->>0, j.value->>1 from json_each(?) j)",
            json.dumps(pairs),
        )
        return {(b.carton_id, b.ticket): b for b in found}

    def carton(self, carton_id: str) -> Carton | None:
        """A carton that was signed for."""
        found = self.one(
            "select c.carton_id, c.delivery_id, c.batch_id, c.bank, c.kind, c.counted,"
            " c.destination from carton c join delivery d on d.delivery_id = c.delivery_id"
            " where c.carton_id = ? and d.state = 'signed'",
            carton_id,
        )
        return Carton(**found) if found else None

    def carton_quota(self, carton_id: str) -> int:
        """For how many chips a carton may draw keys: as many as it has bodies."""
        found = self.one(
            "select count(*) as n from body where carton_id = ? and place not like 'factory/%'",
            carton_id,
        )
        return found["n"] if found else 0

    def carton_drawn(self, carton_id: str) -> list[str]:
        """Identification codes of a carton's chips whose first WRITE KEY was released."""
        found = self.rows(
            "select identification_code from body where carton_id = ? and released = 1", carton_id
        )
        return [r["identification_code"] for r in found]

    def sealed(self, order_ids: Sequence[str]) -> dict[str, str]:
        """The sealed record of each order, as stored (base64)."""
        found = self.rows(
            "select order_id, sealed from personal"
            " where order_id in (select value from json_each(?))",
            as_json(order_ids),
        )
        return {r["order_id"]: r["sealed"] for r in found}
