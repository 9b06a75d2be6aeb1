"""What the checks of key custody are run over, and how they bring keys to it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import pytest

from actors.hsm.pkcs11_provider import Pkcs11Provider
from domain.card.profile import Profile
from domain.codes import Code
from domain.provider import Chip, KeyRefused, KeyState
from tests.conformance.card_side import CARDS, CardCipher, identification_code
from tests.hsm.place import sealed_parts, stage_formal_keys

CHIP = Chip(identification_code(5), "B", "carton-20")
STAGED, ACTIVE, RETIRED = KeyState


@dataclass(frozen=True)
class Centre:
    """A centre's provider and the public halves of its own keys (PEM)."""

    provider: Pkcs11Provider
    profile: Profile
    transport: bytes
    head: bytes

    @property
    def card(self) -> CardCipher:
        return CARDS[self.profile.suite]

    def parts(self, label: str, *components: bytes) -> list[bytes]:
        return sealed_parts(self.transport, label, components)

    def bring(self, label: str, suite: str, key: bytes) -> None:
        """A key of this value, staged, from two components."""
        one = os.urandom(len(key))
        self.provider.combine(label, suite, self.parts(label, one, xor(one, key)))

    def active(self, version: int = 1) -> list[str]:
        """Random masters of the province, active; their labels."""
        staged = stage_formal_keys(self.provider, self.transport, self.profile, version)
        labels = [entry.label for entry in staged]
        self.provider.set_state(labels, ACTIVE)
        return labels

    def state(self, label: str) -> str:
        return {e.label: e.state for e in self.provider.inventory()}.get(label, "")


Make = Callable[[], AbstractContextManager[Centre]]
"""A new centre. Only one of them can be in use at a time (one session a process)."""


def xor(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=True))


@contextmanager
def refused(code: Code, place: str = "") -> Iterator[None]:
    with pytest.raises(KeyRefused) as caught:
        yield
    assert caught.value.code == code
    assert place in caught.value.reason
