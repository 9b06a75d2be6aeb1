"""A centre on two machines: both are lost, one after the other, in the middle of work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from domain.places import Line
from proof.audit import audit
from tests.machines.lost_machines import play

pytestmark = pytest.mark.timeout(300)


def test_work_goes_on_through_the_loss_of_a_machine_and_of_the_head(
    new_ledger: Callable[[], str], short_directory: Path, free_port: Callable[[], int]
) -> None:
    """Lines leave the head for a machine that joins. SIGKILL to the head: the joined machine lets
    go, and is there again when the head was started anew. SIGKILL to everything there: its lines go
    on elsewhere by themselves, under a new epoch, and one that joins later leaves in order. Nobody
    does anything but start commands, and an auditor who shares no code with the writers finds every
    card where it must be."""
    seen = play(short_directory, new_ledger(), free_port())
    assert seen.demo == 0, seen.said[-3000:]
    for where in (seen.first, seen.again):
        assert len(set(where.values())) == 2
        at_home = {where[part] for part in ("gateway", "provider-0", "provider-1", Line.CUSTODY)}
        assert len(at_home) == 1
    assert seen.first[Line.KEY_REPLACEMENT].endswith("/further")
    assert seen.left == 0
    audit(short_directory / "head")
