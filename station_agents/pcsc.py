"""The PC/SC service as one reader sees it: a context of its own, and a new one after a restart.

A context dies with the service (pcscd) that gave it, and every card handle with the context. The
client library of pcscd does one call at a time on a context; while one hangs, whoever wants the
same context holds up the whole process. So each reader has its own (decision 11).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from threading import Event
from typing import Final

import structlog
from smartcard import scard

from station_agents.pausing import GrowingPause

log = structlog.get_logger()

_UNSIGNED: Final = 0xFFFFFFFF


def _code(value: int) -> int:
    """A return code without its sign, as it stands in the PC/SC headers."""
    return value & _UNSIGNED


SUCCESS: Final = scard.SCARD_S_SUCCESS

# The service is gone, or was another one when the context was made.
SERVICE_GONE: Final = frozenset(
    _code(c)
    for c in (
        scard.SCARD_E_NO_SERVICE,
        scard.SCARD_E_SERVICE_STOPPED,
        scard.SCARD_E_INVALID_HANDLE,
        scard.SCARD_F_COMM_ERROR,
        scard.SCARD_F_INTERNAL_ERROR,
        scard.SCARD_P_SHUTDOWN,
    )
)
# No card lies in the reader, or none that lets itself be seen.
CARD_ABSENT: Final = frozenset(
    _code(c) for c in (scard.SCARD_E_NO_SMARTCARD, scard.SCARD_W_REMOVED_CARD)
)
# A card lies there, and its power-on failed.
CARD_MUTE: Final = frozenset(
    _code(c)
    for c in (
        scard.SCARD_W_UNRESPONSIVE_CARD,
        scard.SCARD_W_UNPOWERED_CARD,
        scard.SCARD_W_UNSUPPORTED_CARD,
        scard.SCARD_E_PROTO_MISMATCH,
    )
)


class ReaderError(Exception):
    """A chip or what leads to it failed. `code` is the PC/SC return code, `broken` the word for
    it in the contract with the centre (`Answers.broken`)."""

    broken = "unknown"

    def __init__(self, what: str, code: int = 0) -> None:
        super().__init__(what, code)
        self.what = what
        self.code = code

    def __str__(self) -> str:
        return f"{self.what} ({self.code:08X})"


class CardSilent(ReaderError):
    """The chip did not answer to power-on, after all tries."""


class CardRemoved(ReaderError):
    """The card is no longer there, or lost its power."""

    broken = "removed"


class ReaderLost(ReaderError):
    """The reader is gone, in use by another program, or fails."""

    broken = "reader"


class ServiceLost(ReaderError):
    """The PC/SC service went away; `Context.await_return` waits until it is back."""

    broken = "reader"


class ReaderHung(ReaderError):
    """The reader did not answer for so long that it was given up; it has come back since."""


class Context:
    """One reader's way to the service. One thread uses it."""

    def __init__(self, reader: str, stopping: Event) -> None:
        self._reader = reader
        self._stopping = stopping
        self._context: int | None = None

    def get(self) -> int:
        """The context. Raises ServiceLost while the service does not answer."""
        if self._context is None:
            code, context = scard.SCardEstablishContext(scard.SCARD_SCOPE_SYSTEM)
            if code != SUCCESS:
                raise ServiceLost("no context", _code(code))
            self._context = context
        return self._context

    def lost(self) -> bool:
        """Whether the service that gave the context is gone; the next one is then another."""
        if self._context is not None:
            code, _ = scard.SCardListReaders(self._context, [])
            # A service without any reader answers with that code.
            if code == SUCCESS or _code(code) == _code(scard.SCARD_E_NO_READERS_AVAILABLE):
                return False
        self.close()
        return True

    def has_reader(self) -> bool:
        """Whether the service knows the reader now. Raises ServiceLost."""
        code, readers = scard.SCardListReaders(self.get(), [])
        if code != SUCCESS and self.lost():
            raise ServiceLost("the PC/SC service is away", _code(code))
        return code == SUCCESS and self._reader in readers

    def await_return(self) -> None:
        """Until the service gives a context again, with growing pauses. Raises Stopping."""
        pause = GrowingPause(self._stopping, 0.05, 2.0)
        while True:
            try:
                self.get()
                return
            except ServiceLost as e:
                log.info("pcsc.away", reader=self._reader, code=f"{e.code:08X}")
                pause.take()

    def close(self) -> None:
        """Release the context. No handle of it may be used any more."""
        context, self._context = self._context, None
        if context is not None:
            scard.SCardReleaseContext(context)


@dataclass(frozen=True)
class ReaderSeen:
    """A reader of this machine: whether a card lies there, and whether another program uses it."""

    name: str
    card: bool
    in_use: bool


def look_at_readers() -> list[ReaderSeen]:
    """All readers that the service knows. Raises ServiceLost."""
    code, context = scard.SCardEstablishContext(scard.SCARD_SCOPE_SYSTEM)
    if code != SUCCESS:
        raise ServiceLost("no context", _code(code))
    try:
        code, names = scard.SCardListReaders(context, [])
        if code != SUCCESS or not names:
            return []
        code, states = scard.SCardGetStatusChange(
            context, 0, [(name, scard.SCARD_STATE_UNAWARE) for name in names]
        )
        if code != SUCCESS:
            raise ServiceLost("the PC/SC service is away", _code(code))
    finally:
        scard.SCardReleaseContext(context)
    used = scard.SCARD_STATE_EXCLUSIVE | scard.SCARD_STATE_INUSE
    return [
        ReaderSeen(name, bool(state & scard.SCARD_STATE_PRESENT), bool(state & used))
        for name, state, _ in states
    ]


def code_of(value: int) -> int:
    """`value` as an unsigned PC/SC code."""
    return _code(value)


def service_socket() -> str:
    """Where the client library looks for the service; for log and error texts."""
    return os.environ.get("PCSCLITE_CSOCK_NAME", "")
