"""Masters for a centre that is measured: brought without people."""

from __future__ import annotations

import secrets
from pathlib import Path

from actors.hsm import labels
from actors.hsm.components import seal_part
from actors.hsm.custody import Custody
from actors.hsm.token import KeyToken
from centre.config import Config
from centre.home import initialise
from centre.wiring import make_masters, token_config
from domain.card.profile import load_profile
from domain.provider import KeyCustody, KeyState


def home_with_keys(home: Path) -> Config:
    """A home as `centre init` makes it, and a master for each usage of the profile, active. What is
    there stays."""
    config = initialise(home)
    profile = load_profile(config.profile)
    pem = config.transport_public_key.read_bytes()
    with KeyToken(token_config(config)) as token:
        masters = make_masters(config, token)
        custody = Custody(token, masters, profile)
        wanted = [labels.formal(slot.usage, 1) for slot in profile.keys]
        for label in (x for x in wanted if not masters.state(x)):
            parts = [seal_part(pem, label, n, secrets.token_bytes(16)) for n in (1, 2)]
            custody.combine(label, profile.suite, parts)
        custody.set_state(wanted, KeyState.ACTIVE)
    return config


def bring_temporary_keys(config: Config, block: bytes) -> None:
    """A factory's keys, active; the centre is not up."""
    profile = load_profile(config.profile)
    with KeyToken(token_config(config)) as token:
        take_temporary_keys(Custody(token, make_masters(config, token), profile), block)


def take_temporary_keys(custody: KeyCustody, block: bytes) -> None:
    """Stage and accept them, which takes two people at a centre."""
    staged = custody.stage_temporary_keys(block)
    custody.set_state([key.label for key in staged], KeyState.ACTIVE)
