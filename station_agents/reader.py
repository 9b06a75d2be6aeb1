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
    ReaderError,
    ReaderLost,
    Service,
    ServiceLost,
    code_of,
)

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
    """Wait for a card to show, after each try but the last."""
    seconds_after_accident: float = 1.5
    """The same after reader, service or feeder came back: they too find each other late."""
    look_seconds: float = 0.05
    """Between two looks, where the context is shared and can't be kept for a wait."""


class Reader:
    """The reader called `name`. One thread uses it."""

    def __init__(
        self, service: Service, name: str, stopping: Event, patience: Patience | None = None
    ) -> None:
        self.name = name
        self._service = service
        self._stopping = stopping
        self._patience = patience or Patience()
        self._context = 0
        self._handle: int | None = None
        self._pci: object = scard.SCARD_PCI_T0
        self._after_accident = True

    def power_on(self) -> bytes:
        """Power the chip off and on, so that it stands as after its insertion; its ATR.

        Raises CardSilent after three tries, ReaderLost, ServiceLost, Stopping.
        """
        patience = self._patience
        seconds = patience.seconds_after_accident if self._after_accident else patience.seconds
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
            if code in CARD_ABSENT and tries_left:
                self._await_card(seconds)
        self._after_accident = False
        raise CardSilent("no answer to power-on", code)

    def _cycle_power(self, *, blindly: bool = False) -> int:
        """0, or why there was no answer to power-on: a code of CARD_ABSENT or CARD_MUTE.

        `blindly`: also where the service believes that no card is there. It looks a few times a
        second; a card whose power came and went between two looks, seen by a command only, stays
        unseen until it is removed (pcscd 1.9.9), though it would answer.
        """
        held_before = self._handle is not None
        if not held_before:
            self._context = self._service.context(self.name)
            share = scard.SCARD_SHARE_DIRECT if blindly else scard.SCARD_SHARE_EXCLUSIVE
            code, handle, _ = scard.SCardConnect(
                self._context, self.name, share, 0 if blindly else _ANY_PROTOCOL
            )
            if code != SUCCESS:
                return self._power_failure(code)
            self._handle = handle
        code, protocol = scard.SCardReconnect(
            self._handle, scard.SCARD_SHARE_EXCLUSIVE, _ANY_PROTOCOL, scard.SCARD_UNPOWER_CARD
        )
        invalid = code_of(code) == _INVALID_HANDLE
        if invalid and held_before and self._service.alive(self._context):
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
        if code in SERVICE_GONE and not self._service.alive(self._context):
            self._service.lost(self._context)
            return ServiceLost("the PC/SC service is away", code)
        if code == code_of(scard.SCARD_E_NOT_TRANSACTED):
            # Whether the chip has carried out the command is not known.
            return ReaderError("the command was not carried through", code)
        return ReaderLost("the reader fails", code)

    def _await_card(self, seconds: float) -> None:
        """Until the service sees a card there, at most `seconds`. Errors as of `power_on`."""
        end = time.monotonic() + seconds
        shared = self._service.shared
        context = self._service.context(self.name)
        known = scard.SCARD_STATE_UNAWARE
        while (left := end - time.monotonic()) > 0:
            code, states = scard.SCardGetStatusChange(
                context, 0 if shared else max(1, int(left * 1000)), [(self.name, known)]
            )
            if code == SUCCESS:
                if states[0][1] & scard.SCARD_STATE_PRESENT:
                    return
                known = states[0][1] & ~scard.SCARD_STATE_CHANGED
            elif code_of(code) != _TIMEOUT:
                self._context = context
                raise self._error(code_of(code))
            # A call that waits would keep the context from the other readers as long.
            wait(self._stopping, min(left, self._patience.look_seconds) if shared else 0)

    def transmit(self, apdu: list[int]) -> list[int]:
        """Send one command; data and the two bytes of the status word.

        61xx is followed by GET RESPONSE, 6Cxx by the same command with the right Le (ISO/IEC
        7816-4, 5.6): neither reaches the caller. Raises CardRemoved, ReaderLost, ServiceLost, or
        ReaderError when nobody knows whether the chip carried the command out.
        """
        code, response = scard.SCardTransmit(self._handle, self._pci, apdu)
        if code != SUCCESS or len(response) < 2:
            raise self._transmit_failure(code, response)
        if response[-2] in (0x61, 0x6C):
            return self._whole(apdu, response)
        return response  # type: ignore[no-any-return]  # pyscard has no types

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
        code, response = scard.SCardTransmit(self._handle, self._pci, apdu)
        if code != SUCCESS or len(response) < 2:
            raise self._transmit_failure(code, response)
        return response  # type: ignore[no-any-return]  # as above

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
        self._service.await_return(self.name)

    def close(self) -> None:
        """Leave the card as it lies."""
        handle, self._handle = self._handle, None
        if handle is not None:
            scard.SCardDisconnect(handle, scard.SCARD_LEAVE_CARD)
