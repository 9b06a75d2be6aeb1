"""The sampling stage (抽检): the drawn cards of a lot are fed again and read again as at
inspection. Of the others that lie in the stack with them no more than the identity is read.
"""

from __future__ import annotations

from actors.chip_line import Outcome, Prepared, verdict
from actors.hsm.replacement_script import identity_steps
from actors.qa.reading import Facts, ReadingLine, Session
from domain.bodies import Body
from domain.card.segment import Answers, Segment
from domain.changes import EventType
from domain.codes import Code
from domain.places import AFTER_INSPECTION, DRAWN, READ_AGAIN, Line, Standing, transit
from domain.turns import NoAnswer, Opening, StationTurn, Verdict

_WAITS_FOR_INSPECTION = transit(Line.KEY_REPLACEMENT, Line.INSPECTION)


class SampleReading(ReadingLine):
    line = Line.SAMPLING
    arrived = DRAWN
    done = READ_AGAIN
    passed = EventType.SAMPLE_PASSED

    def open(
        self, turn: StationTurn, content: Opening | NoAnswer, facts: Facts
    ) -> Prepared[Session]:
        if isinstance(content, NoAnswer):
            return super().open(turn, content, facts)
        segment = Segment(tuple(identity_steps(self._profile)))
        session = Session(segment, "identity", b"", content)
        return Prepared(lambda _a, _w: Outcome(segment, session))

    def go_on(
        self, turn: StationTurn, session: Session, answers: Answers, facts: Facts
    ) -> Prepared[Session]:
        if session.go_on != "identity":
            return super().go_on(turn, session, answers, facts)
        code = self.code(session, answers)
        if code is None:
            return self.unreadable(session.look, facts, Code.CHIP_UNREADABLE)
        body = facts.identified[code].body
        if body is None or body.place != DRAWN:
            return Prepared(lambda _a, _w: Outcome(self.elsewhere(body)))
        return self.begin_reading(session.look)

    def elsewhere(self, body: Body | None, code: str = Code.OK) -> Verdict:
        """A chip that is not in the sample: to its stack untouched. One that did not come so far
        yet goes to the stage that waits for it."""
        if body is None:
            return verdict("held", Code.NOT_IN_RETURN if code == Code.OK else code)
        if body.standing in (Standing.REJECTED, Standing.HELD):
            return verdict(str(body.standing), body.condition)
        if body.place in AFTER_INSPECTION or body.standing == Standing.SHIPPED:
            return verdict("good" if code == Code.OK else "held", code)
        if body.place == _WAITS_FOR_INSPECTION:
            return verdict("", Code.OK, Line.INSPECTION)
        return verdict("", Code.OK, Line.KEY_REPLACEMENT)
