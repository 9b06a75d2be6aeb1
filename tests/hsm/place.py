"""A token in a temporary place, as the tests of this folder use it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from actors.hsm.token import (
    TokenConfig,
    create_token,
    token_config,
    write_pin_file,
)
from domain.card.profile import Profile

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
