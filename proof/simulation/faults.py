"""What goes wrong in a simulation, drawn from the seed: messages, statements, parts."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any, Self

import pyodbc

from ledger.commit import Ledger
from proof.simulation.trace import Trace


@dataclass(frozen=True)
class Rates:
    """How often a fault is drawn: of messages and statements each time, of the rest by the hour
    of simulated time."""

    message: float = 0.02
    """Of messages that are lost, lost on the way back, late or doubled."""
    statement: float = 0.03
    """Of commits in which the database fails at one of the statements, or its process dies."""
    apdu: float = 0.03
    """Of segments at an APDU of which the reader breaks off, the chip loses its power unseen, or
    the whole station loses its power."""
    replacement: float = 6.0
    """Lines that are killed, or replaced while the old instance goes on."""
    provider: float = 4.0
    """Sessions with the HSM that fail for a while; now and then both."""
    gateway: float = 2.0
    """Gateways that die, with everything that waits in them."""
    clock: float = 1.0
    """Jumps of the clock, forward or back."""
    scan: float = 0.02
    """Of cards whose carton an operator scanned wrongly, of packages packed wrongly, of cartons
    counted wrongly."""


QUIET = Rates(0, 0, 0, 0, 0, 0, 0, 0)


@dataclass(frozen=True)
class Fate:
    """What becomes of a message: it takes `out` seconds, or is lost; it comes again after `again`
    seconds more; the answer takes `back` seconds, or is lost."""

    out: float
    back: float
    lost: bool = False
    answer_lost: bool = False
    again: float | None = None


class Faults:
    """Draws from `random` alone, so the faults of a seed are the same each time."""

    def __init__(self, random: Random, trace: Trace, rates: Rates) -> None:
        self.random = random
        self.trace = trace
        self.rates = rates

    def chance(self, rate: float) -> bool:
        return rate > 0 and self.random.random() < rate

    def pause(self, by_the_hour: float) -> float:
        """Seconds until the next fault of a kind."""
        return self.random.expovariate(by_the_hour / 3600) if by_the_hour else 3600.0

    def message(self, route: str, latest: float, *cards: str) -> Fate:
        """The fate of a message; one that is late takes up to `latest` seconds."""
        out, back = self.random.uniform(0.0005, 0.004), self.random.uniform(0.0005, 0.004)
        if not self.chance(self.rates.message):
            return Fate(out, back)
        late = latest ** self.random.random()
        kind = self.random.choice(("lost", "answer lost", "late", "answer late", "doubled"))
        self.trace.fault(f"message {kind}", route, "", *cards)
        match kind:
            case "lost":
                return Fate(out, back, lost=True)
            case "answer lost":
                return Fate(out, back, answer_lost=True)
            case "late":
                return Fate(late, back)
            case "answer late":
                return Fate(out, late)
            case _:
                return Fate(out, back, again=late)


class FailingConnection:
    """An ODBC connection that fails at one statement of the next transaction:
    the statement alone, or with it the whole process (`dead` from then on)."""

    def __init__(self, odbc: Any, random: Random) -> None:
        self._odbc = odbc
        self.dead = False
        self.kind = random.choice(("error", "crash", "crash after commit"))
        self._left = random.randint(1, 14)

    @classmethod
    def of(cls, ledger: Ledger, random: Random) -> Self:
        """Put in the place of the connection that a ledger has, until `end`."""
        connection = ledger._connection  # the fault goes in from outside
        connection.value("select 1")  # opens it, should it have been lost
        failing = cls(connection._odbc, random)
        connection._odbc = failing  # type: ignore[assignment]
        return failing

    def end(self, ledger: Ledger) -> None:
        connection: Any = ledger._connection
        if connection._odbc is self:
            connection._odbc = self._odbc

    def execute(self, sql: str, *parameters: Any) -> Any:
        if self.dead:
            raise pyodbc.Error("HY000", "the process is dead")
        if self.kind == "crash after commit":
            cursor = self._odbc.execute(sql, *parameters)
            if sql == "commit":
                self.dead = True
                raise pyodbc.Error("HY000", "the process died")
            return cursor
        self._left -= 1
        if self._left == 0 or (sql == "commit" and self._left > 0):
            self._left = 0
            self.dead = self.kind == "crash"
            raise pyodbc.Error("HY000", "disk full or input/output error")
        return self._odbc.execute(sql, *parameters)

    def close(self) -> None:
        self._odbc.close()
