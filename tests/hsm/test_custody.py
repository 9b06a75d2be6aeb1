"""Custody of keys on a real token, 3DES in it and SM4 sealed under a key of it."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pkcs11 import Attribute, KeyType, MechanismFlag

from actors.hsm.backup import SavedKey, sealed
from actors.hsm.custody import Custody
from actors.hsm.token import KeyToken
from domain.card.profile import Profile, load_profile
from domain.custody import LARGEST_BLOCK
from domain.provider import KeyEntry, KeyRefused, KeyState
from tests.conformance.custody_specimen import Centre, Make
from tests.conformance.custody_suite import CHECKS
from tests.hsm.place import (
    DES3,
    SDF,
    WRAPPED,
    Home,
    make_home,
    make_masters,
    sealed_parts,
    stage_formal_keys,
)


def short_profile(profile_id: str) -> Profile:
    """The profile with two usages, the loading key among them: each key is written to disk."""
    profile = load_profile(profile_id)
    return replace(profile, keys=(profile.key("EAK"), profile.key("MK")))


@pytest.fixture(scope="session")
def inits(tmp_path_factory: pytest.TempPathFactory, new_home: Home) -> list[Home]:
    """Two centres as `centre init` leaves them: their key pairs take a while, so tests copy."""
    return [new_home, make_home(tmp_path_factory.mktemp("init"), DES3, new_home.sdf_library)]


@pytest.mark.parametrize("kind", [DES3, WRAPPED])
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_conformance(
    inits: list[Home], tmp_path: Path, kind: str, check: Callable[[Make], None]
) -> None:
    """This custody does what every custody must."""
    turn = itertools.count()

    @contextmanager
    def make() -> Iterator[Centre]:
        number = next(turn)
        init = inits[number % 2]
        home = make_home(tmp_path / str(number), kind, init.sdf_library, init)
        home = replace(home, profile=short_profile(home.profile.id))
        provider = home.provider()
        try:
            yield Centre(provider, home.profile, home.transport_public_key, home.head_public_key)
        finally:
            provider.close()

    check(make)


class Acts:
    """Acts in processes of their own (`killed_act`), each on a copy of one token."""

    def __init__(self, place: Path, suite: str) -> None:
        self._place, self._suite = place, suite
        self._copies = itertools.count()
        self._driver = subprocess.Popen(
            [sys.executable, "-m", "tests.hsm.killed_act"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(p or "." for p in sys.path)},
        )

    def close(self) -> None:
        with self._driver as driver:
            assert driver.stdin is not None
            driver.stdin.close()

    def copy(self, home: Home) -> Home:
        place = self._place / f"copy-{next(self._copies)}"
        return make_home(place, home.kind, home.sdf_library, home)

    def do(self, home: Home, method: str, *args: object, at: int = 0) -> dict[str, Any]:
        """Do the act, killed at point `at` (0: not at all)."""
        c = home.config
        order = {
            "token": [c.module, str(c.conf), c.label, str(c.pin_file)],
            "suite": self._suite,
            "method": method,
            "args": args,
            "at": at,
        }
        assert self._driver.stdin is not None
        assert self._driver.stdout is not None
        self._driver.stdin.write(json.dumps(order, default=lambda b: {"hex": b.hex()}) + "\n")
        self._driver.stdin.flush()
        answer: dict[str, Any] = json.loads(self._driver.stdout.readline())
        return answer

    def killed_everywhere(self, home: Home, method: str, *args: object) -> Home:
        """Kill the act at each of its points, each time on a new copy of `home`, and do it again:
        it must end as an act that nobody killed. Answers a home where it was done."""
        done = self.copy(home)
        whole = self.do(done, method, *args)
        for at in itertools.count(1):
            cut = self.copy(home)
            if "killed" not in self.do(cut, method, *args, at=at):
                assert at > 3, "hardly a point at which it was killed"
                return done
            assert self.do(cut, method, *args) == whole, f"{method} killed at point {at}"
        raise AssertionError("unreachable")


@contextmanager
def custody(home: Home, suite: str) -> Iterator[Custody]:
    """In this process."""
    with KeyToken(home.config) as token:
        masters = make_masters(WRAPPED if suite == "sm4" else DES3, token, home.sdf_library)
        yield Custody(token, masters, short_profile(f"ssc-{suite}"))


@pytest.mark.parametrize("suite", ["3des", "sm4"])
def test_acts_are_finished_after_kills(inits: list[Home], tmp_path: Path, suite: str) -> None:
    """A key is combined, a version follows another, keys are destroyed, a backup is restored,
    killed (SIGKILL) at every point: the same act again ends with the same keys, states and answer
    as one that nobody killed."""
    with closing(Acts(tmp_path, suite)) as acts:
        home, other = (acts.copy(init) for init in inits)
        kek = [os.urandom(32), os.urandom(32)]
        for centre in (home, other):
            with custody(centre, suite) as keys:
                keys.combine("kek:v1", "aes", parts(centre, "kek:v1", *kek))
                keys.set_state(["kek:v1"], KeyState.ACTIVE)
        first, second = (
            [f"formal:{usage}:v{version}" for usage in ("EAK", "MK")] for version in (1, 2)
        )
        brought = {label: parts(home, label) for label in (*first, *second)}
        home = acts.killed_everywhere(home, "combine", first[0], suite, brought[first[0]])
        with custody(home, suite) as keys:
            for label in (first[1], *second):
                keys.combine(label, suite, brought[label])
            keys.set_state(first, KeyState.ACTIVE)
        home = acts.killed_everywhere(home, "set_state", second, "active")
        if suite == "sm4":
            acts.killed_everywhere(home, "destroy", first)
            return
        with custody(home, suite) as keys:
            blob = keys.export([second[0], "index", "head", "transport"], 1)
        acts.killed_everywhere(other, "restore", blob, {second[0]: "active"})


def parts(home: Home, label: str, *components: bytes) -> list[bytes]:
    """Sealed components of a key; random ones of 16 bytes if none are given."""
    return sealed_parts(
        home.transport_public_key, label, components or (os.urandom(16), os.urandom(16))
    )


def test_masters_in_a_device_stay_there(tmp_path: Path, new_home: Home) -> None:
    """What custodians bring goes into the SDF device, serves when it is active, is refused to
    leave, and is no part of a backup: the device has one of its own."""
    home = make_home(tmp_path, SDF, new_home.sdf_library, new_home)
    provider = home.provider()
    staged = stage_formal_keys(provider, home.transport_public_key, home.profile)
    provider.set_state([entry.label for entry in staged], KeyState.ACTIVE)
    kek = parts(home, "kek:v1", os.urandom(32), os.urandom(32))
    provider.combine("kek:v1", "aes", kek)
    provider.set_state(["kek:v1"], KeyState.ACTIVE)
    with pytest.raises(KeyRefused, match="KEY_STAYS"):
        provider.export([staged[0].label], 1)
    saved = {key["label"] for key in json.loads(provider.backup(1))["keys"]}
    assert saved == {"index", "head", "transport"}
    provider.close()


def test_what_may_not_be_done_in_memory_is_refused(tmp_path: Path, new_home: Home) -> None:
    """Where the configuration forbids what is software-assisted, no components are joined."""
    home = make_home(tmp_path, DES3, new_home.sdf_library, new_home)
    provider = home.provider(software=False)
    with pytest.raises(KeyRefused, match="KEY_SOFTWARE_FORBIDDEN"):
        provider.combine("formal:MK:v1", "3des", parts(home, "formal:MK:v1"))
    assert not any(entry.label.startswith("formal") for entry in provider.inventory())
    provider.close()


def test_a_backup_is_no_larger_than_the_way_back(inits: list[Home]) -> None:
    """A file that `centre key restore` could not send is refused when it is written."""
    with custody(inits[0], "3des") as keys, keys.token.alone():
        kek = keys.token.session.generate_key(KeyType.AES, 256, capabilities=MechanismFlag.WRAP)
        entry = KeyEntry("bank:102:kmc:v1", "kmc", 1, "3des", KeyState.ACTIVE, "ABCDEF")
        saved = [SavedKey(entry, bytes(24))]
        assert len(sealed(keys.token, kek, 1, saved * 300)) < LARGEST_BLOCK
        with pytest.raises(KeyRefused, match="FILE_TOO_LARGE"):
            sealed(keys.token, kek, 1, saved * 400)


def test_what_a_bank_sends_stays_in_the_token(inits: list[Home], tmp_path: Path) -> None:
    """A bank's transport key opens keys into the token; the token deciphers nothing with it."""
    home = make_home(tmp_path, DES3, inits[0].sdf_library, inits[0])
    label = "bank:102:transport:v1"
    with custody(home, "3des") as keys:
        keys.combine(label, "3des", parts(home, label))
        key = keys.token.find(label)
        assert (key[Attribute.UNWRAP], key[Attribute.DECRYPT]) == (True, False)
