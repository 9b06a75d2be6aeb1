"""Readers that hang, fail or go away: noticed, told, kept from the others, and taken back."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from domain.codes import Code
from station_agents.journal import read_journal
from station_agents.virtual.pcscd import Pcscd
from station_agents.virtual.tray_process import TrayProcess
from stubs import station_pb2 as pb
from tests.agent.floor import (
    SELECTING,
    AgentProcess,
    ScriptedCentre,
    answered,
    openings,
    segment,
    tray_of,
    verdict,
    words,
)
from tests.agent.scripted_chip import ScriptedChip
from tests.virtual.floor import READ_NAME, SELECT, card_line, write_tray

QUICK = ["--card-seconds", "0.1"]
IMPATIENT = [*QUICK, "--hang-seconds", "0.4"]
READING = segment((SELECT, "9000"), (READ_NAME, "9000"), (READ_NAME, "9000"), writes=True)


def test_a_reader_that_hangs_holds_nobody_up(
    service: Pcscd, short_directory: Path, free_port: Callable[[], int]
) -> None:
    """In the midst of a writing segment a reader swallows a command. After the limit its session
    is told as broken with the steps that were answered, the journal says so, the reader stands in
    quarantine; the other one takes all other cards meanwhile. Plugged in again, the same chip is
    opened anew and finished; what is counted says one hang."""
    first = service.readers[0]
    hanging = threading.Event()

    def script(turn: pb.StationTurn) -> pb.CentreTurn | None:
        if turn.reader == first and not hanging.is_set():
            tray.ask("hang", reader=0, after=1)
            hanging.set()
        if turn.answers.broken:
            return pb.CentreTurn(restart=pb.Restart(code="OK"))
        return verdict() if turn.number else READING

    cards = [card_line(n) for n in range(6)]
    with (
        tray_of(service, short_directory, *cards) as tray,
        ScriptedCentre(free_port(), script) as centre,
        AgentProcess(
            service, tray.control, centre.address, short_directory, readers=2, arguments=IMPATIENT
        ) as agent,
    ):
        centre.until_told(Code.READER_QUARANTINED, [first])
        broken = centre.until(lambda turns: [t for t in turns if t.answers.broken])
        assert [(t.reader, t.answers.broken, words(t)) for t in broken] == [
            (first, "unknown", [0x9000])
        ]
        centre.until(lambda _: [n for n in centre.news if n.code == Code.FEEDER_EMPTY])
        assert tray.ask("status")["stacks"]["good"] == 5
        (entry,) = (e for e in read_journal(agent.journal) if e.get("broken"))
        assert entry["finished"] == [broken[0].presentation, "key_replacement", 1]
        assert entry["status_words"] == ["9000"]
        tray.ask("replug", reader=0)
        again = centre.until(lambda turns: [t for t in answered(turns) if t.reader == first][1:])
        assert words(again[0]) == [0x9000] * 3
        centre.until(
            lambda _: [n for n in centre.news if (n.reader, n.code) == (first, Code.FEEDER_EMPTY)]
        )
        opened = [t.opening.face_number for t in openings(centre.turns) if t.reader == first]
        assert opened == [cards[0]["face_number"]] * 2
        assert agent.stop() == 0
    (counted,) = (e for e in agent.events() if e["event"] == "reader.statistics"
                  and e["reader"] == first)  # fmt: skip
    assert (counted["hangs"], counted["broken"], counted["cards"]) == (1, 1, 1)
    assert counted["apdus"] == 4


def test_an_answer_that_comes_too_late_counts_for_nothing(
    service: Pcscd, short_directory: Path, free_port: Callable[[], int]
) -> None:
    """A chip gives its answer after it was given up: the centre hears nothing of it, the chip is
    opened anew. An agent that is told to stop does not wait for a reader that hangs."""
    late = threading.Event()
    slow = bytes.fromhex("00b2013400")
    step = pb.CentreTurn(segment=pb.Segment(steps=[pb.Step(apdu=slow, expect=["9000"])]))
    tray_file = write_tray(short_directory / "tray-1.jsonl", [card_line(0)])
    with (
        ScriptedChip(service.addresses[0], {slow: b"\x90\x00"}, {slow: late}) as chip,
        # Only the feeder is the tray's: its chip answers in the other reader.
        TrayProcess([tray_file], service.addresses[1:], short_directory / "tray.sock") as tray,
        ScriptedCentre(free_port(), lambda t: None if t.answers.broken else step) as centre,
        AgentProcess(
            service, tray.control, centre.address, short_directory, arguments=IMPATIENT
        ) as agent,
    ):
        centre.until_told(Code.READER_QUARANTINED, service.readers[:1])
        late.set()
        turns = centre.until(lambda turns: turns if len(openings(turns)) == 2 else None)
        given_up = answered(turns)[0]
        assert (given_up.answers.broken, words(given_up)) == ("unknown", [])
        assert turns[0].presentation != turns[-1].presentation
        late.clear()
        centre.until(lambda _: len(chip.received) >= 2)
        assert agent.stop() == 0


def test_a_card_pulled_between_any_two_commands_is_read_anew(
    service: Pcscd, short_directory: Path, free_port: Callable[[], int]
) -> None:
    """Wherever a card is pulled, exactly the steps before it are told, as broken; the same card is
    opened anew, and nothing is ejected without a verdict."""
    steps = [(SELECT, "9000"), (READ_NAME, "9000"), (READ_NAME, "9000"), (READ_NAME, "9000")]
    cuts = list(range(len(steps)))

    def script(turn: pb.StationTurn) -> pb.CentreTurn | None:
        if turn.number == 0 and cuts:
            tray.ask("cut", reader=0, command=cuts.pop(0) + 1, executed=False)
        if turn.answers.broken:
            return None
        return verdict() if turn.number else segment(*steps)

    with (
        tray_of(service, short_directory, card_line(0)) as tray,
        ScriptedCentre(free_port(), script) as centre,
        AgentProcess(service, tray.control, centre.address, short_directory) as agent,
    ):
        centre.until_told(Code.FEEDER_EMPTY, service.readers[:1])
        told = [(len(words(t)), bool(t.answers.broken)) for t in answered(centre.turns)]
        assert told == [(0, True), (1, True), (2, True), (3, True), (4, False)]
        assert tray.ask("status")["stacks"]["good"] == 1
        assert agent.stop() == 0


def test_silent_chips_in_a_row_set_their_reader_apart(
    service: Pcscd, short_directory: Path, free_port: Callable[[], int]
) -> None:
    """Chips that give no answer one after another in one reader, while another reader has one that
    does: the third is not told as silent, and stays. A replug takes the reader back, and the card
    that lay there is opened again."""
    first, second = service.readers
    seen = threading.Event()

    def script(turn: pb.StationTurn) -> pb.CentreTurn:
        if turn.WhichOneof("content") == "no_answer":
            if turn.reader == second:
                seen.set()
            return verdict("rejected")
        # The neighbour's chip gets its verdict after the first silent one.
        return verdict() if seen.is_set() else pb.CentreTurn(wait=pb.Wait(milliseconds=20))

    cards = [card_line(n, silent=n != 0) for n in range(8)]
    with (
        tray_of(service, short_directory, *cards) as tray,
        ScriptedCentre(free_port(), script) as centre,
        AgentProcess(
            service, tray.control, centre.address, short_directory, readers=2, arguments=QUICK
        ) as agent,
    ):
        centre.until_told(Code.READER_QUARANTINED, [second])
        count = sum(t.reader == second for t in centre.turns)
        assert count == 2
        lying = tray.ask("look", reader=1)["face_number"]
        service.kill()
        service.readers = service.readers[:1]
        service.start()
        centre.until_told(Code.PCSC_AWAY, [first])
        service.kill()
        service.readers = [first, second]
        service.start()
        again = centre.until(lambda turns: [t for t in turns if t.reader == second][2:])
        assert again[0].no_answer.face_number == lying
        assert not any(n.code == Code.READER_QUARANTINED for n in centre.news if n.reader == first)
        assert agent.stop() == 0


def test_a_reader_that_is_unplugged_is_waited_for(
    service: Pcscd, short_directory: Path, free_port: Callable[[], int]
) -> None:
    """The service forgets a reader: that one is told as away, the other one works on; when the
    reader is known again its card is opened anew and finished."""
    first, second = service.readers
    parked = threading.Event()

    def script(turn: pb.StationTurn) -> pb.CentreTurn:
        if turn.answers.broken:
            return pb.CentreTurn(restart=pb.Restart(code="OK"))
        if not parked.is_set():
            return pb.CentreTurn(wait=pb.Wait(milliseconds=20))
        return verdict() if turn.number else SELECTING

    cards = [card_line(n) for n in range(4)]
    with (
        tray_of(service, short_directory, *cards) as tray,
        ScriptedCentre(free_port(), script) as centre,
        AgentProcess(service, tray.control, centre.address, short_directory, readers=2) as agent,
    ):
        centre.until(lambda turns: len({t.reader for t in turns}) == 2)
        service.kill()
        service.readers = [first]
        service.start()
        parked.set()
        centre.until_told(Code.READER_AWAY, [second])
        centre.until(lambda _: tray.ask("status")["stacks"]["good"] == 3)
        service.kill()
        service.readers = [first, second]
        service.start()
        centre.until(lambda turns: [t for t in answered(turns) if t.reader == second and words(t)])
        centre.until(lambda _: tray.ask("status")["stacks"]["good"] == 4)
        assert agent.stop() == 0
