"""What the checks of `provider_suite` are run over, and how they bring keys to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from actors.hsm.masters import Masters
from domain.card.profile import Profile
from domain.provider import Chip, KeyCustody, Provider
from tests.conformance.card_side import (
    CARDS,
    CardCipher,
    Factory,
    Records,
    identification_code,
    take_temporary_keys,
)


class WholeProvider(Provider, KeyCustody, Protocol):
    """What stands behind both: one session with the HSM."""


@dataclass(frozen=True)
class Specimen:
    """A provider with formal keys of version 1 that are active, index and head keys, without any
    temporary or data keys, made with `records`; public keys as PEM."""

    provider: WholeProvider
    masters: Masters
    records: Records
    profile: Profile
    transport_public_key: bytes
    head_public_key: bytes

    @property
    def card(self) -> CardCipher:
        return CARDS[self.profile.suite]


def take_keys(s: Specimen, batch_id: str) -> Factory:
    factory = Factory.of(batch_id, s.profile)
    take_temporary_keys(s.provider, factory.sealed(s.transport_public_key))
    return factory


def chip_of(batch_id: str, serial: int, carton: str = "carton-500", area: str = "430100") -> Chip:
    return Chip(identification_code(serial, area), batch_id, carton)
