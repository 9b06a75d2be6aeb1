"""One token for the whole run (its key pairs take a while), and one provider at a time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from actors.hsm import ceremony
from actors.hsm.pkcs11_masters import Pkcs11Masters
from actors.hsm.pkcs11_provider import Pkcs11Provider
from actors.hsm.token import KeyToken
from domain.card.profile import load_profile
from tests.conformance.card_side import drawn, quota
from tests.hsm.place import Home, blank_token


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    config = blank_token(tmp_path_factory.mktemp("hsm"))
    profile = load_profile("ssc-3des")
    with KeyToken(config) as token:
        ceremony.generate_keys(token, profile, Pkcs11Masters(token))
        return Home(
            config,
            profile,
            ceremony.export_transport_public_key(token),
            ceremony.export_head_public_key(token),
        )


@pytest.fixture
def provider(home: Home) -> Iterator[Pkcs11Provider]:
    provider = Pkcs11Provider(home.config, home.profile, quota, drawn)
    yield provider
    provider.close()
