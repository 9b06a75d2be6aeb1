"""Summary, branch table and history: what the ledger has to say, from queries alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

import pytest

from domain.codes import Code
from domain.lines import NoteCarton
from ledger.connection import connect
from ledger.history import batch_overview, body_history, place_in_words
from ledger.progress import progress_of_lines
from ledger.queries import Queries
from ledger.summary import COUNTS, branch_table, summary
from tests.ledger.building import (
    REFUSED,
    SOCIAL,
    START,
    TEMPORARY,
    Building,
    code_of,
    factory_return,
    note,
    one_of_each,
    record,
)

LARGE = 3_000


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Building]:
    building = one_of_each(tmp_path_factory.mktemp("finished"))
    yield building
    building.close()


def test_every_card_is_in_the_summary(finished: Building) -> None:
    """The numbers of a batch in which everything befell somebody, told by hand."""
    totals = summary(finished.queries)
    assert {name: totals[name] for name in COUNTS} == {
        "advised": 24,  # 22 records, 2 temporary cards on the note
        "surplus": 3,  # of the refused record, not in the return, over the count
        "received": 25,
        "missing": 2,  # the short carton's card, and one in whose place another lay
        "shipped": 19,
        "rejected": 2,
        "held": 4,
        "in_work": 0,
        "destroyed": 0,
    }
    assert totals["reconciled"] is True
    assert set(totals) == {*COUNTS, "reconciled", "banks", "stages", "lots"}
    assert sorted(totals["banks"]) == ["102", "105"]
    for name in COUNTS:
        assert sum(bank[name] for bank in totals["banks"].values()) == totals[name]


def test_stages_count_what_left_them(finished: Building) -> None:
    """By stage, in the order of the floor: cards, seconds, cards a second."""
    stages = summary(finished.queries)["stages"]
    assert {name: stage["cards"] for name, stage in stages.items()} == {
        "receiving": 24,
        "key_replacement": 25,
        "inspection": 20,
        "sorting": 19,
        "packing": 19,
        "shipping": 19,
    }
    for stage in stages.values():
        assert stage["seconds"] >= 0.001
        assert stage["cards_per_second"] > 0


def test_a_card_that_a_recount_withdrew_is_counted_nowhere(tmp_path: Path) -> None:
    """Neither as received, nor as work before a line, nor among the bodies of its batch."""
    b = Building.make(tmp_path)
    b.take_return(factory_return([record(n) for n in (1, 2, 3)]))
    b.take_note(note([NoteCarton("C1", "102", SOCIAL, 3, "")]))
    b.sign_for("D1", C1=3)
    b.recount("C1", 2)
    totals = summary(b.queries)
    assert (totals["received"], totals["stages"]["receiving"]["cards"]) == (2, 2)
    assert sum(p.waiting + p.in_work for p in progress_of_lines(b.queries, START.isoformat())) == 2
    assert sum(p["bodies"] for p in batch_overview(b.queries, "B1")["places"]) == 2
    b.close()


def test_one_batch_is_summed_like_the_whole(finished: Building) -> None:
    """Where the ledger has one batch, its own numbers are those of the accounts; a batch that is
    not there has none."""
    assert summary(finished.queries, "B1") == summary(finished.queries)
    nothing = summary(finished.queries, "B2")
    assert all(nothing[name] == 0 for name in COUNTS)
    assert nothing["reconciled"] is True


def test_batches_add_up(tmp_path: Path) -> None:
    """Two batches of one bank share accounts; each has its own numbers, and together they are
    the accounts."""
    b = Building.make(tmp_path)
    for batch, counted, at in (("B1", 3, 0), ("B2", 6, 10)):
        records = [record(at + n, batch=batch, carton=f"C{batch}") for n in range(1, 5)]
        b.take_return(factory_return(records, batch=batch, file_id=batch, digest=batch))
        carton = NoteCarton(f"C{batch}", "102", SOCIAL, 4, "")
        b.take_note(note([carton], batch=batch, delivery_id=f"D{batch}"))
        b.sign_for(f"D{batch}", **{f"C{batch}": counted})
    b.set_apart("CB2", Code.NOT_IN_RETURN, 99)
    whole, one, two = (summary(b.queries, batch) for batch in (None, "B1", "B2"))
    assert [one[n] for n in COUNTS[:4]] == [4, 0, 3, 1]
    assert [two[n] for n in COUNTS[:4]] == [4, 2, 6, 0]
    for name in COUNTS:
        assert one[name] + two[name] == whole[name]
    assert whole["reconciled"]
    assert one["reconciled"]
    assert two["reconciled"]
    b.close()


def test_a_row_that_was_moved_by_hand_is_not_reconciled(tmp_path: Path) -> None:
    """The balances say one thing and the bodies another."""
    b = one_of_each(tmp_path)
    b.close()
    connection = connect(b.url, write=True)
    connection.execute("update body set place = 'sorting/packed' where body_id = 'C1.0001'").close()
    connection.close()
    queries = Queries(b.url)
    assert summary(queries)["reconciled"] is False
    assert summary(queries)["shipped"] == 19
    queries.close()


def test_the_branch_table_has_every_order_and_every_body(finished: Building) -> None:
    """Per bank and branch; orders of the table are the accepted records, its bodies are all."""
    rows = branch_table(finished.queries, "B1")
    assert [(r["bank"], r["branch"]) for r in rows] == [
        ("102", ""),
        ("102", "102-430102"),
        ("102", "102-430121"),
        ("102", "430102"),
        ("105", "105-430102"),
    ]
    total = {k: sum(r[k] for r in rows) for k in ("orders", "shipped", "rejected", "held")}
    assert total == {"orders": 22, "shipped": 19, "rejected": 2, "held": 4}
    assert sum(r["missing"] for r in rows) == 1
    assert sum(r["packages"] for r in rows) == 7


def test_an_order_is_in_work_until_its_card_may_not_come_any_more(tmp_path: Path) -> None:
    """Missing is said when every body of the batch is known."""
    b = Building.make(tmp_path)
    b.take_return(factory_return([record(1), record(2)]))
    b.take_note(note([NoteCarton("C1", "102", SOCIAL, 2, "")]))
    (row,) = branch_table(b.queries, "B1")
    assert (row["in_work"], row["missing"]) == (0, 2)  # nothing was signed for
    b.sign_for("D1", C1=1)
    rows = {r["branch"]: r for r in branch_table(b.queries, "B1")}
    assert rows["102-430102"]["missing"] == 0
    b.replace_keys("C1", 1, "B1-000001", "102-430102")
    (row,) = branch_table(b.queries, "B1")
    assert (row["in_work"], row["missing"]) == (1, 1)
    b.close()


def test_a_summary_of_a_demo_takes_no_time(tmp_path: Path) -> None:
    """3,000 cards through all stages: the summary takes 0.04 s alone on two cores; the
    limit allows a loaded machine, and no query that looks at each card by itself."""
    b = Building.make(tmp_path)
    records = [record(n, carton=f"C{n // 250}") for n in range(LARGE)]
    b.take_return(factory_return(records))
    cartons = [NoteCarton(f"C{n}", "102", SOCIAL, 250, "") for n in range(LARGE // 250)]
    b.take_note(note(cartons))
    b.sign_for("D1", **{c.carton_id: 250 for c in cartons})
    for at in range(0, LARGE, 250):
        b.replace_keys_together(f"C{at // 250}", records[at : at + 250])
    b.inspect(at_once=500)
    b.sort()
    started = perf_counter()
    totals = summary(b.queries)
    took = perf_counter() - started
    assert totals["shipped"] == LARGE
    assert totals["reconciled"]
    assert took < 1.0
    b.close()


def test_a_card_has_its_whole_history(finished: Building) -> None:
    """By body, by order and by identification code, from the advice to the return; oldest first,
    Chinese first, and nothing of another card."""
    by_order = body_history(finished.queries, "B1-000001")
    assert by_order == body_history(finished.queries, "C1.0001")
    assert by_order == body_history(finished.queries, code_of(1))
    assert [s.at for s in by_order] == sorted(s.at for s in by_order)
    said = [s.words for s in by_order]
    assert "订单" in said[0]
    for part in ("签收", "正式密钥", "检卡合格", "分拣", "包 package B1-P", "交寄", "回盘"):
        assert any(part in words for words in said)
    assert {s.body_id for s in by_order} <= {"", "C1.0001"}
    assert {s.order_id for s in by_order} <= {"", "B1-000001"}


@pytest.mark.parametrize(
    ("identifier", "parts"),
    [
        ("B1-000012", ["未到 missing"]),
        ("B1-000011", ["芯片无应答", "报废 rejected"]),
        (REFUSED.order_id, ["校验位错误", "第 90 条"]),
        (REFUSED.identification_code, ["第 90 条", "暂扣", "多余 surplus"]),
        ("B1-000022", ["超出清点数"]),
        ("T1.0002", ["长沙市芙蓉区服务窗口"]),
    ],
)
def test_what_went_another_way_is_told(
    finished: Building, identifier: str, parts: list[str]
) -> None:
    """Missing orders, refused records, cards set apart and temporary cards have histories too."""
    words = "\n".join(s.words for s in body_history(finished.queries, identifier))
    for part in parts:
        assert part in words


def test_an_identification_code_is_found_as_it_is_typed(finished: Building) -> None:
    """In capitals or not."""
    typed = REFUSED.identification_code.lower()
    assert typed != REFUSED.identification_code
    assert body_history(finished.queries, typed) == body_history(finished.queries, typed.upper())
    assert body_history(finished.queries, typed)


def test_an_unknown_id_has_no_history(finished: Building) -> None:
    """Also the empty one, which stands in many rows."""
    assert body_history(finished.queries, "nobody") == []
    assert body_history(finished.queries, "") == []


def test_a_batch_says_what_it_waits_for(tmp_path: Path) -> None:
    """From the first file to the acknowledged return."""
    b = Building.make(tmp_path)
    assert batch_overview(b.queries, "B1") == {}
    b.take_note(note([NoteCarton("T1", "102", TEMPORARY, 1, "430102")]))
    waits = batch_overview(b.queries, "B1")["waits_for"]
    assert ["回盘" in waits[0], "签收" in waits[1], len(waits)] == [True, True, 2]
    b.take_return(factory_return([record(1)]))
    b.sign_for("D1", T1=1)
    overview = batch_overview(b.queries, "B1")
    assert overview["orders"] == 1
    assert overview["deliveries"][0]["cartons"][0]["counted"] == 1
    assert overview["waits_for"] == [f"1 张在 {overview['places'][0]['words']}"]
    b.replace_keys("T1", 5)
    b.inspect()
    b.sort()
    (wait,) = batch_overview(b.queries, "B1")["waits_for"]
    assert "RETURN-B1-1" in wait
    b.acknowledge("RETURN-B1-1")
    done = batch_overview(b.queries, "B1")
    assert done["waits_for"] == []
    assert done["returns"] == [{"id": "RETURN-B1-1", "acknowledged": True}]
    b.close()


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("inventory/vault", "库房 vault"),
        ("courier/102-430102", "已交寄 工商银行长沙市芙蓉区支行 102-430102"),
        ("courier/430121", "已交寄 长沙县服务窗口 430121"),
        ("key_replacement/held", "换密钥暂扣 key replacement, held"),
        ("transit/inspection>sorting", "检卡→分拣 在途 inspection → sorting"),
        ("somewhere/else", "somewhere/else"),
    ],
)
def test_places_in_words(place: str, words: str) -> None:
    """Every place is said as people say it."""
    assert place_in_words(place) == words
