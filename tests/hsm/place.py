"""Tokens in a temporary place, and the kinds of masters, as the tests of this folder use them."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from actors.hsm import ceremony
from actors.hsm.masters import Masters
from actors.hsm.pkcs11_masters import Pkcs11Masters
from actors.hsm.pkcs11_provider import Pkcs11Provider
from actors.hsm.sdf_masters import SdfMasters
from actors.hsm.token import (
    KeyToken,
    TokenConfig,
    create_token,
    token_config,
    write_pin_file,
)
from actors.hsm.wrapped_masters import WrappedMasters
from domain.card.profile import Profile, load_profile
from tests.conformance.card_side import Records

PIN, SO_PIN = "test-user-pin", "test-officer-pin"

DES3, WRAPPED, SDF = "3des in the token", "sm4 wrapped", "sm4 in an SDF device"
KINDS = (DES3, WRAPPED, SDF)
KEK = 3


@dataclass(frozen=True)
class Home:
    """A token with the centre's keys, and where its masters live."""

    config: TokenConfig
    kind: str
    sdf_library: Path
    profile: Profile
    transport_public_key: bytes
    head_public_key: bytes

    def masters(self, token: KeyToken) -> Masters:
        return make_masters(self.kind, token, self.sdf_library)

    def provider(self, records: Records | None = None, *, software: bool = True) -> Pkcs11Provider:
        return Pkcs11Provider(
            self.config, self.profile, records or Records(), self.masters, software=software
        )


def make_masters(kind: str, token: KeyToken, sdf_library: Path) -> Masters:
    match kind:
        case "3des in the token":
            return Pkcs11Masters(token)
        case "sm4 wrapped":
            return WrappedMasters(token)
        case _:
            return SdfMasters(token, sdf_library, KEK)


def make_home(place: Path, kind: str, sdf_library: Path, like: Home | None = None) -> Home:
    """A new home; with `like` it begins as a copy of that one's token, whose RSA pair is there."""
    if like is not None:
        shutil.copytree(like.config.conf.parent, place / "token")
    config = blank_token(place)
    profile = load_profile("ssc-3des" if kind == DES3 else "ssc-sm4")
    with KeyToken(config) as token:
        masters = make_masters(kind, token, sdf_library)
        ceremony.generate_keys(token, profile, masters)
        masters.forget()
        return Home(
            config,
            kind,
            sdf_library,
            profile,
            ceremony.export_transport_public_key(token),
            ceremony.export_head_public_key(token),
        )


def blank_token(place: Path) -> TokenConfig:
    """A token without keys."""
    create_token(place / "token", PIN, SO_PIN)
    write_pin_file(place / "pin", PIN)
    return token_config(place / "token", place / "pin")
