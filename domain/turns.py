"""Turns of chip sessions between a station and a line (see `proto/station.proto`)."""

from __future__ import annotations

from dataclasses import dataclass

from domain.card.segment import Answers, Segment


@dataclass(frozen=True)
class Opening:
    """`carton_id` and `face_number` as the station's scanner sees them on carton and card.
    `ticket` is the feeder's mark of the card that lies there, its own while on the machine."""

    atr: bytes
    carton_id: str
    face_number: str
    ticket: str = ""


@dataclass(frozen=True)
class NoAnswer:
    """The chip stayed silent through three power-ons with re-seat."""

    carton_id: str
    face_number: str
    ticket: str = ""


@dataclass(frozen=True)
class StationTurn:
    """(presentation, number) names a turn: sent again, it gets the same answer."""

    station_id: str
    reader: str
    presentation: str
    number: int
    stage: str
    content: Opening | NoAnswer | Answers


@dataclass(frozen=True)
class Verdict:
    """The session is over. `next_stage`: re-power and open that stage; empty: eject to `stack`
    (good, rejected, held). `code` is OK or the reason."""

    next_stage: str
    stack: str
    code: str


@dataclass(frozen=True)
class Restart:
    code: str


@dataclass(frozen=True)
class Wait:
    milliseconds: int
    code: str


Content = Segment | Verdict | Restart | Wait


@dataclass(frozen=True)
class CentreTurn:
    """The answer to the turn `number`. `batch_id`: of the card's carton, as far as it is known,
    for the station's log."""

    presentation: str
    number: int
    stage: str
    content: Content
    batch_id: str = ""
