"""Tokens in a temporary place, the kinds of masters, and keys that two custodians bring to them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from actors.hsm import ceremony, labels
from actors.hsm.components import seal_part
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
from domain.provider import KeyCustody, KeyEntry, KeyState
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


def make_home(place: Path, kind: str, sdf_library: Path = Path(), like: Home | None = None) -> Home:
    """A home as `centre init` leaves it, without masters. With `like` its token is a copy of that
    one's, whose RSA pair is there already."""
    profile = load_profile("ssc-3des" if kind == DES3 else "ssc-sm4")
    if like is not None:
        shutil.copytree(like.config.conf.parent, place / "token")
        config = blank_token(place)
        return replace(like, config=config, kind=kind, sdf_library=sdf_library, profile=profile)
    config = blank_token(place)
    with KeyToken(config) as token:
        ceremony.generate_keys(token)
        return Home(
            config,
            kind,
            sdf_library,
            profile,
            ceremony.export_transport_public_key(token),
            ceremony.export_head_public_key(token),
        )


def compile_double(library: Path, *options: str) -> Path:
    """The double of a GM/T 0018 device as a library."""
    source = Path(__file__).with_name("sdf_double.c")
    strict = ["-O2", "-Wall", "-Wextra", "-Werror", *options]
    subprocess.run(["gcc", "-shared", "-fPIC", *strict, "-o", library, source], check=True)
    return library


def blank_token(place: Path) -> TokenConfig:
    """A token without keys, if there is none."""
    create_token(place / "token", PIN, SO_PIN)
    write_pin_file(place / "pin", PIN)
    return token_config(place / "token", place / "pin")


def sealed_parts(transport: bytes, label: str, components: Iterable[bytes]) -> list[bytes]:
    """What custodians send: their components of the key `label`, numbered from 1."""
    return [seal_part(transport, label, n, part) for n, part in enumerate(components, start=1)]


def stage_formal_keys(
    custody: KeyCustody,
    transport: bytes,
    profile: Profile,
    version: int = 1,
    keys: Mapping[str, bytes] | None = None,
) -> list[KeyEntry]:
    """A master for each usage of the profile, from components of two custodians: random ones, or
    such that they give `keys`, by usage."""
    entries = []
    for slot in profile.keys:
        label, one = labels.formal(slot.usage, version), os.urandom(16)
        key = keys[slot.usage] if keys else os.urandom(16)
        other = bytes(a ^ b for a, b in zip(one, key, strict=True))
        parts = sealed_parts(transport, label, (one, other))
        entries.append(custody.combine(label, profile.suite, parts))
    return entries


def bring_formal_keys(home: Home, keys: Mapping[str, bytes] | None = None) -> None:
    """The province's keys, active: what everything needs that makes cards; `keys` by usage, else
    random ones."""
    provider = home.provider()
    staged = stage_formal_keys(provider, home.transport_public_key, home.profile, keys=keys)
    provider.set_state([key.label for key in staged], KeyState.ACTIVE)
    provider.close()
