"""The inspection line (检卡): every chip is read again after its keys were replaced
(`actors.qa.reading`)."""

from __future__ import annotations

from actors.chip_line import verdict
from actors.qa.reading import ReadingLine
from domain.bodies import Body
from domain.changes import EventType
from domain.codes import Code
from domain.places import AFTER_INSPECTION, DRAWN, Line, Standing, transit
from domain.turns import Verdict

ARRIVED = transit(Line.KEY_REPLACEMENT, Line.INSPECTION)
DONE = transit(Line.INSPECTION, Line.SORTING)


class Inspection(ReadingLine):
    line = Line.INSPECTION
    arrived = ARRIVED
    done = DONE
    passed = EventType.INSPECTED

    def elsewhere(self, body: Body | None, code: str = Code.OK) -> Verdict:
        """A chip that does not wait for inspection: back to key replacement if that is not done,
        on to sampling if it was drawn, to its stack if it is known where it belongs."""
        if body is None:
            if code != Code.OK:
                return verdict("held", code)
            return verdict("", Code.OK, Line.KEY_REPLACEMENT)
        if body.standing in (Standing.REJECTED, Standing.HELD):
            return verdict(str(body.standing), body.condition)
        if body.place == DRAWN:
            return verdict("", Code.OK, Line.SAMPLING)
        if body.place in AFTER_INSPECTION or body.standing == Standing.SHIPPED:
            return verdict("good" if code == Code.OK else "held", code)
        return verdict("", Code.OK, Line.KEY_REPLACEMENT)
