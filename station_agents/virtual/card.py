"""A chip: power, the dispatch of commands to the selected application, and memory on file.

What an application does is in its own module; each is an `Application`. A loss of power between
any two commands leaves either the old memory or the new one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final, Protocol

from domain.card.apdu import SW
from domain.card.profile import Profile
from station_agents.virtual.command import Command, StatusError, parse
from station_agents.virtual.financial import FinancialApplication
from station_agents.virtual.memory import CardMemory, Change
from station_agents.virtual.social import SocialApplication


class Application(Protocol):
    """One application of a chip. Whatever it remembers outside its memory ends with `forget`."""

    @property
    def aids(self) -> Collection[bytes]:
        """The names by which it is selected, its own and those of its DFs."""
        ...

    def select(self, aid: bytes) -> bytes:
        """The application was selected by one of `aids`; its file control information. Raises
        StatusError."""
        ...

    def process(self, command: Command) -> bytes:
        """The data of the answer to a command other than SELECT by name. Raises StatusError."""
        ...

    def interrupt(self) -> None:
        """A command came that no application was asked for (not an APDU, an unknown name)."""
        ...

    def forget(self) -> None:
        """Another application was selected, or the power is gone."""
        ...


_OK: Final = SW.OK.to_bytes(2, "big")
_INS_SELECT: Final = 0xA4
_BY_NAME: Final = 0x04


class VirtualCard:
    """One chip. `memory` is what survives power loss and is changed in place.

    `persist` is called with each change before it is made and before the answer leaves. If it
    raises OSError the memory stays as it was and the card answers 6581; any other exception
    passes through, with the memory as it was. A `weak` chip's memory does not hold: using its
    external key wears the cell of its internal key, which answers wrongly from then on.
    """

    def __init__(
        self,
        profile: Profile,
        memory: CardMemory,
        atr: bytes,
        persist: Callable[[Change], None],
        *,
        silent: bool = False,
        weak: bool = False,
    ) -> None:
        self._memory = memory
        self._persist = persist
        # A chip that does not answer to power-on has no ATR to show.
        self.atr = b"" if silent else atr
        self._powered = False
        self._until_cut = 0
        self._cut_after_execution = False
        applications: list[Application] = [
            SocialApplication(profile, memory.social, self._change, weak=weak)
        ]
        if memory.financial is not None:
            applications.append(FinancialApplication(memory.financial, self._change))
        self._by_name = {aid: a for a in applications for aid in a.aids}
        self._selected: Application | None = None

    def power_on(self) -> bytes:
        """Start afresh; the answer to reset, empty from a silent chip."""
        self._forget()
        self._powered = bool(self.atr)
        return self.atr

    def reset(self) -> bytes:
        """A warm reset leaves as little of the session as power-on does."""
        return self.power_on()

    def power_off(self) -> None:
        self._forget()
        self._powered = False

    def cut_power(self, command: int, *, executed: bool) -> None:
        """Lose power at that command from now on (1 is the next): before anything is done, or,
        `executed`, once its changes are on file and before its answer leaves."""
        self._until_cut, self._cut_after_execution = command, executed

    def _forget(self) -> None:
        if self._selected is not None:
            self._selected.forget()
            self._selected = None

    def process(self, apdu: bytes) -> bytes:
        """The answer to one command: data and status word; empty if the chip has no power."""
        if not self._powered:
            return b""
        if self._until_cut:
            self._until_cut -= 1
            if not self._until_cut:
                if self._cut_after_execution:
                    self._answer(apdu)
                self.power_off()
                return b""
        return self._answer(apdu)

    def _answer(self, apdu: bytes) -> bytes:
        try:
            return self._execute(apdu) + _OK
        except StatusError as e:
            return e.answer
        except OSError:
            return SW.MEMORY_FAILURE.to_bytes(2, "big")

    def _execute(self, apdu: bytes) -> bytes:
        if self._memory.blocked:
            raise StatusError(SW.CARD_BLOCKED)
        try:
            command = parse(apdu)
            if command.ins == _INS_SELECT and command.p1 == _BY_NAME:
                return self._select(command)
        except StatusError:
            if self._selected is not None:
                self._selected.interrupt()
            raise
        if self._selected is None:
            raise StatusError(SW.CONDITIONS_NOT_SATISFIED)
        return self._selected.process(command)

    def _select(self, command: Command) -> bytes:
        """SELECT by name (ISO/IEC 7816-4, 11.2.2): whole names only, first occurrence. The file
        control information is answered where Le asks for it."""
        if command.cla:
            raise StatusError(SW.CLA_UNKNOWN)
        if command.p2:
            raise StatusError(SW.WRONG_P1P2)
        application = self._by_name.get(command.data)
        if application is None:
            raise StatusError(SW.FILE_NOT_FOUND)
        if application is not self._selected:
            self._forget()
            self._selected = application
        information = application.select(command.data)
        return b"" if command.le is None else information

    def _change(self, change: Change) -> None:
        self._persist(change)
        self._memory.apply(change)
