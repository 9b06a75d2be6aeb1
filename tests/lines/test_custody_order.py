"""Acts on keys in an unlucky order, and what an act on one set of keys must not touch."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from domain.changes import Away
from domain.codes import Code
from domain.custody import ActKind, ActState, Proposal
from domain.provider import KeyState
from tests.lines.custody import (
    USAGES,
    KeyShelf,
    Killed,
    Office,
    block_of,
    code_of,
    letter_of,
    parts,
)


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    office = Office(tmp_path)
    office.settle()
    yield office
    report = office.verify()
    assert report.ok, report.finding
    office.close()


ACTIVATE_NEXT = (ActKind.KEY_ACTIVATE, 2)
RETIRE_FIRST = (ActKind.KEY_RETIRE, 1)


@pytest.mark.parametrize(
    ("open_one", "other"), [(ACTIVATE_NEXT, RETIRE_FIRST), (RETIRE_FIRST, ACTIVATE_NEXT)]
)
def test_a_set_of_keys_has_one_open_act(
    office: Office, open_one: tuple[str, int], other: tuple[str, int]
) -> None:
    """Two acts on one set, of whatever kind, would change under each other: the second waits for
    the first, and the ledger holds whichever came first."""
    office.generate()
    office.both("ke", "kang", ActKind.KEY_ACTIVATE, "formal", version=1)
    office.generate(ActKind.KEY_ROTATE)
    act = office.propose("ke", open_one[0], "formal", version=open_one[1]).acts[0]
    refused = office.propose("ke", other[0], "formal", version=other[1])
    assert refused.receipt.code == Code.ACT_OPEN
    assert office.confirm("kang", act.act_id).acts[0].state == ActState.DONE


def test_what_has_changed_since_the_proposal_is_not_confirmed(office: Office) -> None:
    """The KEK of an open backup is retired by another act: the backup can't be confirmed any more,
    only withdrawn."""
    office.generate(subject="kek")
    office.both("ke", "kang", ActKind.KEY_ACTIVATE, "kek", version=1)
    act = office.propose("ke", ActKind.KEY_BACKUP, "all").acts[0]
    office.both("ke", "kang", ActKind.KEY_RETIRE, "kek", version=1)
    assert office.confirm("kang", act.act_id).receipt.code == Code.KEY_STATE
    assert office.withdraw("ke", act.act_id).receipt.accepted


def test_what_is_gone_from_the_token_is_not_asked_for_again(office: Office) -> None:
    """The line dies after the provider destroyed and before the act was done; cards that would have
    kept the keys come meanwhile. The act is finished all the same: the token is empty."""
    bank = "bank:102:kmc"
    office.generate(subject=bank)
    office.both("ke", "kang", ActKind.KEY_ACTIVATE, bank, version=1)
    office.both("ke", "kang", ActKind.KEY_RETIRE, bank, version=1)
    act_id = office.propose("ke", ActKind.KEY_DESTROY, bank, version=1).acts[0].act_id
    office.door.cut = 1
    with pytest.raises(Killed):
        office.confirm("kang", act_id)
    office.shelf.keys.clear()
    office.receive("B1", 3)
    office.restart()
    asyncio.run(office.line.step())
    again = office.confirm("kang", act_id)
    assert again.acts[0].state == ActState.DONE
    assert office.verify().ok


def test_a_restore_says_before_what_comes_back(office: Office) -> None:
    """Both people read labels, states and check values. What was destroyed since the backup stays
    away, what was retired comes back retired, and no second version becomes active; meanwhile no
    other act on keys is open."""
    bank, shelf = "bank:102:kmc", office.shelf
    office.generate(subject=bank)
    office.both("ke", "kang", ActKind.KEY_ACTIVATE, bank, version=1)
    old = shelf.saved("bank")
    office.generate(ActKind.KEY_ROTATE, bank)
    office.both("ke", "kang", ActKind.KEY_ACTIVATE, bank, version=2)
    both = shelf.saved("bank")
    shelf.keys.clear()
    office.both("ke", "kang", ActKind.KEY_RESTORE, "token", block=old)
    assert {e.label: e.state for e in shelf.keys.values()} == {f"{bank}:v1": KeyState.RETIRED}
    proposed = office.propose("ke", ActKind.KEY_RESTORE, "token", block=both).acts[0]
    entry = json.loads(both)[1]
    assert proposed.content["keys"] == {
        f"{bank}:v2": {"state": KeyState.ACTIVE, "check_value": entry[5]}
    }
    assert proposed.content["left_out"] == {f"{bank}:v1": "there"}
    destroy = office.propose("ke", ActKind.KEY_DESTROY, bank, version=1)
    assert code_of(destroy) == Code.ACT_OPEN
    office.confirm("kang", proposed.act_id)
    office.both("ke", "kang", ActKind.KEY_DESTROY, bank, version=1)
    act = office.both("ke", "kang", ActKind.KEY_RESTORE, "token", block=old)
    assert act.content["left_out"] == {f"{bank}:v1": "destroyed"}
    assert set(shelf.keys) == {f"{bank}:v2"}
    stranger = json.dumps([[f"{bank}:v3", "kmc", 3, "3des", "active", "ABCDEF"]]).encode()
    refused = office.propose("ke", ActKind.KEY_RESTORE, "token", block=stranger)
    assert code_of(refused) == Code.KEY_STATE
    report = office.verify()
    assert report.ok, report.finding


@pytest.mark.parametrize("kind", [ActKind.KEY_ACTIVATE, ActKind.KEY_RETIRE])
def test_a_key_that_became_another_one_is_not_put_to_use(office: Office, kind: str) -> None:
    """Somebody put another key under the label, past the centre: whatever act comes next finds the
    check value that is not the ledger's, and changes nothing."""
    office.generate()
    if kind == ActKind.KEY_RETIRE:
        office.both("ke", "kang", ActKind.KEY_ACTIVATE, "formal", version=1)
    label, entry = next(iter(office.shelf.keys.items()))
    office.shelf.keys[label] = replace(entry, check_value="BADBAD")
    act = office.both("ke", "kang", kind, "formal", version=1)
    assert act.state == ActState.REFUSED
    assert act.result == {"code": Code.KEY_CHECK_VALUE_DIFFERS, "reason": label}
    assert {e.state for e in office.shelf.keys.values()} == {entry.state}


