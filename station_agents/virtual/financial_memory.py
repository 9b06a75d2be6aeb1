"""What the financial side of a chip keeps without power: key sets, life cycles, DGIs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

# Life cycle of the card (GPC 5.1.1) and of an application (5.3.1; PERSONALIZED is CPS's).
OP_READY, INITIALIZED, SECURED, CARD_LOCKED, TERMINATED = 0x01, 0x07, 0x0F, 0x7F, 0xFF
SELECTABLE, PERSONALIZED, LOCKED = 0x07, 0x0F, 0x80

DES, AES = 0x80, 0x88
"""Types of keys (GPC table 11-16): what a set is made of tells its protocol, SCP02 or SCP03."""
INITIAL_VERSION: Final = 0xFF
"""The maker's key set; the first PUT KEY puts the issuer's in its place."""


@dataclass(frozen=True)
class KeySet:
    """ENC, MAC and DEK of one key version. `counter`: the channel's sequence counter, 0 in a
    fresh set."""

    version: int
    type: int
    keys: tuple[bytes, bytes, bytes] = field(repr=False)
    counter: int = 0


@dataclass(frozen=True)
class KeySetWritten:
    """`keys` in place of the set with version `replaced`, or beside the others if there is none."""

    replaced: int
    keys: KeySet


@dataclass(frozen=True)
class SequenceCounter:
    version: int
    counter: int


@dataclass(frozen=True)
class ChannelTries:
    """So many wrong hosts are left until no channel opens any more."""

    left: int


@dataclass(frozen=True)
class DgisStored:
    """DGIs that came whole, secret ones in clear; with the last of them the application is
    `personalized`."""

    aid: bytes
    dgis: dict[int, bytes] = field(repr=False)
    personalized: bool


@dataclass(frozen=True)
class LifeCycle:
    """A new state of the application `aid`, or of the card itself (the card manager's AID)."""

    aid: bytes
    state: int


FinancialChange = KeySetWritten | SequenceCounter | ChannelTries | DgisStored | LifeCycle


@dataclass
class PaymentMemory:
    """One payment application, or a directory of them (1PAY.SYS.DDF01)."""

    state: int = SELECTABLE
    dgis: dict[int, bytes] = field(default_factory=dict, repr=False)


@dataclass
class FinancialMemory:
    """`key_sets` in the order in which they came: the first serves who asks for version 0.
    `diversification`: 10 bytes of INITIALIZE UPDATE from which an issuer derives card keys (EMV
    CPS); `cplc`: 42 bytes of the chip's production. `tries`: wrong hosts until it blocks."""

    manager: bytes
    state: int
    diversification: bytes
    cplc: bytes
    key_sets: list[KeySet]
    tries: int
    tries_left: int
    applications: dict[bytes, PaymentMemory]

    def key_set(self, version: int) -> KeySet | None:
        """The set of that version; version 0: the first."""
        return next((s for s in self.key_sets if version in (0, s.version)), None)

    def apply(self, change: FinancialChange) -> None:
        """See `CardMemory.apply`."""
        match change:
            case KeySetWritten(replaced, keys):
                leaving = (replaced, keys.version)
                place = [n for n, s in enumerate(self.key_sets) if s.version in leaving]
                kept = [s for s in self.key_sets if s.version not in leaving]
                kept.insert(min(place, default=len(kept)), keys)
                self.key_sets = kept
            case SequenceCounter(version, counter):
                self.key_sets = [
                    replace(s, counter=counter) if s.version == version else s
                    for s in self.key_sets
                ]
            case ChannelTries(left):
                self.tries_left = left
            case DgisStored(aid, dgis, personalized):
                application = self.applications[aid]
                application.dgis.update(dgis)
                if personalized:
                    application.state = PERSONALIZED
            case LifeCycle(aid, state):
                if aid == self.manager:
                    self.state = state
                else:
                    self.applications[aid].state = state
