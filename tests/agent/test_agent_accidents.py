"""Whatever dies beside the agent, or the agent itself: the chip stays, and work goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from domain.codes import Code
from station_agents.journal import read_journal
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
from tests.virtual.floor import (
    GET_CHALLENGE,
    GET_KEYS,
    MK,
    READ_NAME,
    SELECT,
    card_line,
    external_authenticate,
    key_of,
    write_key,
)

NEW_KEY = bytes(range(16))


class Held:
    """A script that keeps the first answers back until `go`, and then gives a verdict after one
    segment."""

    def __init__(self, answer: pb.CentreTurn) -> None:
        self.answer = answer
        self.going = threading.Event()

    def __call__(self, turn: pb.StationTurn) -> pb.CentreTurn | None:
        if not self.going.is_set():
            return None
        if turn.answers.broken:
            return pb.CentreTurn(restart=pb.Restart(code="OK"))
        return verdict() if turn.number else self.answer


def test_unanswered_turn_is_sent_again_to_a_new_centre(
    service: Pcscd, short_directory: Path, free_port: Callable[[], int]
) -> None:
    """The centre is killed before it answers: the agent connects again and sends the same turn,
    byte for byte, once; the chip was neither moved nor powered off meanwhile."""
    taken: list[pb.StationTurn] = []

    def script(turn: pb.StationTurn) -> pb.CentreTurn | None:
        taken.append(turn)
        if turn.number == 0:
            return SELECTING
        if turn.number == 1:
            first = sum(t.number == 1 for t in taken) == 1
            return None if first else segment((READ_NAME, "9000"))
        return verdict()

    cards = [card_line(n) for n in range(3)]
    with (
        tray_of(service, short_directory, *cards) as tray,
        ScriptedCentre(free_port(), until_card(2, script)) as centre,
        AgentProcess(service, tray.control, centre.address, short_directory) as agent,
    ):
        centre.until(lambda turns: answered(turns))
        centre.kill()
        centre.start()
        turns = centre.until(lambda turns: turns if len(turns) == 5 else None)
        assert [t.number for t in turns] == [0, 1, 1, 2, 0]
        assert turns[1].SerializeToString() == turns[2].SerializeToString()
        assert words(turns[3]) == [0x9000]  # the selection of turn 0 still held
        assert agent.stop() == 0


def test_segment_in_hand_is_finished_while_the_centre_is_away(
    service: Pcscd, short_directory: Path, free_port: Callable[[], int]
) -> None:
    """The centre dies right after it sent a segment: the agent runs it, keeps the chip, and its
    answers reach the next centre."""
    centre = ScriptedCentre(free_port(), lambda turn: verdict())
    long = segment((SELECT, "9000"), *[(READ_NAME, "9000")] * 2_000)
    centre.script = lambda turn: long if turn.number == 0 else None
    cards = [card_line(n) for n in range(2)]
    with (
        tray_of(service, short_directory, *cards) as tray,
        centre,
        AgentProcess(service, tray.control, centre.address, short_directory) as agent,
    ):
        centre.until(openings)
        centre.kill()
        centre.turns.clear()
        centre.start()
        turn = centre.until(lambda turns: turns[0] if turns else None)
        if turn.number == 0:  # killed before the segment was on its way
            turn = centre.until(answered)[0]
        assert words(turn) == [0x9000] * 2_001
        assert tray.ask("status")["stacks"] == {"good": 0, "rejected": 0, "held": 0}
        assert agent.stop() == 0


def test_agent_goes_on_after_pcscd_was_killed(
    service: Pcscd, short_directory: Path, free_port: Callable[[], int]
) -> None:
    """pcscd is killed under a parked chip and started again: the segment that meets it is told
    as broken, both chips are opened anew and finished; no chip was ejected without a verdict.
    Turns that are sent again together share one message."""
    script = Held(SELECTING)
    cards = [card_line(n) for n in range(4)]
    with (
        tray_of(service, short_directory, *cards) as tray,
        ScriptedCentre(free_port(), script) as centre,
        AgentProcess(service, tray.control, centre.address, short_directory, readers=2) as agent,
    ):
        before = centre.until(lambda turns: list(turns) if len(openings(turns)) == 2 else None)
        service.kill()
        # The parked turns reach the centre again and get their segments, without a PC/SC service.
        script.going.set()
        centre.kill()
        centre.start()
        centre.until(lambda turns: sum(t.answers.broken == "reader" for t in turns) == 2)
        centre.until_told(Code.PCSC_AWAY, service.readers)
        assert tray.ask("status")["stacks"] == {"good": 0, "rejected": 0, "held": 0}
        service.start()
        good = centre.until(
            lambda turns: g if len(g := [t for t in answered(turns) if words(t)]) == 4 else None
        )
        assert centre.largest_message == 2
        assert all(words(t) == [0x9000] and not t.answers.broken for t in good)
        assert {t.presentation for t in good}.isdisjoint(t.presentation for t in before)
        faces = {t.opening.face_number for t in openings(centre.turns)}
        assert faces == {card["face_number"] for card in cards}
        assert agent.stop() == 0


def test_agent_goes_on_after_the_tray_was_killed(
    service: Pcscd, short_directory: Path, free_port: Callable[[], int]
) -> None:
    """The tray dies under a parked chip: the segment that meets it is told as broken, and when
    the tray is back the same card is opened anew and finished. It is not taken for silent."""
    script = Held(SELECTING)
    cards = [card_line(n) for n in range(3)]
    with (
        tray_of(service, short_directory, *cards) as tray,
        ScriptedCentre(free_port(), until_card(2, script)) as centre,
        AgentProcess(service, tray.control, centre.address, short_directory) as agent,
    ):
        centre.until(openings)
        tray.kill()
        script.going.set()
        centre.kill()
        centre.start()
        broken = centre.until(lambda turns: [t for t in turns if t.answers.broken])
        assert words(broken[0]) == []
        centre.until_told(Code.FEEDER_AWAY, service.readers[:1])
        tray.start()
        turns = centre.until(
            lambda turns: turns if turns[-1].opening.face_number[-1:] == "2" else 0
        )
        assert [t.WhichOneof("content") for t in turns].count("no_answer") == 0
        assert [t.opening.face_number for t in turns[-3:] if t.number == 0] == [
            cards[0]["face_number"], cards[2]["face_number"],
        ]  # fmt: skip
        assert tray.ask("status")["stacks"]["good"] == 1
        assert agent.stop() == 0


def test_verdict_is_carried_out_after_the_tray_came_back(
    service: Pcscd, short_directory: Path, free_port: Callable[[], int]
) -> None:
    """The tray dies before the eject: the eject waits for it and moves one card, that one."""
    tray_died = threading.Event()

    def script(turn: pb.StationTurn) -> pb.CentreTurn:
        tray.kill()
        tray_died.set()
        return verdict("held")

    cards = [card_line(n) for n in range(3)]
    with (
        tray_of(service, short_directory, *cards) as tray,
        ScriptedCentre(free_port(), until_card(2, script)) as centre,
        AgentProcess(service, tray.control, centre.address, short_directory) as agent,
    ):
        assert tray_died.wait(30)
        tray.start()
        centre.until(lambda turns: len(turns) == 2)
        assert tray.ask("status")["stacks"] == {"good": 0, "rejected": 0, "held": 1}
        assert agent.stop() == 0


class KeyWriter:
    """A centre that writes one key of each chip by an authenticated segment and a writing one,
    and asks a chip that comes back for its key versions."""

    def __init__(self) -> None:
        self.key = key_of(card_line(0), MK)
        self.asking = False

    def __call__(self, turn: pb.StationTurn) -> pb.CentreTurn:
        if self.asking:
            return verdict() if turn.number else segment((SELECT, "9000"), (GET_KEYS, "9000"))
        challenge = turn.answers.steps[-1].data if turn.number else b""
        match turn.number:
            case 0:
                return segment((SELECT, "9000"), (GET_CHALLENGE, "9000"))
            case 1:
                proof = external_authenticate(MK, self.key, challenge)
                return segment((proof, "9000"), (GET_CHALLENGE, "9000"))
            case _:
                write = write_key(MK, 1, self.key, NEW_KEY, challenge)
                return segment((write, "9000"), (GET_CHALLENGE, "9000"), writes=True)


@pytest.mark.parametrize(
    ("state", "written", "finished"),
    [("write.before", False, False), ("write.within", True, False), ("segment.after", True, True)],
)
def test_agent_killed_around_a_write(
    service: Pcscd,
    short_directory: Path,
    free_port: Callable[[], int],
    state: str,
    written: bool,
    finished: bool,
) -> None:
    """The agent is killed (SIGKILL) before, within and after a segment that writes: the journal
    names the released segment by its steps and no data; a new agent opens the same chip, which is
    found as the last command left it."""
    script = KeyWriter()
    dying = "segment.after.write" if finished else state
    with (
        tray_of(service, short_directory, card_line(0), card_line(1)) as tray,
        ScriptedCentre(free_port(), script) as centre,
    ):
        with AgentProcess(
            service, tray.control, centre.address, short_directory, die_at=dying
        ) as agent:
            assert agent.wait() == -9
        presentation = centre.turns[0].presentation
        entries = list(read_journal(agent.journal))
        assert entries[0]["released"] == [presentation, "key_replacement", 3]
        assert entries[0]["steps"] == ["step 0", "step 1"]
        assert len(entries) == 1 + finished
        if finished:
            assert entries[1]["finished"] == [presentation, "key_replacement", 3]
            assert entries[1]["status_words"] == ["9000", "9000"]
        assert max(t.number for t in centre.turns) == 2  # the answers were never sent
        script.asking = True
        count = len(centre.turns)
        with AgentProcess(service, tray.control, centre.address, short_directory) as agent:
            turns = centre.until(lambda turns: turns if len(turns) == count + 2 else None)
            assert turns[count].presentation != presentation
            assert turns[count].opening == turns[0].opening
            versions = turns[count + 1].answers.steps[1].data
            assert bytes((0xC0, 8, MK, 1 if written else 0)) in versions
            assert agent.stop() == 0
        assert list(read_journal(agent.journal)) == entries


def test_stopping_leaves_the_chip_where_it_lies(
    service: Pcscd, short_directory: Path, free_port: Callable[[], int]
) -> None:
    """SIGTERM while a segment runs: it is finished and its answers are sent, the card is not
    ejected, exit 0. Neither log nor journal holds a byte of the chip's data."""
    long = segment((SELECT, "9000"), *[(READ_NAME, "9000")] * 4_000, writes=True)
    cards = [card_line(n) for n in range(2)]
    with (
        tray_of(service, short_directory, *cards) as tray,
        ScriptedCentre(free_port(), lambda turn: None if turn.number else long) as centre,
        AgentProcess(service, tray.control, centre.address, short_directory) as agent,
    ):
        centre.until(openings)
        assert agent.stop() == 0
        # Told to stop before the segment came, it has none to finish.
        for turn in answered(centre.turns):
            assert words(turn) == [0x9000] * 4_001
            assert list(read_journal(agent.journal))[1]["status_words"][-1] == "9000"
        assert tray.ask("status")["stacks"] == {"good": 0, "rejected": 0, "held": 0}
        assert agent.events()[-1]["event"] == "agent.stopped"
        text = agent.log.read_text() + (agent.journal.read_text() if answered(centre.turns) else "")
        name = str(cards[0]["social"]["records"]["06"]["09"])
        for secret in (name, name.upper(), SELECT.hex(), str(cards[0]["face_number"])):
            assert secret not in text
