"""What people can never have done is found, though every hash is right: one person alone, a session
that was over, a key that jumps from state to state, an act that did less or more than it said."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from domain.custody import ActKind
from ledger.commit import Ledger
from ledger.verify import verify
from tests.ledger.acts import people_act
from tests.ledger.test_tampering import compute_anew, opened
from tests.lines.custody import SteppingClock


def set_data(event: str, path: str, value: str, more: str = "") -> str:
    """One value in the data of events, spelt as this program spells it."""
    return (
        f"update event set data = json_set(data, '$.{path}', {value}) where type = '{event}' {more}"
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("people")
    clock = SteppingClock()
    ledger = Ledger(folder / "ledger.db", lambda: clock().isoformat(timespec="milliseconds"))
    people_act(folder, ledger)
    ledger.close()
    return folder


GENERATED = "and data ->> 'act_id' = 'A000003'"
ACTIVATED = "and data ->> 'act_id' = 'A000004'"
TAMPERED = {
    "the same person confirms": (
        set_data("act_confirmed", "person", "'ke'", GENERATED),
        set_data("act_confirmed", "session", "'S000003'", GENERATED),
    ),
    "in a session of another person": (
        set_data("act_confirmed", "session", "'S000001'", GENERATED),
    ),
    "in a session that was never opened": (
        set_data("act_proposed", "session", "'S000009'", GENERATED),
    ),
    "without the role": (
        set_data("act_confirmed", "person", "'su'", GENERATED),
        set_data("act_confirmed", "session", "'S000002'", GENERATED),
    ),
    "a session that had ended": (
        "update event set type = 'logged_out', data = json_object('at', data ->> 'at', 'name',"
        " 'ke', 'session', 'S000003', 'why', 'idle') where type = 'login_refused'",
    ),
    "done and never confirmed": (
        "update event set type = 'act_withdrawn', data = json_remove(data, '$.parts', '$.sealed')"
        f" where type = 'act_confirmed' {GENERATED}",
    ),
    "a key that no act named": (
        set_data("key_staged", "label", "'formal:XX:v1'", f"{GENERATED} and position = 1"),
    ),
    "a key that was never staged is activated": (
        "update event set type = 'key_staged', data = json_set(data, '$.label', 'formal:XX:v1')"
        f" where type = 'key_activated' {ACTIVATED} and position = 1",
    ),
    "a key that became another one": (
        set_data("key_activated", "check_value", "'BADBAD'", f"{ACTIVATED} and position = 1"),
    ),
    "a lost key that came back as another one": (
        set_data("key_restored", "check_value", "'BADBAD'"),
    ),
    "a lost key that came back in another state": (set_data("key_restored", "state", "'retired'"),),
    "active without having been staged": (
        f"update event set data = replace(data, ':v1\"', ':v9\"') where 1 {GENERATED}",
    ),
    "restored otherwise than both people read": (set_data("key_restored", "state", "'retired'"),),
    "a restore that moves a key": (
        "update event set data = replace(replace(data, 'bank:102:kmc:v1', 'formal:EAK:v1'),"
        " '\"active\"', '\"retired\"') where data ->> 'act_id' = 'A000005'",
    ),
    "a restore that makes a second version active": (
        "update event set data = replace(data, 'bank:102:kmc:v1', 'formal:EAK:v2')"
        " where data ->> 'act_id' = 'A000005'",
    ),
    "a restore of other keys than it says": (
        set_data("key_restored", "label", "'bank:102:kmc:v2'"),
    ),
    "fewer keys than the act says": (
        set_data("act_proposed", "content.labels.XX", "'formal:XX:v1'", GENERATED),
    ),
    "a third supervisor by the owner alone": (
        set_data("person_added", "act_id", "''", "and data ->> 'name' = 'ke'"),
    ),
    "a person added by an act that is another's": (
        set_data("person_added", "act_id", "'A000001'", "and data ->> 'name' = 'kang'"),
    ),
    "supervisor and custodian in one": (
        set_data("roles_changed", "roles", """json('["key_custodian","supervisor"]')"""),
        set_data(
            "act_proposed",
            "content.roles",
            """json('["key_custodian","supervisor"]')""",
            "and data ->> 'kind' = 'people.roles'",
        ),
    ),
    "acts with a password that another has typed": (
        "update event set type = 'login_refused', data = json_object('at', '', 'name', '')"
        " where type = 'password_changed' and data ->> 'name' = 'ke'",
    ),
    "still logged in after the password was reset": (
        "update event set type = 'login_refused', data = json_object('at', data ->> 'at', 'name',"
        " data ->> 'name') where type = 'logged_out' and data ->> 'why' = 'password'",
    ),
    "confirmed after its proposer was closed": (
        "update event set type = 'act_confirmed', data = json_object('act_id', (select data ->>"
        " 'act_id' from event where type = 'act_proposed' and data ->> 'subject' = 'B7'),"
        " 'parts', json_object(), 'person', data ->> 'person', 'sealed', '', 'session', data ->>"
        " 'session') where type = 'act_proposed' and data ->> 'kind' = 'key.rotate'",
    ),
    "closed by nobody": (set_data("person_closed", "act_id", "''"),),
    "logged in though closed": (
        "update event set type = 'login_refused', data = json_object('at', data ->> 'at', 'name',"
        " data ->> 'name') where type = 'logged_out' and data ->> 'name' = 'kang'",
    ),
    "an event of cards in this stream": (
        "update event set type = 'note_accepted' where type = 'login_refused'",
    ),
}


@pytest.mark.parametrize("how", TAMPERED)
def test_what_people_can_never_have_done_is_found(finished: Path, tmp_path: Path, how: str) -> None:
    """The events are changed and all hashes computed anew; nothing else gives it away."""
    shutil.copy(finished / "ledger.db", tmp_path / "ledger.db")
    with opened(tmp_path) as connection:
        changed = sum(connection.execute(sql).rowcount for sql in TAMPERED[how])
        compute_anew(connection)
    assert changed >= len(TAMPERED[how])
    report = verify(tmp_path / "ledger.db", None, None)
    assert not report.ok
    assert "custody" in report.finding
    assert "table event" in report.finding


def test_what_was_not_changed_holds(finished: Path) -> None:
    """The ledger that these tests tamper with is in order, and holds an open act of every sort."""
    report = verify(finished / "ledger.db", None, None)
    assert report.ok, report.finding
    assert ActKind.KEY_ROTATE in (finished / "ledger.db").read_bytes().decode("latin-1")
