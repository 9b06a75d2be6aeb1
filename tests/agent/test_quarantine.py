"""Which readers are set apart, and which are not."""

from __future__ import annotations

from station_agents.quarantine import Outcome, Quarantine, Rule

GOOD, SILENT, BROKEN = Outcome.ANSWERED, Outcome.SILENT, Outcome.BROKEN


def station(*readers: str, rule: Rule = Rule()) -> Quarantine:  # noqa: B008  # frozen
    quarantine = Quarantine(rule)
    for reader in readers:
        quarantine.begin(reader)
    return quarantine


def test_silence_is_the_reader_s_only_if_a_neighbour_is_answered() -> None:
    """Three silent chips in a row set a reader apart if another reader had a chip that answered
    since the first of them; not when all are silent, nor when one of its own answered between."""
    floor = station("A", "B")
    assert not any(floor.note(reader, SILENT) for _ in range(5) for reader in ("A", "B"))
    floor = station("A", "B")
    floor.note("B", GOOD)
    assert not any(floor.note("A", o) for o in (SILENT, SILENT, GOOD, SILENT, SILENT))
    floor.note("B", GOOD)
    assert floor.note("A", SILENT)
    floor.begin("A")
    assert not floor.note("A", SILENT)


def test_failures_are_measured_by_the_neighbours() -> None:
    """So many failures of the last so many cards set a reader apart, unless all readers have as
    many: then the cards are to blame. A reader without neighbours has only its own measure."""
    rule = Rule(silent=0, failures=3, of=5)
    floor = station("A", "B", rule=rule)
    floor.note("B", GOOD)
    assert [bool(floor.note("A", o)) for o in (BROKEN, GOOD, SILENT, GOOD, BROKEN)] == [
        False, False, False, False, True,
    ]  # fmt: skip
    assert not floor.note("A", GOOD)  # the first has left the last five
    floor = station("A", "B", rule=rule)
    assert not any(floor.note(reader, BROKEN) for _ in range(9) for reader in ("A", "B"))
    floor = station("A", rule=rule)
    assert [bool(floor.note("A", BROKEN)) for _ in range(3)] == [False, False, True]
    assert not any(station("A", rule=Rule(0, 0, 1)).note("A", BROKEN) for _ in range(50))
