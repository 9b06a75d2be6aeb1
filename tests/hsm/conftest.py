"""One token for the whole run (its key pairs take a while), and one provider at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.hsm.pkcs11_provider import Pkcs11Provider
from tests.hsm.place import DES3, Home, bring_formal_keys, compile_double, make_home


@pytest.fixture(scope="session")
def new_home(tmp_path_factory: pytest.TempPathFactory, sdf_library: Path) -> Home:
    """To be copied, not used: as `centre init` leaves it, without masters."""
    return make_home(tmp_path_factory.mktemp("new"), DES3, sdf_library)


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory, new_home: Home) -> Home:
    home = make_home(tmp_path_factory.mktemp("hsm"), DES3, new_home.sdf_library, new_home)
    bring_formal_keys(home)
    return home


@pytest.fixture(scope="session")
def sdf_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The double of a GM/T 0018 device, compiled."""
    return compile_double(tmp_path_factory.mktemp("sdf") / "libsdf_double.so")


@pytest.fixture
def provider(home: Home) -> Iterator[Pkcs11Provider]:
    provider = home.provider()
    yield provider
    provider.close()
