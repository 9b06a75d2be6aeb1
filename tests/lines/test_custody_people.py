"""People and their passwords: what is theirs alone, and what nobody learns at the door."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from actors.passwords import FREE_FAILURES, pause_after
from domain.codes import Code
from domain.custody import ActKind
from tests.lines.custody import Office, block_of, code_of


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    office = Office(tmp_path)
    office.settle()
    yield office
    office.close()


def test_a_password_that_another_typed_is_good_for_changing_it_only(office: Office) -> None:
    """A supervisor who has typed the password of a custodian, at first or anew, gets no further
    with it than its owner's own change: no act is proposed, confirmed or withdrawn, nothing is
    listed. The owner's change makes an end of it; the same password again is none."""
    act = office.propose("ke", ActKind.KEY_ACCEPT_TEMPORARY, "B1", block=block_of("B1")).acts[0]
    typed = "typed by sun, for kang"
    office.both("sun", "su", ActKind.PEOPLE_PASSWORD, "kang", password=typed)
    assert code_of(office.log_in("kang", typed)) == Code.OK
    letter = dict(act.content["check_values"])
    for refused in (
        office.confirm("kang", act.act_id, check_values=letter),
        office.withdraw("kang", act.act_id),
        office.propose("kang", ActKind.KEY_BACKUP, "all"),
        asyncio.run(office.line.list_keys(office.tokens["kang"])),
        office.change_password("kang", typed, typed),
    ):
        assert code_of(refused) == Code.PASSWORD_TO_CHANGE
    assert office.who("kang").people[0].password_to_change
    own = "chosen by kang alone"
    assert code_of(office.change_password("kang", typed, own)) == Code.OK
    assert code_of(office.change_password("kang", typed, own)) == Code.OK  # the answer was lost
    assert code_of(office.confirm("kang", act.act_id, check_values=letter)) == Code.OK
    report = office.verify()
    assert report.ok, report.finding


def test_a_pause_does_not_tell_which_names_there_are(office: Office) -> None:
    """Whoever tries names, one by one or in turns, is answered the same for one that somebody has
    as for one that nobody has, again and again."""

    def answers(name: str) -> list[str]:
        said = []
        for tried in range(FREE_FAILURES + 3):
            answered = office.log_in(name, "a wrong password")
            said.append(f"{answered.receipt.code} {answered.receipt.reason}")
            if tried == FREE_FAILURES:
                office.clock.now += timedelta(seconds=pause_after(FREE_FAILURES))
        return said

    one, two, three = answers("stranger"), answers("ke"), answers("another stranger")
    assert one == two == three
    assert any(said.startswith(Code.LOGIN_PAUSED) for said in one)
