"""A revision of the centre return on its whole way: out of the ledger, through the outbox and gRPC,
to card management."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from counterparts.received import serve
from domain.codes import Code
from domain.lines import NoteCarton, OrderAct
from gateways.outbox import Outbox
from proof.evidence import holding
from tests.gateways.surroundings import PlainProvider
from tests.ledger.building import SOCIAL, Building, factory_return, note, record

RECORDS = [record(n) for n in range(1, 4)]


def test_a_release_after_the_return_reaches_card_management(tmp_path: Path) -> None:
    """The first return leaves with an interim line for the order on hold; its release leaves as a
    revision with that line alone, which names what it supersedes, on the wire and in both files.
    What was taken before is answered again and again the same."""
    b = Building.make(tmp_path / "home")
    b.take_return(factory_return(RECORDS))
    b.take_note(note([NoteCarton("C1", "102", SOCIAL, 3, "")]))
    b.sign_for("D1", C1=3)
    b.replace_keys_together("C1", RECORDS)
    b.inspect()
    held = RECORDS[1].order_id
    b.orders(OrderAct.HOLD, "K1", held)
    provider = PlainProvider()
    provider.unsealable = {r.order_id for r in RECORDS}

    def dispatch(address: str) -> None:
        b.sort()
        outbox = Outbox(b.queries, provider, b.sorting, tmp_path, address)
        assert asyncio.run(outbox.dispatch())

    with serve("127.0.0.1:0", tmp_path) as serving:
        dispatch(serving.address)
        b.orders(OrderAct.RELEASE, "K2", held)
        dispatch(serving.address)
        dispatch(serving.address)

    def lines(directory: str) -> list[list[dict[str, Any]]]:
        files = [tmp_path / directory / f"RETURN-B1-{n}.jsonl" for n in (1, 2)]
        return [[json.loads(line) for line in f.read_text("utf-8").splitlines()] for f in files]

    for first, revision in (lines("return"), lines("received")):
        (interim,) = [line for line in first if not line["final"]]
        assert (interim["order_id"], interim["reason"]) == (held, Code.ON_HOLD)
        (last,) = revision
        assert (last["line"], last["supersedes"]) == (4, [interim["line"]])
        assert (last["result"], last["final"]) == ("shipped", True)
        ends = {line["order_id"]: line["final"] for line in holding([*first, *revision])}
        assert ends == dict.fromkeys((r.order_id for r in RECORDS), True)
    text = (tmp_path / "return" / "RETURN-B1-2.txt").read_text("gb18030").splitlines()
    assert text[0] == "H|CENTRE-RETURN-2|RETURN-B1-2|B1|1"
    assert text[1].split("|")[-2:] == ["4", str(interim["line"])]
    assert b.queries.rows("select id from outbox where acknowledged = 0") == []
    b.close()
