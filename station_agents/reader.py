"""One PC/SC reader: power-on with three tries, commands, and errors that say what is lost.

A failed power-on is tried again after a re-seat (power off, power on), three times in all; no
other failure is repeated here (production.md, quality on the line).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Event
from typing import Final

from smartcard import scard

from station_agents.pausing import wait
from station_agents.pcsc import (
    CARD_ABSENT,
    CARD_MUTE,
    SERVICE_GONE,
    SUCCESS,
    CardRemoved,
    CardSilent,
    Context,
    ReaderError,
    ReaderHung,
    ReaderLost,
    ServiceLost,
    code_of,
)
from station_agents.statistics import Statistics
from station_agents.watched import Watched

_ANY_PROTOCOL: Final = scard.SCARD_PROTOCOL_T0 | scard.SCARD_PROTOCOL_T1
# What a command's answer is fetched with (ISO/IEC 7816-4, 11.7.1); the channel is added.
_GET_RESPONSE: Final = (0xC0, 0x00, 0x00)
_CHANNEL: Final = 0x03
# Answers in one chain of 61xx; a chip that never ends is not waited for.
_MOST_PARTS: Final = 64
_TIMEOUT: Final = code_of(scard.SCARD_E_TIMEOUT)
_INVALID_HANDLE: Final = code_of(scard.SCARD_E_INVALID_HANDLE)

_CARD_GONE: Final = CARD_ABSENT | frozenset(
    code_of(c) for c in (scard.SCARD_W_UNPOWERED_CARD, scard.SCARD_W_RESET_CARD)
)


@dataclass(frozen=True)
class Patience:
    """How long a card may take to show itself. PC/SC services look for cards a few times a
    second, so a card that has just been laid in may be seen late."""

    tries: int = 3
    """Power-ons before a chip counts as silent."""
    seconds: float = 0.7
    """Wait for a card to show, after each try but the last; twice as long after reader, service
    or feeder came back: they too find each other late."""
    replug_seconds: float = 0.5
    """Between two looks for a reader that is to be unplugged and plugged in again."""


class Reader:
    """The reader called `name`. One thread uses it."""

    def __init__(self, name: str, stopping: Event, patience: Patience | None = None) -> None:
        self.name = name
        self.statistics = Statistics(name)
        self.watched = Watched()
        """Around every call to the service; whoever watches it may give a call up."""
        self._context = Context(name, stopping)
        self._stopping = stopping
        self._patience = patience or Patience()
        self._handle: int | None = None
        self._pci: object = scard.SCARD_PCI_T0
        self._after_accident = True

    def power_on(self) -> bytes:
        """Power the chip off and on, so that it stands as after its insertion; its ATR.

        Raises CardSilent after three tries, ReaderLost, ReaderHung, ServiceLost, Stopping.
        """
        patience = self._patience
        seconds = patience.seconds * (2 if self._after_accident else 1)
        code = 0
        for tries_left in range(patience.tries - 1, -1, -1):
            try:
                code = self._cycle_power(blindly=tries_left == 0)
            except ReaderError:
                self._drop()
                raise
            if code == SUCCESS:
                self._after_accident = False
                return self._atr()
            self._drop()
            if tries_left:
                self.statistics.power_on_repeated()
            if code in CARD_ABSENT and tries_left:
                self._await_card(seconds)
        self._after_accident = False
        self.statistics.power_on_failed()
        raise CardSilent("no answer to power-on", code)

    def _cycle_power(self, *, blindly: bool = False) -> int:
        """0, or why there was no answer to power-on: a code of CARD_ABSENT or CARD_MUTE.

        `blindly`: also where the service believes that no card is there. It looks a few times a
        second; a card whose power came and went between two looks, seen by a command only, stays
        unseen until it is removed (pcscd 1.9.9), though it would answer.
        """
        held_before = self._handle is not None
        if not held_before:
            share = scard.SCARD_SHARE_DIRECT if blindly else scard.SCARD_SHARE_EXCLUSIVE
            with self.watched:
                code, handle, _ = scard.SCardConnect(
                    self._context.get(), self.name, share, 0 if blindly else _ANY_PROTOCOL
                )
            if code != SUCCESS:
                return self._power_failure(code)
            self._handle = handle
        with self.watched:
            code, protocol = scard.SCardReconnect(
                self._handle, scard.SCARD_SHARE_EXCLUSIVE, _ANY_PROTOCOL, scard.SCARD_UNPOWER_CARD
            )
        if code_of(code) == _INVALID_HANDLE and held_before and not self._service_lost():
            # The service lives and forgot the handle, as when it saw the card go and come.
            self._handle = None
            return self._cycle_power(blindly=blindly)
        if code != SUCCESS:
            return self._power_failure(code)
        self._pci = (
            scard.SCARD_PCI_T1 if protocol == scard.SCARD_PROTOCOL_T1 else scard.SCARD_PCI_T0
        )
        return 0

    def _power_failure(self, value: int) -> int:
        code = code_of(value)
        if code in CARD_ABSENT or code in CARD_MUTE:
            return code
        raise self._error(code)

    def _atr(self) -> bytes:
        with self.watched:
            code, _, _, _, atr = scard.SCardStatus(self._handle)
        if code != SUCCESS:
            error = self._error(code_of(code))
            self._drop()
            raise error
        return bytes(atr)

    def _error(self, code: int) -> ReaderError:
        """What `code` means for whoever uses the reader."""
        self._after_accident = True
        if code in _CARD_GONE:
            return CardRemoved("the card is gone", code)
        if code in SERVICE_GONE and self._service_lost():
            return ServiceLost("the PC/SC service is away", code)
        if code == code_of(scard.SCARD_E_NOT_TRANSACTED):
            # Whether the chip has carried out the command is not known.
            return ReaderError("the command was not carried through", code)
        return ReaderLost("the reader fails", code)

    def _await_card(self, seconds: float) -> None:
        """Until the service sees a card there, at most `seconds`. Errors as of `power_on`."""
        end = time.monotonic() + seconds
        known = scard.SCARD_STATE_UNAWARE
        while (left := end - time.monotonic()) > 0:
            with self.watched.waiting(left):
                code, states = scard.SCardGetStatusChange(
                    self._context.get(), max(1, int(left * 1000)), [(self.name, known)]
                )
            if code == SUCCESS:
                if states[0][1] & scard.SCARD_STATE_PRESENT:
                    return
                known = states[0][1] & ~scard.SCARD_STATE_CHANGED
            elif code_of(code) != _TIMEOUT:
                raise self._error(code_of(code))
            wait(self._stopping, 0)

    def _service_lost(self) -> bool:
        with self.watched:
            return self._context.lost()

    def transmit(self, apdu: list[int]) -> list[int]:
        """Send one command; data and the two bytes of the status word.

        61xx is followed by GET RESPONSE, 6Cxx by the same command with the right Le (ISO/IEC
        7816-4, 5.6): neither reaches the caller. Raises CardRemoved, ReaderLost, ServiceLost, or
        ReaderError (ReaderHung) when nobody knows whether the chip carried the command out.
        """
        response = self._send(apdu)
        if response[-2] in (0x61, 0x6C):
            return self._whole(apdu, response)
        return response

    def _whole(self, apdu: list[int], response: Sequence[int]) -> list[int]:
        """Follow 6Cxx once, and 61xx to the end."""
        if response[-2] == 0x6C:
            # A command without Le (4 bytes, or header and data only) has none to set right.
            has_le = len(apdu) == 5 or (len(apdu) > 5 and len(apdu) == 6 + apdu[4])
            if not has_le:
                return list(response)
            response = self._send([*apdu[:-1], response[-1]])
        data: list[int] = []
        for _ in range(_MOST_PARTS):
            data += response[:-2]
            if response[-2] != 0x61:
                break
            response = self._send([apdu[0] & _CHANNEL, *_GET_RESPONSE, response[-1]])
        return data + list(response[-2:])

    def _send(self, apdu: list[int]) -> list[int]:
        try:
            with self.watched:
                code, response = scard.SCardTransmit(self._handle, self._pci, apdu)
        except ReaderHung:
            self._after_accident = True
            self._drop()
            raise
        if code != SUCCESS or len(response) < 2:
            raise self._transmit_failure(code, response)
        return response  # type: ignore[no-any-return]  # pyscard has no types

    def _transmit_failure(self, code: int, response: Sequence[int]) -> ReaderError:
        if code == SUCCESS:
            error: ReaderError = ReaderError(f"an answer of {len(response)} bytes")
        else:
            error = self._error(code_of(code))
        self._drop()
        return error

    def _drop(self) -> None:
        """Give the handle up; the next power-on makes another."""
        handle, self._handle = self._handle, None
        if handle is not None:
            with self.watched:
                scard.SCardDisconnect(handle, scard.SCARD_UNPOWER_CARD)

    def accident(self) -> None:
        """Something on the way to the card came back: the card may show itself late."""
        self._after_accident = True

    def emptied(self) -> None:
        """No card lies here. A handle that outlived its card would open the next one before the
        service has seen it come; when it does it powers it on itself, in the midst of a session."""
        self._drop()

    def await_return(self) -> None:
        """After ServiceLost: until the service is back. Raises Stopping."""
        self._context.await_return()

    def await_replug(self) -> None:
        """Until the reader, or the service with all its readers, has gone and come back: it is
        started anew then. Raises Stopping."""
        self._drop()
        known = scard.SCARD_STATE_UNAWARE
        while known is not None:
            known = self._state_after(known)
            wait(self._stopping, 0)
        while not self._is_there():
            wait(self._stopping, self._patience.replug_seconds)
        self._after_accident = True

    def _state_after(self, known: int) -> int | None:
        """The reader's state once it is another than `known`, or after a while; None if it is
        gone."""
        seconds = self._patience.replug_seconds
        try:
            with self.watched.waiting(seconds):
                code, states = scard.SCardGetStatusChange(
                    self._context.get(), int(seconds * 1000), [(self.name, known)]
                )
        except ReaderError:
            return None
        if code_of(code) == _TIMEOUT:
            return known
        if code != SUCCESS or states[0][1] & scard.SCARD_STATE_UNKNOWN:
            return None
        return int(states[0][1] & ~scard.SCARD_STATE_CHANGED)

    def _is_there(self) -> bool:
        try:
            with self.watched:
                return self._context.has_reader()
        except ReaderError:
            return False

    def close(self) -> None:
        """Leave the card as it lies."""
        handle, self._handle = self._handle, None
        with self.watched:
            if handle is not None:
                scard.SCardDisconnect(handle, scard.SCARD_LEAVE_CARD)
            self._context.close()
