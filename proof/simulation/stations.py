"""Stations, simulated turn by turn as `station_agents.session` works: a chip is opened, segment and
answers follow in turn, and only a verdict ejects it. They can lose their power at any APDU.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from domain.card.apdu import is_expected
from domain.card.segment import Answers, Segment, StepAnswer
from domain.turns import (
    CentreTurn,
    NoAnswer,
    Opening,
    Restart,
    StationTurn,
    Verdict,
    Wait,
)
from proof.simulation.actors import Nursery
from proof.simulation.faults import Faults
from proof.simulation.gateway import Gateway
from proof.simulation.plastic import Card, Feeder

ANSWER_SECONDS = 60.0
APDU_SECONDS = 0.02
PATIENCE_SECONDS = 300.0
CARD_SECONDS = 2.0
"""What it takes to lay the next card in."""

Told = Callable[[Card, str, Verdict], None]
"""Called with each verdict that a station gets, and the stage of its session."""


class Again(Exception):
    """This presentation is over without a verdict: open the chip again."""


class ScanAgain(Again):
    """Somebody wonders why a card waits for so long, and scans its carton anew."""


@dataclass
class _Asked:
    turn: StationTurn
    answer: asyncio.Future[CentreTurn]


class Station:
    """`stages` in working order; a chip is opened at the first."""

    def __init__(
        self, name: str, feeder: Feeder, stages: Sequence[str], gateway: Gateway, faults: Faults,
        told: Told, wrong_carton: Callable[[Card], str],
    ) -> None:  # fmt: skip
        self.name, self.feeder, self._stages = name, feeder, stages
        self._gateway, self._faults = gateway, faults
        self._told, self._wrong_carton = told, wrong_carton
        self._asked: dict[str, _Asked] = {}
        self._readers, self._mains = Nursery(), Nursery()
        self.elsewhere: Callable[[Card], None] = feeder.feed
        """Where somebody feeds a card again that was taken out of a dead station."""
        self._start()

    def _start(self) -> None:
        for reader in range(len(self.feeder.lying)):
            self._readers.spawn(self._run(reader))

    async def lose_power(self) -> None:
        """The agent is gone and all chips are without power. Later it starts again: the cards lie
        in the readers, or somebody took them out meanwhile and feeds them elsewhere."""
        self._faults.trace.fault("station without power", self.name)
        await self._readers.kill()
        self._asked.clear()
        for reader, card in enumerate(self.feeder.lying):
            if card is not None:
                card.chip.power_off()
                if self._faults.chance(0.3):
                    self._faults.trace.note(self.name, "a card is taken out by hand", card.ticket)
                    self.feeder.take_out(reader)
                    self.elsewhere(card)
        await asyncio.sleep(self._faults.random.uniform(1.0, 60.0))
        self._start()

    async def close(self) -> None:
        await self._mains.kill()
        await self._readers.kill()

    async def _run(self, reader: int) -> None:
        while True:
            card = await self.feeder.card(reader)
            await asyncio.sleep(CARD_SECONDS)
            stack = await self._serve(reader, card)
            self.feeder.eject(reader, stack)

    async def _serve(self, reader: int, card: Card) -> str:
        """From its opening to a stack."""
        carton_id = card.plastic.carton_id
        if self._faults.chance(self._faults.rates.scan):
            carton_id = self._wrong_carton(card)
            self._faults.trace.fault("wrong carton scanned", self.name, carton_id, card.ticket)
        stage, pause = self._stages[0], 0.05
        while True:
            try:
                verdict = await self._present(reader, card, stage, carton_id)
            except Again as e:
                self._faults.trace.note(self.name, f"opens it again: {e}", card.ticket)
                stage = self._stages[0]
                if isinstance(e, ScanAgain):
                    carton_id = card.plastic.carton_id
                await asyncio.sleep(pause)
                pause = min(2 * pause, 2.0)
                continue
            self._faults.trace.note(
                self.name, f"{stage}: {verdict.code} {verdict.stack}{verdict.next_stage}",
                card.ticket, card.code,
            )  # fmt: skip
            self._told(card, stage, verdict)
            if verdict.next_stage not in self._stages:
                return verdict.stack or "good"
            stage = verdict.next_stage

    async def _present(self, reader: int, card: Card, stage: str, carton_id: str) -> Verdict:
        presentation = self._faults.random.randbytes(8).hex()
        atr, face = card.chip.power_on(), card.plastic.face_number
        card.answered[presentation] = asyncio.get_running_loop().time()
        content: Opening | NoAnswer | Answers = (
            Opening(atr, carton_id, face, card.ticket)
            if atr
            else NoAnswer(carton_id, face, card.ticket)
        )
        number, waits, since = 0, "", 0.0
        while True:
            turn = StationTurn(self.name, f"R{reader}", presentation, number, stage, content)
            reply = (await self._ask(turn, card)).content
            match reply:
                case Verdict():
                    return reply
                case Restart(code):
                    raise Again(code)
                case Wait(milliseconds, code):
                    if code != waits:
                        waits = code
                        self._faults.trace.note(self.name, f"waits: {code}", card.ticket, card.code)
                        since = asyncio.get_running_loop().time()
                    elif asyncio.get_running_loop().time() - since > PATIENCE_SECONDS:
                        raise ScanAgain(f"{code}: its carton is scanned anew")
                    await asyncio.sleep(max(milliseconds / 1000, 0.01))
                case Segment():
                    content = await self._run_segment(reply, turn, card)
                    number += 1

    async def _ask(self, turn: StationTurn, card: Card) -> CentreTurn:
        """The same turn again until it is answered."""
        while True:
            asked = _Asked(turn, asyncio.get_running_loop().create_future())
            self._asked[turn.presentation] = asked
            self._gateway.send(turn, self._take, card.ticket, card.code)
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    return await asked.answer
            except TimeoutError:
                continue

    def _take(self, reply: CentreTurn) -> None:
        asked = self._asked.get(reply.presentation)
        if asked is None or asked.answer.done():
            return
        if (asked.turn.number, asked.turn.stage) == (reply.number, reply.stage):
            asked.answer.set_result(reply)

    async def _run_segment(self, segment: Segment, turn: StationTurn, card: Card) -> Answers:
        """What the chip answered. Raises Again when the reader breaks off."""
        cut, kind, executed = 0, "", False
        random = self._faults.random
        if self._faults.chance(self._faults.rates.apdu):
            cut = random.randint(1, len(segment.steps))
            kind = random.choice(("reader breaks off", "chip unseen without power", "power cut"))
            executed = random.random() < 0.5
            where = f"{'after' if executed else 'before'} {segment.steps[cut - 1].name}"
            self._faults.trace.fault(kind, self.name, where, card.ticket, card.code)
        done: list[StepAnswer] = []
        broke_off = False
        for number, step in enumerate(segment.steps, start=1):
            if number == cut and kind == "chip unseen without power":
                card.chip.power_on()
            elif number == cut:
                if executed:
                    card.chip.process(step.apdu)
                card.chip.power_off()
                broke_off = True
                break
            answer = card.chip.process(step.apdu)
            card.answered[turn.presentation] = asyncio.get_running_loop().time()
            done.append(StepAnswer(int.from_bytes(answer[-2:], "big"), answer[:-2]))
            if not is_expected(done[-1].status_word, step.expect):
                break
        await asyncio.sleep(APDU_SECONDS * max(1, len(done)))
        if not broke_off:
            return Answers(tuple(done))
        if kind == "power cut":
            self._mains.spawn(self.lose_power())
            await asyncio.get_running_loop().create_future()  # until this task is killed
        content = Answers(tuple(done), "reader")
        following = StationTurn(
            self.name, turn.reader, turn.presentation, turn.number + 1, turn.stage, content
        )
        self._gateway.send(following, self._take, card.ticket, card.code)
        raise Again(kind)
