"""A token in a temporary place, as tests use it, and masters that two custodians bring to it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from actors.hsm import ceremony, labels
from actors.hsm.components import seal_part
from actors.hsm.token import (
    KeyToken,
    TokenConfig,
    create_token,
    token_config,
    write_pin_file,
)
from domain.card.profile import Profile
from domain.provider import KeyCustody, KeyEntry, KeyState

PIN, SO_PIN = "test-user-pin", "test-officer-pin"


@dataclass(frozen=True)
class Home:
    config: TokenConfig
    profile: Profile
    transport_public_key: bytes
    head_public_key: bytes


def blank_token(place: Path) -> TokenConfig:
    """A token without keys."""
    create_token(place / "token", PIN, SO_PIN)
    write_pin_file(place / "pin", PIN)
    return token_config(place / "token", place / "pin")


def token_of_init(place: Path, profile: Profile) -> Home:
    """A token as `centre init` leaves it: the centre's own keys, and no master."""
    config = blank_token(place)
    with KeyToken(config) as token:
        ceremony.generate_keys(token)
        return Home(
            config,
            profile,
            ceremony.export_transport_public_key(token),
            ceremony.export_head_public_key(token),
        )


def sealed_parts(transport: bytes, label: str, components: Iterable[bytes]) -> list[bytes]:
    """What custodians send: their components of the key `label`, numbered from 1."""
    return [seal_part(transport, label, n, part) for n, part in enumerate(components, start=1)]


def stage_formal_keys(
    custody: KeyCustody, transport: bytes, profile: Profile, version: int = 1
) -> list[KeyEntry]:
    """A master for each usage of the profile, from random components of two custodians."""
    return [
        custody.combine(
            label,
            profile.suite,
            sealed_parts(transport, label, (os.urandom(16), os.urandom(16))),
        )
        for label in (labels.formal(slot.usage, version) for slot in profile.keys)
    ]


def bring_formal_keys(
    custody: KeyCustody, transport: bytes, profile: Profile, version: int = 1
) -> None:
    """The province's keys, active: what everything needs that makes cards."""
    staged = stage_formal_keys(custody, transport, profile, version)
    custody.set_state([key.label for key in staged], KeyState.ACTIVE)
