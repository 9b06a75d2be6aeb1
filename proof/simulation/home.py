"""Where a simulation lives: a directory in memory, a token with the centre's keys, and the
province's masters, which the simulated world knows, since it must know what a chip should hold.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from random import Random

from actors.hsm import ceremony, labels
from actors.hsm.components import seal_part
from actors.hsm.pkcs11_masters import Pkcs11Masters
from actors.hsm.pkcs11_provider import Pkcs11Provider
from actors.hsm.token import (
    KeyToken,
    TokenConfig,
    create_token,
    token_config,
    write_pin_file,
)
from counterparts.chips import encipher
from domain.card.profile import Profile, load_profile
from domain.provider import KeyState
from ledger.chip_records import LedgerChipRecords

PROFILE = "ssc-3des"
FORMAL_VERSION = 1
_PIN, _SO_PIN = "simulated-user-pin", "simulated-officer-pin"


def memory_directory() -> Path:
    """A directory of its own, in memory where the system has one."""
    memory = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix="centre-", dir=memory if memory.is_dir() else None))


@dataclass(frozen=True)
class Home:
    """A token and the public halves of its keys."""

    place: Path
    token: TokenConfig
    transport_public_key: bytes
    head_public_key: bytes

    def copy(self, place: Path) -> Home:
        """The same token in another place: a simulation adds keys to its own alone."""
        place.mkdir(parents=True, exist_ok=True)
        shutil.copytree(self.place / "token", place / "token")
        return Home(place, _token(place), self.transport_public_key, self.head_public_key)

    def provider(self, ledger: Path) -> Pkcs11Provider:
        profile = load_profile(PROFILE)
        return Pkcs11Provider(self.token, profile, LedgerChipRecords(ledger), Pkcs11Masters)


def make_home(place: Path) -> Home:
    """A home with the province's keys in use."""
    place.mkdir(parents=True, exist_ok=True)
    config, profile = _token(place), load_profile(PROFILE)
    with KeyToken(config) as token:
        ceremony.generate_keys(token)
        transport = ceremony.export_transport_public_key(token)
        home = Home(place, config, transport, ceremony.export_head_public_key(token))
    provider = home.provider(place / "no ledger")
    wanted = []
    for usage, key in formal_masters(profile).items():
        label = labels.formal(usage, FORMAL_VERSION)
        one = Random(label).randbytes(16)
        other = bytes(a ^ b for a, b in zip(one, key, strict=True))
        parts = [seal_part(transport, label, n, p) for n, p in enumerate((one, other), start=1)]
        wanted.append(provider.combine(label, profile.suite, parts).label)
    provider.set_state(wanted, KeyState.ACTIVE)
    provider.close()
    return home


def _token(place: Path) -> TokenConfig:
    create_token(place / "token", _PIN, _SO_PIN)
    if not (place / "pin").exists():
        write_pin_file(place / "pin", _PIN)
    return token_config(place / "token", place / "pin")


def formal_masters(profile: Profile) -> dict[str, bytes]:
    """The province's masters by usage, the same in every simulation."""
    return {k.usage: Random(f"master {k.usage}").randbytes(16) for k in profile.keys}


_city_keys: dict[tuple[str, str, bytes], bytes] = {}


def _next_level(profile: Profile, key: bytes, factor: bytes) -> bytes:
    return encipher(profile.suite, key, factor + bytes(b ^ 0xFF for b in factor))


def is_formal_key(profile: Profile, usage: str, identification_code: str, key: bytes) -> bool:
    """Whether `key` is what a chip's should be, computed as a factory would: no code of the
    centre. A device may set the parity bits of DES its own way."""
    city = identification_code[:6].encode() + b"sx"
    chip = bytes.fromhex(identification_code[-16:])
    of_city = profile.id, usage, city
    if of_city not in _city_keys:
        _city_keys[of_city] = _next_level(profile, formal_masters(profile)[usage], city)
    expected = _next_level(profile, _city_keys[of_city], chip)
    return bytes(b & 0xFE for b in expected) == bytes(b & 0xFE for b in key)
