"""The PC/SC service as this process sees it: its context, and a new one after a restart.

A context dies with the service (pcscd) that gave it, and every card handle with the context. The
first reader that notices reports it (`lost`); the next that needs one gets a new context. The
client library of pcscd does one call at a time on a context, a wait for a card included.
"""

from __future__ import annotations

import os
from threading import Event, Lock
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
    """The PC/SC service went away; `Service.await_return` waits until it is back."""

    broken = "reader"


class Service:
    """The contexts of this process: one for all its readers, or, with `one_each`, one a reader.

    Calls on one context follow one another, so readers that share one also share the time of
    their chips. Tried with two readers: chips that take 20 ms a command did 47 commands a second
    through one context and 96 through two.
    """

    def __init__(self, stopping: Event, *, readers: int = 1, one_each: bool = False) -> None:
        self.shared = readers > 1 and not one_each
        """Whether several readers use one context."""
        self._one_each = one_each
        self._stopping = stopping
        self._lock = Lock()
        self._contexts: dict[str, int] = {}

    def context(self, reader: str) -> int:
        """The context for `reader`. Raises ServiceLost while the service does not answer."""
        name = reader if self._one_each else ""
        with self._lock:
            context = self._contexts.get(name)
            if context is None:
                code, context = scard.SCardEstablishContext(scard.SCARD_SCOPE_SYSTEM)
                if code != SUCCESS:
                    raise ServiceLost("no context", _code(code))
                self._contexts[name] = context
            return context

    def lost(self, context: int) -> None:
        """`context` died. Repeated by every reader that used it: the first one counts, and a
        context that has taken its place meanwhile is left alone."""
        with self._lock:
            for name, known in list(self._contexts.items()):
                if known == context:
                    del self._contexts[name]
                    scard.SCardReleaseContext(context)

    def alive(self, context: int) -> bool:
        """Whether the service that gave `context` answers."""
        code, _ = scard.SCardListReaders(context, [])
        # A service without any reader answers with that code.
        return code == SUCCESS or _code(code) == _code(scard.SCARD_E_NO_READERS_AVAILABLE)

    def await_return(self, reader: str) -> None:
        """Until the service gives a context again, with growing pauses. Raises Stopping."""
        pause = GrowingPause(self._stopping, 0.05, 2.0)
        while True:
            try:
                self.context(reader)
                return
            except ServiceLost as e:
                log.info("pcsc.away", reader=reader, code=f"{e.code:08X}")
                pause.take()

    def close(self) -> None:
        """Release the contexts. No reader may use one any more."""
        with self._lock:
            for context in self._contexts.values():
                scard.SCardReleaseContext(context)
            self._contexts.clear()


def code_of(value: int) -> int:
    """`value` as an unsigned PC/SC code."""
    return _code(value)


def service_socket() -> str:
    """Where the client library looks for the service; for log and error texts."""
    return os.environ.get("PCSCLITE_CSOCK_NAME", "")