def test_a_version_that_is_lost_is_followed_by_the_next(office: Office) -> None:
    """The active version is gone from the token, and its components too: the next one takes its
    place, and the ledger retires what the token has lost."""
    office.generate()
    office.both("ke", "kang", ActKind.KEY_ACTIVATE, "formal", version=1)
    office.shelf.keys.clear()
    office.generate(ActKind.KEY_ROTATE)
    act = office.both("ke", "kang", ActKind.KEY_ACTIVATE, "formal", version=2)
    assert act.state == ActState.DONE


def accept(office: Office, batch_id: str) -> None:
    second = {"check_values": letter_of()}
    act = office.both(
        "ke", "kang", ActKind.KEY_ACCEPT_TEMPORARY, batch_id,
        block=block_of(batch_id), second=second,
    )  # fmt: skip
    assert act.state == ActState.DONE


def test_a_temporary_key_that_cards_wait_for_is_not_retired(office: Office) -> None:
    """It would serve no chip any more, and never could again."""
    accept(office, "B1")
    office.receive("B1", 3)
    refused = office.propose("ke", ActKind.KEY_RETIRE, "temporary:B1")
    assert code_of(refused) == Code.KEY_IN_USE


def test_a_batch_is_its_own_whatever_others_are_called(office: Office) -> None:
    """An act on the keys of batch `B` leaves those of batch `B:zz` alone."""
    for batch_id in ("B", "B:zz"):
        accept(office, batch_id)
    office.both("ke", "kang", ActKind.KEY_RETIRE, "temporary:B")
    states = {
        k.rpartition(":")[0].rpartition(":")[0]: e.state for k, e in office.shelf.keys.items()
    }
    assert states == {"temporary:B": "retired", "temporary:B:zz": "active"}


