"""Chips a second for which keys are prepared, and the ciphers beneath, bare.

*Provider*: whole `perform` calls of 256 chips in three cities: EXTERNAL AUTHENTICATE with the
temporary loading key, WRITE KEY and the check value of every key of the profile. What the ledger
answers is given from memory.
*Floor*: the same derivations through the same masters, then the same cipher calls of the same
library: each key made ready once, each block enciphered once, nothing around them; its outcome is
compared with the provider's. Rounds alternate; processor time of one process, so of one core.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import click

from actors.hsm import ceremony, labels
from actors.hsm.masters import Masters, MasterState
from actors.hsm.pkcs11_masters import Pkcs11Masters
from actors.hsm.pkcs11_provider import Pkcs11Provider
from actors.hsm.sdf_masters import SdfMasters
from actors.hsm.suites import Suite
from actors.hsm.token import KeyToken, create_token, token_config, write_pin_file
from actors.hsm.wrapped_masters import WrappedMasters
from bench.chips import BenchError
from centre import logs
from domain.card.profile import Profile, load_profile
from domain.provider import (
    Authenticate,
    Chip,
    KeyChange,
    KeySet,
    KeyStanding,
    ProveCheckValue,
    Request,
)

CHIPS = 256
BATCH, CARTON = "bench", "carton"
VERSION = 1
SDF_DOUBLE = Path(__file__).parents[1] / "tests" / "hsm" / "sdf_double.c"
SDF_KEK = 3


class EveryChip:
    """`ChipRecords` that admits all."""

    def carton_quota(self, carton_id: str) -> int:
        return CHIPS

    def carton_drawn(self, carton_id: str) -> Sequence[str]:
        return ()

    def carton_released(self, carton_id: str) -> int:
        return len(self.carton_drawn(carton_id))

    def carton_bank(self, carton_id: str) -> str:
        return ""

    def key_standings(self, identification_codes: Sequence[str]) -> dict[str, KeyStanding]:
        return {}


@dataclass(frozen=True)
class Prepared:
    """One kind of masters: chips a second and core, of the provider and of the floor."""

    name: str
    provider: float
    floor: float
    ratio: float


def measure(place: Path, rounds: int) -> list[Prepared]:
    """Each suite and provider, in the empty directory `place`."""
    place.mkdir(parents=True)
    library = place / "libsdf_double.so"
    compiler = ["gcc", "-shared", "-fPIC", "-O2", "-o", str(library), str(SDF_DOUBLE)]
    subprocess.run(compiler, check=True)
    kinds: list[tuple[str, str, Callable[[KeyToken], Masters]]] = [
        ("3DES, token (SoftHSM2)", "ssc-3des", Pkcs11Masters),
        ("SM4, sealed under the token", "ssc-sm4", WrappedMasters),
        ("SM4, SDF (double in C)", "ssc-sm4", lambda t: SdfMasters(t, library, SDF_KEK)),
    ]
    return [
        _measured(place / str(n), rounds, name, load_profile(profile), masters)
        for n, (name, profile, masters) in enumerate(kinds)
    ]


def _measured(
    place: Path, rounds: int, name: str, profile: Profile, kind: Callable[[KeyToken], Masters]
) -> Prepared:
    create_token(place / "token", "bench-pin", "bench-officer-pin")
    write_pin_file(place / "pin", "bench-pin")
    config = token_config(place / "token", place / "pin")
    with KeyToken(config) as token:
        masters = kind(token)
        ceremony.generate_keys(token)
        for slot in profile.keys:
            label = labels.formal(slot.usage, VERSION)
            masters.create(label, os.urandom(16), MasterState.ACTIVE)
        for slot in profile.keys:
            label = labels.temporary(BATCH, slot.usage, profile.temporary_version)
            masters.create(label, os.urandom(16), MasterState.ACTIVE)
        masters.forget()
    provider = Pkcs11Provider(config, profile, EveryChip(), kind)
    try:
        chunk = _Chunk(provider.masters, profile)
        spent: list[tuple[float, float]] = []
        for _ in range(rounds + 1):
            spent.append((chunk.by_provider(provider), chunk.bare()))
        ours, floor = (median(column) for column in zip(*spent[1:], strict=True))
        ratio = median(bare / own for own, bare in spent[1:])
        return Prepared(name, CHIPS / ours, CHIPS / floor, ratio)
    finally:
        provider.close()


class _Chunk:
    """One chunk of requests, as the provider does it and bare."""

    def __init__(self, masters: Masters, profile: Profile) -> None:
        self._masters, self._profile = masters, profile
        codes = [f"4301{n % 3:02d}D156000005{n:016X}" for n in range(CHIPS)]
        self._chips = [(code, os.urandom(8)) for code in codes]
        self._requests: list[Request] = []
        for code, challenge in self._chips:
            chip = Chip(code, BATCH, CARTON)
            loading = profile.loading_usage
            self._requests.append(Authenticate(chip, KeySet.TEMPORARY, loading, challenge))
            for slot in profile.keys:
                self._requests.append(KeyChange(chip, slot.usage, challenge))
                self._requests.append(ProveCheckValue(chip, slot.usage, VERSION, bytes(3)))
        self._written: list[bytes] = []

    def by_provider(self, provider: Pkcs11Provider) -> float:
        """Processor seconds."""
        started = time.process_time()
        answers = provider.perform(self._requests)
        spent = time.process_time() - started
        if any(answer.refused for answer in answers):
            raise BenchError("the provider refused what the bench asked")
        self._written = [answer.data for answer in answers if answer.data]
        return spent

    def bare(self) -> float:
        """Processor seconds."""
        profile, suite = self._profile, self._masters.suite
        loading = labels.temporary(BATCH, profile.loading_usage, profile.temporary_version)
        wanted = [loading, *(labels.formal(slot.usage, VERSION) for slot in profile.keys)]
        cities: dict[bytes, list[int]] = {}
        for n, (code, _) in enumerate(self._chips):
            cities.setdefault(profile.city_factor(code), []).append(n)
        factors = [profile.chip_factor(code) for code, _ in self._chips]
        heads = [bytes((0x84, 0xD4, VERSION, slot.key_id)) for slot in profile.keys]
        started = time.process_time()
        keys: list[list[bytes]] = []
        for label in wanted:
            of_chips = [b""] * CHIPS
            for city, places in cities.items():
                derived = self._masters.chip_keys(label, city, [factors[n] for n in places])
                for n, key in zip(places, derived, strict=True):
                    of_chips[n] = key
            keys.append(of_chips)
        written: list[bytes] = []
        for n, (_, challenge) in enumerate(self._chips):
            _bare_chip(suite, challenge, keys[0][n], [k[n] for k in keys[1:]], heads, written)
        spent = time.process_time() - started
        if written != self._written:
            raise BenchError("the floor did not compute what the provider did")
        return spent


def _bare_chip(
    suite: Suite,
    challenge: bytes,
    loading: bytes,
    new_keys: Sequence[bytes],
    heads: Sequence[bytes],
    written: list[bytes],
) -> None:
    """The ciphers of one chip: as many contexts and calls as they need, and no more."""
    size = suite.block
    encipher = suite.encipherer(loading)
    first = challenge.ljust(size, b"\x00")
    iv = int.from_bytes(first, "big")
    written.append(encipher(first))
    chain = encipher if size == 16 else suite.encipherer(loading[:8] * 2)
    for head, new in zip(heads, new_keys, strict=True):
        body = encipher((b"\x10" + new + b"\x80").ljust(24 if size == 8 else 32, b"\x00"))
        apdu = head + bytes((len(body) + 4,)) + body
        padded = (apdu + b"\x80").ljust(32 if size == 8 else 48, b"\x00")
        linked = iv
        for at in range(0, len(padded) - size, size):
            linked ^= int.from_bytes(padded[at : at + size], "big")
            linked = int.from_bytes(chain(linked.to_bytes(size, "big")), "big")
        linked ^= int.from_bytes(padded[-size:], "big")
        written.append(apdu + encipher(linked.to_bytes(size, "big"))[:4])
        suite.encipherer(new)(suite.check_block)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        logs.configure(Path(directory) / "bench.log", "json")
        for figures in measure(Path(directory) / "keys", 15):
            click.echo(str(figures))
