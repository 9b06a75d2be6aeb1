"""Where the master keys of chips live: one Protocol over token, wrapped keys and SDF devices.

A master is named by its label (`labels.py`) and has a state. All implementations diversify in two
levels, master → city → chips, and give out keys of chips only, for one call of the provider.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from actors.hsm.self_test import KnownAnswer
from actors.hsm.suites import CHECK_VALUE, Suite
from domain.provider import KeyState, Operation

MasterState = KeyState


class Masters(Protocol):
    """Masters of one suite. Every method opens the device when it must and raises ProviderError
    or PKCS11Error while it does not open. Changes are made under `KeyToken.alone`, so that of two
    processes one sees what the other has made."""

    suite: Suite
    exportable: bool
    """Whether the province's masters may leave under a KEK."""
    known_answers: Sequence[KnownAnswer]
    """What must hold before these masters serve."""

    def labels(self) -> list[str]:
        """The labels of all masters that are there."""
        ...

    def state(self, label: str) -> str:
        """A `MasterState`; empty for a label that is not there."""
        ...

    def chip_keys(self, label: str, city: bytes, chips: Sequence[bytes]) -> list[bytes]:
        """The keys (16 bytes) of chips with these factors (8 bytes), all of one city. KeyError
        for a label that is not there. Which state may serve whom is the provider's to say."""
        ...

    def check_block(self, label: str) -> bytes:
        """The suite's check block under the master, whole: the same for the same key only."""
        ...

    def check_value(self, label: str) -> str:
        """The first 3 bytes of `check_block`, hex."""
        ...

    def create(self, label: str, key: bytes, state: str) -> None:
        """Take a key (16 bytes) that was joined from components. ValueError if the label is
        there."""
        ...

    def try_sealed(self, sealed: bytes) -> bytes:
        """The check block under a key that came sealed under the transport key; nothing stays.
        Raises NotAKey."""
        ...

    def take_sealed(self, label: str, sealed: bytes, state: str) -> None:
        """Take a key that came sealed under the transport key; it is never exported. NotAKey;
        ValueError if the label is there."""
        ...

    def wrapped(self, label: str, kek: Any) -> bytes:
        """The master under a KEK of the token, by AES key wrap (RFC 3394)."""
        ...

    def take_wrapped(self, label: str, blob: bytes, kek: Any, state: str) -> None:
        """The inverse of `wrapped`. ValueError if the label is there."""
        ...

    def set_state(self, label: str, state: str) -> None:
        """KeyError for a label that is not there. A state that is set is set for good."""
        ...

    def destroy(self, label: str) -> None:
        """The master is gone for good; nothing happens if it is not there."""
        ...

    def forget(self) -> None:
        """Drop all handles: the session is gone, or another process has changed the keys."""
        ...

    def operations(self) -> list[Operation]:
        """What is done with these masters, and where."""
        ...


def check_value(block: bytes) -> str:
    """The check value that a check block begins with."""
    return block[:CHECK_VALUE].hex().upper()