@pytest.mark.parametrize("other", ["OTHER", "MINE:2"])
def test_a_block_of_another_batch_is_refused_and_leaves_nothing(office: Office, other: str) -> None:
    """Under a subject that is not the block's nothing is proposed and nothing is in the token."""
    refused = office.propose("ke", ActKind.KEY_ACCEPT_TEMPORARY, "MINE", block=block_of(other))
    assert refused.receipt.code == Code.BAD_FORMAT
    assert office.shelf.keys == {}


def test_temporary_keys_that_no_act_left_in_the_token_can_go(office: Office) -> None:
    """Staged keys of a batch of which the ledger knows nothing are destroyed by an act of two, and
    then the genuine block is accepted. Keys in use are no such strays."""
    asyncio.run(office.shelf.stage_temporary_keys(block_of("B")))
    act = office.both("ke", "kang", ActKind.KEY_DESTROY, "temporary:B")
    assert act.state == ActState.DONE
    assert office.shelf.keys == {}
    accept(office, "B")
    in_use = office.propose("ke", ActKind.KEY_DESTROY, "temporary:B")
    assert in_use.receipt.code == Code.KEY_STATE


@pytest.mark.parametrize("fault", ["fault", "fault_after"])
def test_an_acceptance_that_was_cut_off_is_finished(office: Office, fault: str) -> None:
    """The provider goes away before or after it has taken the block: it is finished by itself."""
    act = office.propose("ke", ActKind.KEY_ACCEPT_TEMPORARY, "B", block=block_of("B")).acts[0]
    setattr(office.shelf, fault, Away("it restarts"))
    waits = office.confirm("kang", act.act_id, check_values=letter_of()).acts[0]
    assert waits.state == ActState.CONFIRMED
    asyncio.run(office.line.step())
    assert {e.state for e in office.shelf.keys.values()} == {"active"}


def test_a_lost_key_comes_back_as_it_was(office: Office) -> None:
    """The token is lost and the ledger kept: the KEK comes back in its own version and state out
    of its components, so that a backup opens. Other components are refused, and what is there, or
    is destroyed, can't come so."""
    kek = (ActKind.KEY_IMPORT, "kek")
    office.generate(*kek)
    office.both("ke", "kang", ActKind.KEY_ACTIVATE, "kek", version=1)
    before = dict(office.shelf.keys)
    mine, yours, other = (parts(("kek",), whose) for whose in ("one", "two", "other"))
    assert office.propose("ke", *kek, version=1, parts=mine).receipt.code == Code.KEY_STATE
    office.shelf = KeyShelf()
    office.restart()
    assert office.propose("ke", *kek, version=2, parts=mine).receipt.code == Code.KEY_STATE
    wanted = Proposal("x", *kek, version=1)
    (key,) = asyncio.run(office.line.next_keys(office.tokens["ke"], wanted)).keys
    assert key.label == "kek:v1"
    refused = office.both("ke", "kang", *kek, version=1, parts=mine, second={"parts": other})
    assert refused.result["code"] == Code.KEY_CHECK_VALUE_DIFFERS
    back = office.both("ke", "kang", *kek, version=1, parts=mine, second={"parts": yours})
    assert back.state == ActState.DONE
    assert office.shelf.keys == before
    assert office.both("ke", "kang", ActKind.KEY_BACKUP, "token").state == ActState.DONE


def test_of_a_set_only_what_is_lost_comes_back(office: Office) -> None:
    """One master of an active set is lost: its components alone are asked for."""
    office.generate()
    office.both("ke", "kang", ActKind.KEY_ACTIVATE, "formal", version=1)
    usage = USAGES[0]
    before = dict(office.shelf.keys)
    del office.shelf.keys[f"formal:{usage}:v1"], office.shelf.parts[f"formal:{usage}:v1"]
    act = office.both(
        "ke", "kang", ActKind.KEY_IMPORT, "formal", version=1,
        parts=parts((usage,), "one"), second={"parts": parts((usage,), "two")},
    )  # fmt: skip
    assert act.state == ActState.DONE
    assert office.shelf.keys == before
