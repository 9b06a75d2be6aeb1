"""Turns on the wire and in `domain.turns`, in pairs.

What comes from a station may be anything that parses; `NotATurn` says that it is no turn.
"""

from __future__ import annotations

from domain.card.segment import Answers, Segment, Step, StepAnswer
from domain.turns import (
    CentreTurn,
    Content,
    NoAnswer,
    Opening,
    Restart,
    StationTurn,
    Verdict,
    Wait,
)
from stubs import station_pb2 as pb


class NotATurn(ValueError):
    """A message that names no presentation or stage, or has no content."""


def station_turn_from_wire(turn: pb.StationTurn) -> StationTurn:
    """Raises NotATurn."""
    content: Opening | NoAnswer | Answers
    match turn.WhichOneof("content"):
        case "opening":
            o = turn.opening
            content = Opening(o.atr, o.carton_id, o.face_number, o.ticket)
        case "no_answer":
            n = turn.no_answer
            content = NoAnswer(n.carton_id, n.face_number, n.ticket)
        case "answers":
            steps = tuple(StepAnswer(s.status_word, s.data) for s in turn.answers.steps)
            content = Answers(steps, turn.answers.broken)
        case _:
            raise NotATurn("a turn without content")
    if not turn.presentation or not turn.stage:
        raise NotATurn("a turn without presentation or stage")
    return StationTurn(
        turn.station_id, turn.reader, turn.presentation, turn.number, turn.stage, content
    )


def station_turn_to_wire(turn: StationTurn) -> pb.StationTurn:
    wire = pb.StationTurn(
        station_id=turn.station_id,
        reader=turn.reader,
        presentation=turn.presentation,
        number=turn.number,
        stage=turn.stage,
    )
    match turn.content:
        case Opening(atr, carton_id, face_number, ticket):
            opening = pb.Opening(
                atr=atr, carton_id=carton_id, face_number=face_number, ticket=ticket
            )
            wire.MergeFrom(pb.StationTurn(opening=opening))
        case NoAnswer(carton_id, face_number, ticket):
            no_answer = pb.NoAnswer(carton_id=carton_id, face_number=face_number, ticket=ticket)
            wire.MergeFrom(pb.StationTurn(no_answer=no_answer))
        case Answers(steps, broken):
            answers = pb.Answers(
                steps=[pb.StepAnswer(status_word=s.status_word, data=s.data) for s in steps],
                broken=broken,
            )
            wire.MergeFrom(pb.StationTurn(answers=answers))
    return wire


def centre_turn_to_wire(turn: CentreTurn) -> pb.CentreTurn:
    wire = pb.CentreTurn(
        presentation=turn.presentation,
        number=turn.number,
        stage=turn.stage,
        batch_id=turn.batch_id,
    )
    match turn.content:
        case Segment(steps, writes):
            segment = pb.Segment(
                steps=[pb.Step(apdu=s.apdu, expect=s.expect, name=s.name) for s in steps],
                writes=writes,
            )
            wire.MergeFrom(pb.CentreTurn(segment=segment))
        case Verdict(next_stage, stack, code):
            verdict = pb.Verdict(next_stage=next_stage, stack=stack, code=code)
            wire.MergeFrom(pb.CentreTurn(verdict=verdict))
        case Restart(code):
            wire.MergeFrom(pb.CentreTurn(restart=pb.Restart(code=code)))
        case Wait(milliseconds, code):
            wire.MergeFrom(pb.CentreTurn(wait=pb.Wait(milliseconds=milliseconds, code=code)))
    return wire


def centre_turn_from_wire(turn: pb.CentreTurn) -> CentreTurn:
    """Raises NotATurn."""
    content: Content
    match turn.WhichOneof("content"):
        case "segment":
            steps = tuple(Step(s.name, s.apdu, tuple(s.expect)) for s in turn.segment.steps)
            content = Segment(steps, turn.segment.writes)
        case "verdict":
            v = turn.verdict
            content = Verdict(v.next_stage, v.stack, v.code)
        case "restart":
            content = Restart(turn.restart.code)
        case "wait":
            content = Wait(turn.wait.milliseconds, turn.wait.code)
        case _:
            raise NotATurn("a turn without content")
    return CentreTurn(turn.presentation, turn.number, turn.stage, content, turn.batch_id)
