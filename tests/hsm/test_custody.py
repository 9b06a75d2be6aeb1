"""Custody of keys on a real token, 3DES in it and SM4 sealed under a key of it."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from actors.hsm.custody import Custody
from actors.hsm.masters import Masters
from actors.hsm.pkcs11_masters import Pkcs11Masters
from actors.hsm.pkcs11_provider import Pkcs11Provider
from actors.hsm.token import KeyToken, token_config, write_softhsm_conf
from actors.hsm.wrapped_masters import WrappedMasters
from domain.card.profile import Profile, load_profile
from domain.provider import KeyState
from tests.conformance.card_side import drawn, quota
from tests.conformance.custody_suite import CHECKS, Centre, Make
from tests.hsm.place import Home, sealed_parts, token_of_init


def short_profile(profile_id: str) -> Profile:
    """The profile with two usages, the loading key among them: each key is written to disk."""
    profile = load_profile(profile_id)
    return replace(profile, keys=(profile.key("EAK"), profile.key("MK")))


KINDS: dict[str, tuple[str, Callable[[KeyToken], Masters]]] = {
    "3des in the token": ("ssc-3des", Pkcs11Masters),
    "sm4 wrapped": ("ssc-sm4", WrappedMasters),
}


@pytest.fixture(scope="module")
def inits(tmp_path_factory: pytest.TempPathFactory) -> list[Home]:
    """Two centres as `centre init` leaves them: their key pairs take a while, so tests copy."""
    profile = load_profile("ssc-3des")
    return [token_of_init(tmp_path_factory.mktemp("init"), profile) for _ in range(2)]


def copied(home: Home, place: Path) -> Home:
    """The same token in another place."""
    shutil.copytree(home.config.conf.parent, place / "token")
    shutil.copy(home.config.pin_file, place / "pin")
    write_softhsm_conf(place / "token")
    config = token_config(place / "token", place / "pin")
    return Home(config, home.profile, home.transport_public_key, home.head_public_key)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_conformance(
    inits: list[Home], tmp_path: Path, kind: str, check: Callable[[Make], None]
) -> None:
    """This custody does what every custody must."""
    profile_id, masters = KINDS[kind]
    profile, turn = short_profile(profile_id), itertools.count()

    @contextmanager
    def make() -> Iterator[Centre]:
        number = next(turn)
        home = copied(inits[number % 2], tmp_path / str(number))
        provider = Pkcs11Provider(home.config, profile, quota, drawn, masters)
        try:
            yield Centre(provider, profile, home.transport_public_key, home.head_public_key)
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
        return copied(home, self._place / f"copy-{next(self._copies)}")

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
        masters = WrappedMasters(token) if suite == "sm4" else Pkcs11Masters(token)
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
        acts.killed_everywhere(other, "restore", blob)


def parts(home: Home, label: str, *components: bytes) -> list[bytes]:
    """Sealed components of a key; random ones of 16 bytes if none are given."""
    return sealed_parts(
        home.transport_public_key, label, components or (os.urandom(16), os.urandom(16))
    )
