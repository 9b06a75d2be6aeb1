"""Acts on keys in an unlucky order, and what an act on one set of keys must not touch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from domain.codes import Code
from domain.custody import ActKind, ActState
from tests.lines.custody import Office, parts


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
    """A restore brings the key that an open act would make: the act can't be confirmed any more,
    only withdrawn."""
    kmc = {"parts": parts(("kmc",), "one")}
    act = office.propose("ke", ActKind.KEY_IMPORT, "bank:102:kmc", **kmc).acts[0]
    office.both("ke", "kang", ActKind.KEY_RESTORE, "token", block=b"a backup")
    refused = office.confirm("kang", act.act_id, parts=parts(("kmc",), "two"))
    assert refused.receipt.code == Code.KEY_STATE
    assert office.withdraw("ke", act.act_id).receipt.accepted
