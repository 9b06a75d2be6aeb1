"""Acts of two people on cards: confirmed in one stream, carried out in another, once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from actors.floor_acts import carry_out
from domain.codes import Code
from domain.custody import ActKind, ActState, Answered, Reason, Role
from domain.lines import CarriedOut, ConfirmedAct, NoteCarton
from domain.places import Line
from ledger import people
from ledger.verify import verify
from tests.ledger.building import SOCIAL, Building, Killed, factory_return, note, record
from tests.lines.custody import FIRST_PASSWORD, Office, code_of


@dataclass
class AtKeys:
    """Key replacement (or another line), as far as acts reach it."""

    b: Building
    asked: int = 0
    line: Line = Line.KEY_REPLACEMENT

    async def carry_out(self, act: ConfirmedAct) -> CarriedOut:
        self.asked += 1
        return await carry_out(self.line, self.b.doors[self.line], self.b.queries, act)


@dataclass
class Floor:
    """Three cards, of which the first is held with foreign keys; and people who are operators."""

    b: Building
    office: Office

    def state(self) -> str:
        return people.acts(self.b.queries)[-1].state

    def scrap(self, by: str, number: int, body: str = "C1.0001") -> Answered:
        return self.office.propose(
            by, ActKind.CARD_SCRAP, body, card=face(number), reason=str(Reason.DAMAGED)
        )

    def stands(self, body: str = "C1.0001") -> tuple[str, str, bool]:
        (found,) = self.b.queries.bodies("b.body_id = ?", body)
        return found.place, found.condition, found.live

    def finding(self) -> str:
        return verify(self.b.url, None, None).finding


def face(number: int) -> str:
    """The look-up value of the face of a card of `record(number)`."""
    return f"s{number:060d}"


def operators(folder: Path, b: Building) -> Office:
    """The people of a small ledger, with two who are operators and storekeepers."""
    office = Office(folder, shared=b.ledger)
    office.settle()
    for name in ("ou", "ouyang"):
        roles = (str(Role.OPERATOR), str(Role.STOREKEEPER))
        add = {"roles": roles, "password": FIRST_PASSWORD}
        assert office.both("sun", "su", ActKind.PEOPLE_ADD, name, **add).state == "done"
        office.come(name)
    return office


@pytest.fixture
def floor(tmp_path: Path) -> Iterator[Floor]:
    b = Building.make(tmp_path)
    records = [record(n) for n in range(1, 4)]
    b.take_return(factory_return(records))
    b.take_note(note([NoteCarton("C1", "102", SOCIAL, 3, "")]))
    b.sign_for("D1", C1=3)
    b.set_apart("C1", Code.FORMAL_KEYS_FOREIGN, 1, records[0].order_id)
    office = operators(tmp_path, b)
    yield Floor(b, office)
    office.close()
    b.close()


def test_a_card_is_scrapped_by_two_who_have_it_in_hand(floor: Floor) -> None:
    """Each scans its face; then its line rejects it as SCRAPPED, its order is free, and the
    verification replays all of it."""
    line = AtKeys(floor.b)
    floor.office.lines[Line.KEY_REPLACEMENT] = line
    assert code_of(floor.scrap("ke", 1)) == Code.ROLE_MISSING
    assert code_of(floor.scrap("ou", 2)) == Code.CARD_NOT_IN_HAND
    assert code_of(floor.scrap("ou", 1, "C1.0002")) == Code.NOT_TO_SCRAP
    assert code_of(floor.scrap("ou", 1, "C9.0001")) == Code.BODY_UNKNOWN
    act = floor.scrap("ou", 1).acts[0]
    assert code_of(floor.office.confirm("ou", act.act_id, card=face(1))) == Code.SAME_PERSON
    assert code_of(floor.office.confirm("ouyang", act.act_id)) == Code.CARD_NOT_IN_HAND
    assert floor.stands() == ("key_replacement/held", Code.FORMAL_KEYS_FOREIGN, True)
    done = floor.office.confirm("ouyang", act.act_id, card=face(1))
    assert (code_of(done), done.acts[0].state) == (Code.OK, ActState.DONE)
    assert floor.stands() == ("key_replacement/rejected", Code.SCRAPPED, False)
    assert line.asked == 1
    assert floor.finding() == ""


def test_an_act_waits_for_a_line_that_is_away(floor: Floor) -> None:
    """It stays confirmed, and `step` has it carried out when the line is back."""
    act = floor.scrap("ou", 1).acts[0]
    waits = floor.office.confirm("ouyang", act.act_id, card=face(1))
    assert (code_of(waits), waits.acts[0].state) == (Code.OK, ActState.CONFIRMED)
    floor.office.step()
    assert floor.state() == ActState.CONFIRMED
    assert floor.finding() == ""
    floor.office.lines[Line.KEY_REPLACEMENT] = AtKeys(floor.b)
    floor.office.step()
    assert floor.state() == ActState.DONE
    assert floor.stands()[1] == Code.SCRAPPED
    assert floor.finding() == ""


def test_an_act_is_carried_out_once_whoever_dies(floor: Floor) -> None:
    """The line dies after its commit, the custody line before it calls the act done: asked again
    the line answers what it answered, and nothing happens twice."""
    floor.office.lines[Line.KEY_REPLACEMENT] = AtKeys(floor.b)
    act = floor.scrap("ou", 1).acts[0]
    floor.b.doors[Line.KEY_REPLACEMENT].cut = 1
    with pytest.raises(Killed):
        floor.office.confirm("ouyang", act.act_id, card=face(1))
    assert (floor.state(), floor.stands()[1]) == (ActState.CONFIRMED, Code.SCRAPPED)
    floor.b.restart()
    floor.office.restart()
    floor.office.step()
    assert floor.state() == ActState.DONE
    assert floor.finding() == ""


def test_what_has_changed_since_it_was_proposed_is_not_done(floor: Floor) -> None:
    """The card went elsewhere while the act waited: it is refused where it is confirmed, and by
    the line, and the ledger holds."""
    floor.office.lines[Line.KEY_REPLACEMENT] = line = AtKeys(floor.b)
    first = floor.scrap("ou", 1).acts[0]
    (body,) = floor.b.queries.bodies("b.body_id = 'C1.0001'")
    order = ConfirmedAct(first.act_id, first.kind, body.body_id, {**first.content, "place": "x"})
    asked = line.carry_out(order)
    with pytest.raises(StopIteration) as answered:
        asked.send(None)
    assert answered.value.value.code == Code.ACT_OUTDATED
    assert floor.stands()[1] == Code.FORMAL_KEYS_FOREIGN
    assert floor.finding() == ""
