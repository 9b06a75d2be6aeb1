"""What the agent does with a chip when nothing fails but the chip."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from domain.codes import Code
from station_agents.virtual.pcscd import Pcscd
from stubs import station_pb2 as pb
from tests.agent.floor import (
    SELECTING,
    AgentProcess,
    ScriptedCentre,
    answered,
    openings,
    segment,
    tray_of,
    until_card,
    verdict,
    words,
)
from tests.virtual.floor import READ_NAME, SELECT, card_line

# Le is not the record's length: the chip answers 6C20, and gives the record when asked again.
READ_NAME_WRONG_LE = READ_NAME[:-1] + b"\x05"


def test_silent_chip_is_reported_with_its_face_number(
    service: Pcscd, short_directory: Path, free_port: Callable[[], int]
) -> None:
    """A chip that stays silent through three power-ons is reported as such, with what is printed
    on it, once; it goes where the verdict says, and the next one is opened."""

    def script(turn: pb.StationTurn) -> pb.CentreTurn | None:
        if turn.WhichOneof("content") == "no_answer":
            return verdict("rejected")
        return None if turn.opening.face_number == last else verdict("good")

    # Card 1 comes to lie in the other reader. The last opening tells that all else is done.
    last = "A00000005"
    cards = [card_line(n, silent=n in (2, 3)) for n in range(6)]
    with (
        tray_of(service, short_directory, *cards) as tray,
        ScriptedCentre(free_port(), script) as centre,
        AgentProcess(service, tray.control, centre.address, short_directory) as agent,
    ):
        turns = centre.until(lambda turns: turns if len(turns) == 5 else None)
        assert [t.WhichOneof("content") for t in turns] == [
            "opening", "no_answer", "no_answer", "opening", "opening",
        ]  # fmt: skip
        assert turns[0].opening.atr.hex().upper() == cards[0]["atr"]
        assert turns[1].no_answer == pb.NoAnswer(
            carton_id="C1", face_number="A00000002", ticket="tray-1/00002"
        )
        assert turns[2].no_answer == pb.NoAnswer(
            carton_id="C1", face_number="A00000003", ticket="tray-1/00003"
        )
        assert turns[3].opening.face_number == "A00000004"
        assert len({t.presentation for t in turns}) == 5
        assert tray.ask("status")["stacks"] == {"good": 2, "rejected": 2, "held": 0}
        assert agent.stop() == 0


def test_segment_stops_at_the_first_unexpected_status_word(
    service: Pcscd, short_directory: Path, free_port: Callable[[], int]
) -> None:
    """Steps run while the status words fit, 6Cxx is followed, nothing is sent after the first
    that does not fit; an expected error word does not stop."""

    def script(turn: pb.StationTurn) -> pb.CentreTurn:
        match turn.number:
            case 0:
                return segment(
                    (SELECT, "9000"),
                    (bytes.fromhex("00B20A3403"), "6A83"),
                    (READ_NAME_WRONG_LE, "9000"),
                    (READ_NAME_WRONG_LE, "6Axx"),
                    (SELECT, "9000"),
                )
            case 1:
                return segment((READ_NAME_WRONG_LE, "9xxx"))
            case _:
                return verdict("held")

    cards = [card_line(n) for n in range(3)]
    with (
        tray_of(service, short_directory, *cards) as tray,
        ScriptedCentre(free_port(), until_card(2, script)) as centre,
        AgentProcess(service, tray.control, centre.address, short_directory) as agent,
    ):
        turns = centre.until(lambda turns: turns if len(turns) == 4 else None)
        assert words(turns[1]) == [0x9000, 0x6A83, 0x9000, 0x9000]
        assert turns[1].answers.steps[2].data[:2] == bytes.fromhex("091E")
        assert not turns[1].answers.broken
        assert words(turns[2]) == [0x9000]
        assert [t.number for t in turns] == [0, 1, 2, 0]
        assert tray.ask("status")["stacks"] == {"good": 0, "rejected": 0, "held": 1}
        assert agent.stop() == 0


def test_next_stage_is_another_presentation_of_a_fresh_chip(
    service: Pcscd, short_directory: Path, free_port: Callable[[], int]
) -> None:
    """A verdict with a next stage powers the chip off and on and opens that stage; the card is
    ejected after the last one only. A stage that this station lacks is done elsewhere."""

    def script(turn: pb.StationTurn) -> pb.CentreTurn:
        if turn.number == 0 and turn.stage == "key_replacement":
            return SELECTING
        if turn.number == 0:
            return segment((READ_NAME, "9000"))
        return verdict(
            next_stage={"key_replacement": "inspection", "inspection": "packing"}[turn.stage],
            stack="",
        )

    with (
        tray_of(service, short_directory, *(card_line(n) for n in range(4))) as tray,
        ScriptedCentre(free_port(), until_card(3, script)) as centre,
        AgentProcess(service, tray.control, centre.address, short_directory) as agent,
    ):
        turns = centre.until(lambda turns: turns if len(turns) == 9 else None)
        assert [(t.stage, t.number) for t in turns[:8]] == 2 * [
            ("key_replacement", 0), ("key_replacement", 1), ("inspection", 0), ("inspection", 1),
        ]  # fmt: skip
        assert len({t.presentation for t in turns[:8]}) == 4
        # The selection of the first stage is gone with the power.
        assert words(turns[3]) == [0x6985]
        assert tray.ask("status")["stacks"]["good"] == 2
        assert agent.stop() == 0


def test_restart_opens_anew_and_wait_asks_again(
    service: Pcscd, short_directory: Path, free_port: Callable[[], int]
) -> None:
    """Restart: the chip is opened again as a new presentation, at the first stage. Wait: the chip
    is kept and the very same turn sent again."""
    answers = iter(
        [
            pb.CentreTurn(restart=pb.Restart(code="SESSION_UNKNOWN")),
            pb.CentreTurn(restart=pb.Restart(code="SESSION_UNKNOWN")),
            pb.CentreTurn(wait=pb.Wait(milliseconds=20, code="BUSY")),
            SELECTING,
            pb.CentreTurn(wait=pb.Wait(milliseconds=20, code="UNAVAILABLE")),
            verdict(),
        ]
    )
    with (
        tray_of(service, short_directory, *(card_line(n) for n in range(3))) as tray,
        ScriptedCentre(free_port(), until_card(2, lambda turn: next(answers))) as centre,
        AgentProcess(service, tray.control, centre.address, short_directory) as agent,
    ):
        turns = centre.until(lambda turns: turns if len(turns) == 7 else None)
        assert [t.number for t in turns] == [0, 0, 0, 0, 1, 1, 0]
        assert len({t.presentation for t in turns[:3]}) == 3
        assert turns[2] == turns[3]
        assert turns[4] == turns[5]
        assert tray.ask("status")["stacks"]["good"] == 1
        assert agent.stop() == 0


def test_two_readers_side_by_side(
    service: Pcscd, short_directory: Path, free_port: Callable[[], int]
) -> None:
    """Two readers share one stream and each chip goes its own way; an empty hopper is waited for
    without an end and said to the centre, and a card fed later is opened."""

    def script(turn: pb.StationTurn) -> pb.CentreTurn:
        return verdict("good") if turn.number else SELECTING

    cards = [card_line(n) for n in range(6)]
    with (
        tray_of(service, short_directory, *cards) as tray,
        ScriptedCentre(free_port(), script) as centre,
        AgentProcess(service, tray.control, centre.address, short_directory, readers=2) as agent,
    ):
        centre.until(lambda turns: len(answered(turns)) == 6)
        # The last of each reader may not be on its stack yet; the other four are fed again.
        tray.ask("feed", stack="good")
        centre.until(lambda turns: len(answered(turns)) >= 10)
        centre.until_told(Code.FEEDER_EMPTY, service.readers)
        faces = [t.opening.face_number for t in openings(centre.turns)]
        assert sorted(faces[:6]) == [card["face_number"] for card in cards]
        assert {t.reader for t in centre.turns} == set(service.readers)
        assert all(words(t) == [0x9000] for t in answered(centre.turns))
        assert agent.stop() == 0
