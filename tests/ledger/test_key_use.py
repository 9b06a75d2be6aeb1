"""Which keys open work depends on."""

from __future__ import annotations

from pathlib import Path

from domain.changes import EventType
from domain.codes import Code
from domain.custody import ActKind
from domain.lines import NoteCarton
from domain.places import Line
from ledger.key_use import key_dependents
from tests.ledger.building import SOCIAL, Building, factory_return, note, one_of_each, record
from tests.lines.custody import Office

TEMPORARY, FIRST, SECOND = "temporary:B1:MK:v0", "formal:MK:v1", "formal:EAK:v2"


def _in_use(b: Building) -> tuple[int, ...]:
    return tuple(key_dependents(b.queries, [TEMPORARY, FIRST, SECOND]).values())


def test_a_card_depends_on_keys_until_it_is_done(tmp_path: Path) -> None:
    """From the vault on on its factory's keys, from the release of the first write on the version
    that is written, too, and from then on until it left; rejected and shipped ones on none."""
    b = Building.make(tmp_path)
    records = [record(n) for n in range(1, 5)]
    b.take_return(factory_return(records))
    b.take_note(note([NoteCarton("C1", "102", SOCIAL, 4, "")]))
    assert _in_use(b) == (0, 0, 0)
    b.sign_for("D1", C1=4)
    assert _in_use(b) == (4, 0, 0)
    b.cartons.load(["C1"])
    writing = b.writing(Line.KEY_REPLACEMENT)
    body = b.cartons.take("C1", writing)
    assert body is not None
    first = b.release(writing, body, 1, records[0].order_id, records[0].branch_code)
    b.commit(writing)
    assert _in_use(b) == (4, 1, 0)
    writing = b.writing(Line.KEY_REPLACEMENT)
    second = b.cartons.take("C1", writing)
    assert second is not None
    writing.change(
        second,
        EventType.KEY_WRITE_RELEASED,
        {"station": "S1", "reader": "R1", "keys": ["MK"], "version": 2},
        identification_code=f"430100D156000005{2:016X}",
        order_id=records[1].order_id,
        destination=records[1].branch_code,
        lease=1,
        released=True,
    )
    b.commit(writing)
    assert _in_use(b) == (4, 1, 1)
    writing = b.writing(Line.KEY_REPLACEMENT)
    for body in (first, b.queries.bodies("b.lease = 1 and b.order_id = ?", records[1].order_id)[0]):
        writing.change(
            body,
            EventType.KEYS_REPLACED,
            {"station": "S1"},
            place="transit/key_replacement>inspection",
        )
    b.commit(writing)
    assert _in_use(b) == (2, 1, 1)
    b.inspect(bad=frozenset({records[1].order_id}))
    assert _in_use(b) == (2, 1, 0)
    b.close()


def test_a_finished_batch_needs_what_its_held_cards_need(tmp_path: Path) -> None:
    """Of a batch whose return is written only the cards held at key replacement depend on keys;
    keys of other batches and of other kinds have no dependents."""
    b = one_of_each(tmp_path)
    held = b.queries.one("select count(*) as n from body where place = 'key_replacement/held'")
    assert held is not None
    assert held["n"] > 0
    assert _in_use(b) == (held["n"], 0, 0)
    others = ["temporary:B2:MK:v0", "temporary:B:1:MK:v0", "index", "kek:v1", "bank:999:kmc:v1"]
    assert set(key_dependents(b.queries, others).values()) == {0}
    b.close()


def test_banks_and_backups_need_their_keys(tmp_path: Path) -> None:
    """Keys of a bank are needed while cards of the bank are here, a KEK while a file lies under
    it: the act that would destroy one is refused. A staged one can go."""
    office = Office(tmp_path)
    office.settle()
    for subject in ("kek", "bank:102:kmc"):
        office.generate(subject=subject)
    office.receive("B1", 3)
    assert key_dependents(office.queries, ["bank:102:kmc:v1"]) == {"bank:102:kmc:v1": 0}
    for subject in ("kek", "bank:102:kmc"):
        office.both("ke", "kang", ActKind.KEY_ACTIVATE, subject, version=1)
    office.both("ke", "kang", ActKind.KEY_BACKUP, "token")
    office.both("ke", "kang", ActKind.KEY_EXPORT, "bank:102:kmc", version=1)
    needs = key_dependents(office.queries, ["kek:v1", "bank:102:kmc:v1", "bank:103:kmc:v1"])
    assert needs == {"kek:v1": 2, "bank:102:kmc:v1": 3, "bank:103:kmc:v1": 0}
    for subject in ("kek", "bank:102:kmc"):
        office.both("ke", "kang", ActKind.KEY_RETIRE, subject, version=1)
        refused = office.propose("ke", ActKind.KEY_DESTROY, subject, version=1)
        assert refused.receipt.code == Code.KEY_IN_USE
    office.close()
