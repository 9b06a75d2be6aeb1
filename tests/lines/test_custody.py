"""Acts of two people: who may do what, in which session, once, and what is left of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from actors.passwords import FREE_FAILURES, LONGEST_PAUSE, pause_after
from domain.changes import Away
from domain.codes import Code
from domain.custody import ActKind, ActState
from ledger import people
from tests.lines.custody import (
    IDLE,
    USAGES,
    Killed,
    Office,
    block_of,
    code_of,
    parts,
    password_of,
)


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    office = Office(tmp_path)
    office.settle()
    yield office
    office.close()


def test_the_owner_adds_two_supervisors_and_nobody_else(tmp_path: Path) -> None:
    """Without what stands in the owner's file nobody is added, and after two supervisors the owner
    adds nobody; a name is taken once."""
    office = Office(tmp_path)
    assert code_of(office.found("sun", "another proof")) == Code.NOT_THE_OWNER
    assert code_of(office.found("sun")) == Code.OK
    assert code_of(office.found("sun")) == Code.OK  # the answer was lost, and it is asked again
    assert code_of(office.found("sun", password="another password")) == Code.PERSON_KNOWN
    assert code_of(office.found("su")) == Code.OK
    assert code_of(office.found("third")) == Code.FOUNDED
    assert office.verify().ok
    office.close()


def test_one_person_cannot_act_alone_not_even_in_two_sessions(office: Office) -> None:
    """Whoever proposed an act is refused as the one who confirms it, whatever the session; without
    a session nobody proposes, and without the role nobody does either."""
    office.log_in("sun", keep="sun again")
    act = office.propose("sun", ActKind.PEOPLE_CLOSE, "ke").acts[0]
    assert code_of(office.confirm("sun", act.act_id)) == Code.SAME_PERSON
    assert code_of(office.confirm("sun again", act.act_id)) == Code.SAME_PERSON
    assert code_of(office.confirm("ke", act.act_id)) == Code.ROLE_MISSING
    assert code_of(office.confirm("nobody", act.act_id)) == Code.NOT_LOGGED_IN
    assert code_of(office.propose("ke", ActKind.PEOPLE_CLOSE, "sun")) == Code.ROLE_MISSING
    assert people.act(office.queries, act.act_id).state == ActState.PROPOSED  # type: ignore[union-attr]
    assert code_of(office.confirm("su", act.act_id)) == Code.OK
    assert code_of(office.who("ke")) == Code.SESSION_ENDED
    report = office.verify()
    assert report.ok, report.finding


def test_an_ended_session_is_refused(office: Office) -> None:
    """A session ends by logging out, by not being used, and with the restart of the line no later
    than it would have; use keeps it open."""
    for _ in range(3):
        office.clock.now += IDLE * 0.6
        assert code_of(office.who("sun")) == Code.OK
    office.restart()
    office.clock.now += timedelta(seconds=1)
    assert code_of(office.who("sun")) == Code.SESSION_ENDED
    office.log_in("sun")
    office.clock.now += IDLE
    assert code_of(office.propose("sun", ActKind.PEOPLE_CLOSE, "ke")) == Code.SESSION_ENDED
    office.log_in("sun")
    assert asyncio.run(office.line.log_out(office.tokens["sun"])).receipt.accepted
    assert code_of(office.who("sun")) == Code.SESSION_ENDED
    asyncio.run(office.line.step())
    assert people.open_sessions(office.queries) == []
    assert office.verify().ok


def test_wrong_passwords_slow_a_name_down_and_no_other(office: Office) -> None:
    """After some wrong ones the name waits, also for the right one, and longer each time, also
    over a restart; another name does not wait, whether somebody has it or not."""
    for name in ("ke", "stranger"):
        for _ in range(FREE_FAILURES):
            assert code_of(office.log_in(name, "a wrong password")) == Code.LOGIN_REFUSED
        assert code_of(office.log_in(name)) == Code.LOGIN_PAUSED
    assert code_of(office.log_in("another stranger")) == Code.LOGIN_REFUSED
    assert code_of(office.log_in("kang")) == Code.OK
    office.restart()
    assert code_of(office.log_in("ke")) == Code.LOGIN_PAUSED
    office.clock.now += timedelta(seconds=pause_after(FREE_FAILURES))
    assert code_of(office.log_in("ke", "a wrong password")) == Code.LOGIN_REFUSED
    pauses = [pause_after(n) for n in range(20)]
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_PAUSE
    person = people.person(office.queries, "ke")
    assert person is not None
    assert person.failures == FREE_FAILURES + 1
    office.clock.now += timedelta(seconds=LONGEST_PAUSE)
    assert code_of(office.log_in("ke")) == Code.OK
    assert office.verify().ok


def test_a_set_of_keys_takes_two_components_and_leaves_none_behind(office: Office) -> None:
    """Both people bring a component of every key; afterwards the ledger has check values, and no
    component, sealed as it was, anywhere in its file."""
    proposed = office.propose("ke", ActKind.KEY_GENERATE, "formal", parts=parts(USAGES, "one"))
    act = proposed.acts[0]
    assert code_of(office.confirm("kang", act.act_id)) == Code.FIELD_MISSING
    same = {"parts": parts(USAGES, "one")}
    assert code_of(office.confirm("kang", act.act_id, **same)) == Code.KEY_WEAK
    done = office.confirm("kang", act.act_id, parts=parts(USAGES, "two")).acts[0]
    assert done.state == ActState.DONE
    assert set(done.result["check_values"]) == {f"formal:{usage}:v1" for usage in USAGES}
    again = office.propose("ke", ActKind.KEY_GENERATE, "formal", parts=parts(USAGES, "one"))
    assert code_of(again) == Code.KEY_STATE  # one version is staged
    office.ledger._connection.execute("pragma wal_checkpoint(truncate)").close()
    content = (office.place / "ledger.db").read_bytes()
    assert b"sealed one".hex().encode() not in content
    assert b"sealed two".hex().encode() not in content
    assert office.verify().ok


def test_versions_of_keys_follow_one_another(office: Office) -> None:
    """Generate, activate, rotate, activate: the first version is retired with the second one's
    activation, and only then it can be destroyed."""
    office.generate()
    both = ("ke", "kang")
    assert office.both(*both, ActKind.KEY_ACTIVATE, "formal", version=1).state == ActState.DONE
    wrong = office.propose("ke", ActKind.KEY_GENERATE, "formal", parts=parts(USAGES, "one"))
    assert code_of(wrong) == Code.KEY_STATE
    assert office.generate(ActKind.KEY_ROTATE).state == ActState.DONE
    for kind, version in ((ActKind.KEY_DESTROY, 1), (ActKind.KEY_RETIRE, 2)):
        assert code_of(office.propose("ke", kind, "formal", version=version)) == Code.KEY_STATE
    assert office.both(*both, ActKind.KEY_ACTIVATE, "formal", version=2).state == ActState.DONE
    states = people.key_states(office.queries)
    assert states == {
        f"formal:{usage}:v{version}": state
        for usage in USAGES
        for version, state in ((1, "retired"), (2, "active"))
    }
    assert office.both(*both, ActKind.KEY_DESTROY, "formal", version=1).state == ActState.DONE
    assert {key.version for key in office.shelf.keys.values()} == {2}
    report = office.verify()
    assert report.ok, report.finding


def test_temporary_keys_are_accepted_by_the_letter_or_go(office: Office) -> None:
    """A factory's block waits until another person has compared its check values with the letter,
    and nothing of it is in the token; withdrawn, it may come again. Open work keeps its keys."""
    act = office.propose("ke", ActKind.KEY_ACCEPT_TEMPORARY, "B1", block=block_of("B1")).acts[0]
    letter = dict(act.content["check_values"])
    assert office.shelf.keys == {}
    wrong = {**letter, "MK": "000000"}
    refused = office.confirm("kang", act.act_id, check_values=wrong)
    assert code_of(refused) == Code.KEY_CHECK_VALUE_DIFFERS
    assert "MK" in refused.receipt.reason
    assert office.withdraw("kang", act.act_id).acts[0].state == ActState.WITHDRAWN
    assert office.shelf.keys == {}
    second = {"check_values": letter}
    accept = (ActKind.KEY_ACCEPT_TEMPORARY, "B1")
    assert (
        office.both("ke", "kang", *accept, block=block_of("B1"), second=second).state
        == ActState.DONE
    )
    assert {k.state for k in office.shelf.keys.values()} == {"active"}
    again = office.propose("ke", *accept, block=block_of("B1"))
    assert code_of(again) == Code.KEY_STATE
    office.both("ke", "kang", ActKind.KEY_RETIRE, "temporary:B1")
    office.receive("B1", cards=3)
    in_use = office.propose("ke", ActKind.KEY_DESTROY, "temporary:B1")
    assert code_of(in_use) == Code.KEY_IN_USE
    assert "3" in in_use.receipt.reason
    bad = office.propose("ke", ActKind.KEY_ACCEPT_TEMPORARY, "B2", block=b"bad")
    assert code_of(bad) == Code.KEY_BLOCK_BAD
    report = office.verify()
    assert report.ok, report.finding


def test_what_leaves_is_sealed_under_an_active_kek(office: Office) -> None:
    """Backup and export need an active KEK; what they deliver is named by the act; a restore says
    in which state each key came back."""
    assert code_of(office.propose("ke", ActKind.KEY_BACKUP, "all")) == Code.KEY_STATE
    usages = ("kek",)
    made = office.both(
        "ke", "kang", ActKind.KEY_GENERATE, "kek",
        parts=parts(usages, "one"), second={"parts": parts(usages, "two")},
    )  # fmt: skip
    assert made.state == ActState.DONE, made
    office.both("ke", "kang", ActKind.KEY_ACTIVATE, "kek", version=1)
    act = office.both("ke", "kang", ActKind.KEY_BACKUP, "all")
    assert office.delivered == {f"backup-{act.act_id}.json": b"a backup"}
    act = office.both("kang", "ke", ActKind.KEY_RESTORE, "all", block=b"a backup")
    assert act.state == ActState.DONE
    act = office.both("ke", "kang", ActKind.KEY_EXPORT, "bank:102:kmc", version=1)
    assert office.delivered[f"export-{act.act_id}.json"] == b"bank:102:kmc:v1"
    report = office.verify()
    assert report.ok, report.finding


@pytest.mark.parametrize("cut", [1, 2])
def test_a_confirmed_act_is_done_once_whatever_dies(office: Office, cut: int) -> None:
    """The line dies right after the confirmation, or after the act was done and before anybody was
    told: the next instance finishes it, the keys were made once, and a repeated confirmation is
    answered by the same result."""
    proposed = office.propose("ke", ActKind.KEY_GENERATE, "formal", parts=parts(USAGES, "one"))
    act_id = proposed.acts[0].act_id
    office.door.cut = cut
    with pytest.raises(Killed):
        office.confirm("kang", act_id, parts=parts(USAGES, "two"))
    office.restart()
    asyncio.run(office.line.step())
    asyncio.run(office.line.step())
    assert office.shelf.combined == len(USAGES)
    again = office.confirm("kang", act_id, parts=parts(USAGES, "other"))
    assert again.receipt.repeated
    assert again.acts[0].state == ActState.DONE
    assert code_of(office.confirm("sun", act_id)) == Code.ROLE_MISSING
    report = office.verify()
    assert report.ok, report.finding


@pytest.mark.parametrize("fault", ["fault", "fault_after"])
def test_an_absent_provider_delays_an_act_and_loses_nothing(office: Office, fault: str) -> None:
    """Away before or after it took effect: the act stays confirmed, and `step` finishes it."""
    proposed = office.propose("ke", ActKind.KEY_GENERATE, "formal", parts=parts(USAGES, "one"))
    act_id = proposed.acts[0].act_id
    setattr(office.shelf, fault, Away("it restarts"))
    confirmed = office.confirm("kang", act_id, parts=parts(USAGES, "two"))
    assert confirmed.receipt.accepted
    assert confirmed.acts[0].state == ActState.CONFIRMED
    asyncio.run(office.line.step())
    assert people.act(office.queries, act_id).state == ActState.DONE  # type: ignore[union-attr]
    assert office.shelf.combined == len(USAGES)
    assert office.verify().ok


def test_a_proposal_that_comes_again_is_one_act(office: Office) -> None:
    """The same command is answered by the same act; with another subject it is refused."""
    first = office.propose("sun", ActKind.PEOPLE_CLOSE, "ke", command_id="c1")
    second = office.propose("sun", ActKind.PEOPLE_CLOSE, "ke", command_id="c1")
    assert second.receipt.repeated
    assert second.acts[0].act_id == first.acts[0].act_id
    other = office.propose("sun", ActKind.PEOPLE_CLOSE, "kang", command_id="c1")
    assert code_of(other) == Code.COMMAND_DIFFERS


def test_people_change_by_two_supervisors_who_stay_two(office: Office) -> None:
    """Roles, a forgotten password, closing: each ends what it must, and nobody takes away the last
    two supervisors."""
    close = ActKind.PEOPLE_CLOSE
    assert code_of(office.propose("sun", close, "su")) == Code.TOO_FEW_SUPERVISORS
    act = office.both("sun", "su", ActKind.PEOPLE_ROLES, "ke", roles=("supervisor",))
    assert act.state == ActState.DONE
    assert code_of(office.propose("ke", ActKind.KEY_BACKUP, "all")) == Code.ROLE_MISSING
    forgotten = {"password": "another password of kang"}
    both_roles = {"roles": ("supervisor", "key_custodian")}
    assert code_of(office.propose("sun", ActKind.PEOPLE_ROLES, "kang", **both_roles)) == (
        Code.ROLES_APART
    )
    assert office.both("sun", "ke", ActKind.PEOPLE_PASSWORD, "kang", **forgotten).state == "done"
    assert code_of(office.who("kang")) == Code.SESSION_ENDED
    assert code_of(office.log_in("kang")) == Code.LOGIN_REFUSED
    assert code_of(office.log_in("kang", forgotten["password"])) == Code.OK
    assert office.both("sun", "ke", close, "su").state == ActState.DONE
    assert code_of(office.log_in("su")) == Code.LOGIN_REFUSED
    report = office.verify()
    assert report.ok, report.finding


def test_what_a_closed_person_proposed_is_not_done(office: Office) -> None:
    """An act whose proposer is gone by the time it is confirmed is not open any more."""
    act = office.propose("ke", ActKind.KEY_ACCEPT_TEMPORARY, "B1", block=block_of("B1")).acts[0]
    office.both("sun", "su", ActKind.PEOPLE_CLOSE, "ke")
    letter = dict(act.content["check_values"])
    assert code_of(office.confirm("kang", act.act_id, check_values=letter)) == Code.ACT_NOT_OPEN
    assert office.withdraw("kang", act.act_id).receipt.accepted
    assert office.verify().ok


def test_no_password_is_anywhere(office: Office) -> None:
    """Short, wrong and right ones: in no reply, no log line, no exception, not in the ledger's
    file; a name that nobody has (which may be a password) is not written down either."""
    typed = ["short", "a wrong password", password_of("ke"), "a name like a password"]
    with capture_logs() as logs:
        structlog.get_logger().info("begin")
        answers = [
            office.log_in("ke", typed[1]),
            office.log_in("ke"),
            office.log_in(typed[3], typed[1]),
            office.propose("sun", ActKind.PEOPLE_ADD, "li", roles=("operator",), password=typed[0]),
        ]
    assert code_of(answers[-1]) == Code.PASSWORD_SHORT
    office.ledger._connection.execute("pragma wal_checkpoint(truncate)").close()
    said = repr(answers) + repr(logs)
    content = (office.place / "ledger.db").read_bytes()
    for secret in typed:
        assert secret not in said
        assert secret.encode() not in content
    for token in office.tokens.values():
        assert token.encode() not in content
    assert not any(p.credential in said for p in people.people(office.queries) if p.credential)


@settings(max_examples=12, deadline=None)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["sun", "su", "ke", "kang"]),
            st.sampled_from(["propose", "confirm", "withdraw", "leave", "wait", "restart"]),
        ),
        max_size=12,
    )
)
def test_whatever_people_try_no_act_is_done_by_fewer_than_two(
    steps: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Any sequence of what people can try: whatever is done was proposed and confirmed by two
    different people in two sessions, and verification agrees."""
    office = Office(tmp_path_factory.mktemp("office"))
    office.settle()
    for who, what in steps:
        if what == "propose":
            office.propose(who, ActKind.KEY_ACCEPT_TEMPORARY, "B1", block=block_of("B1"))
            office.propose(who, ActKind.PEOPLE_ROLES, "ke", roles=("key_custodian", "operator"))
        elif what in ("confirm", "withdraw"):
            for act in people.acts(office.queries, ActState.PROPOSED):
                if what == "withdraw":
                    office.withdraw(who, act.act_id)
                    continue
                values = dict(act.content.get("check_values", {}))
                office.confirm(who, act.act_id, check_values=values)
        elif what == "leave":
            asyncio.run(office.line.log_out(office.tokens[who]))
            office.log_in(who)
        elif what == "wait":
            office.clock.now += IDLE * 0.4
        else:
            office.restart()
    for act in people.acts(office.queries, ActState.DONE):
        assert act.proposed_by != act.confirmed_by
        assert act.proposed_in != act.confirmed_in
    report = office.verify()
    assert report.ok, report.finding
    office.close()
