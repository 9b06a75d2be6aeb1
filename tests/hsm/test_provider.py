"""The PKCS#11 provider on a real token: conformance, loss of the session, self-test, secrecy."""

from __future__ import annotations

import ctypes
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pkcs11
import pytest
from pkcs11 import Attribute, ObjectClass
from pkcs11.exceptions import PKCS11Error

from actors.hsm import labels
from actors.hsm.channel_answers import CHANNEL_ANSWERS
from actors.hsm.pkcs11_masters import KNOWN_ANSWERS as MASTERS_ANSWERS
from actors.hsm.pkcs11_provider import Pkcs11Provider
from actors.hsm.self_test import SUITE_ANSWERS, TOKEN_ANSWERS, SelfTestFailed
from domain.codes import Code
from domain.provider import (
    Authenticate,
    Chip,
    FormalVersion,
    KeyBlockRefused,
    KeyChange,
    KeyRefused,
    KeySet,
    LookUp,
    ProveCheckValue,
    ProviderError,
    RecordUnsealable,
)
from tests.conformance.card_side import Factory, Records, identification_code, take_temporary_keys
from tests.conformance.provider_specimen import Specimen
from tests.conformance.provider_suite import check_key_provider
from tests.hsm.place import DES3, KINDS, SDF, Home, bring_formal_keys, make_home


@pytest.mark.parametrize("kind", KINDS)
def test_conformance(tmp_path: Path, new_home: Home, kind: str) -> None:
    """The provider does what every provider must, wherever its masters live."""

    @contextmanager
    def make() -> Iterator[Specimen]:
        home = make_home(tmp_path, kind, new_home.sdf_library, new_home)
        bring_formal_keys(home)
        records = Records()
        provider = home.provider(records)
        try:
            yield Specimen(
                provider,
                provider.masters,
                records,
                home.profile,
                home.transport_public_key,
                home.head_public_key,
            )
        finally:
            provider.close()

    check_key_provider(make)


def test_keys_survive_a_new_session(home: Home, provider: Pkcs11Provider) -> None:
    """What one session sealed, indexed and derived, the next one opens and gives again."""
    chip = Chip(identification_code(1), "none", "carton-20")
    request = Authenticate(chip, KeySet.FORMAL, "EAK", bytes(8))
    (sealed,) = provider.seal("survive", [("order", b"plain")])
    before = (provider.index(["1"]), provider.perform([request]))
    provider.close()
    assert provider.unseal("survive", [("order", sealed)]) == [b"plain"]
    assert (provider.index(["1"]), provider.perform([request])) == before


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_lost_session_is_reported_once_and_opened_again(
    home: Home, provider: Pkcs11Provider
) -> None:
    """When the device goes away under a provider, the call raises ProviderError and the next
    call is served by a new session, with city and data keys found anew."""
    chip = Chip(identification_code(2), "none", "carton-20")
    request = Authenticate(chip, KeySet.FORMAL, "EAK", bytes(8))
    answer = provider.perform([request])
    (sealed,) = provider.seal("lost", [("order", b"plain")])
    pkcs11.lib(home.config.module).finalize()
    with pytest.raises(ProviderError):
        provider.perform([request])
    assert provider.perform([request]) == answer
    pkcs11.lib(home.config.module).finalize()
    with pytest.raises(ProviderError):
        provider.unseal("lost", [("order", sealed)])
    assert provider.unseal("lost", [("order", sealed)]) == [b"plain"]


KNOWN_ANSWERS = (
    *SUITE_ANSWERS["3des"],
    *TOKEN_ANSWERS,
    *CHANNEL_ANSWERS,
    *MASTERS_ANSWERS,
)


@pytest.mark.parametrize("name", [answer.name for answer in KNOWN_ANSWERS])
def test_a_known_answer_that_fails_stops_the_service(provider: Pkcs11Provider, name: str) -> None:
    """Any one vector that comes out otherwise: no call is served, and the test is run again at
    the next call."""
    provider.known_answers = tuple(
        a._replace(wanted=bytes(8)) if a.name == name else a for a in KNOWN_ANSWERS
    )
    for _ in range(2):
        with pytest.raises(SelfTestFailed, match=name):
            provider.index(["1"])
    provider.known_answers = KNOWN_ANSWERS
    assert provider.self_test() == [a.name for a in KNOWN_ANSWERS]


@pytest.mark.parametrize("kind", KINDS)
def test_without_keys_in_memory_only_the_token_serves(
    tmp_path: Path, new_home: Home, kind: str
) -> None:
    """Forbidden, every operation that needs a key in memory is refused with its code, a key block
    if the masters are not the token's own; sealing, look-up and signing go on."""
    home = make_home(tmp_path, kind, new_home.sdf_library, new_home)
    bring_formal_keys(home)
    provider = home.provider(software=False)
    try:
        chip = Chip(identification_code(1), "none", "carton-20")
        (sealed,) = provider.seal("forbidden", [("order", b"plain")])
        assert provider.unseal("forbidden", [("order", sealed)]) == [b"plain"]
        assert provider.sign([bytes(32)])
        answers = provider.perform(
            [
                LookUp("1"),
                Authenticate(chip, KeySet.FORMAL, "EAK", bytes(8)),
                KeyChange(chip, "EAK", bytes(8)),
                ProveCheckValue(chip, "EAK", 0, bytes(3)),
                FormalVersion(),
            ]
        )
        forbidden = Code.KEY_SOFTWARE_FORBIDDEN
        assert [a.refused for a in answers] == ["", forbidden, forbidden, forbidden, ""]
        block = Factory.of("forbidden", home.profile).sealed(home.transport_public_key)
        if kind == DES3:
            assert take_temporary_keys(provider, block)
        else:
            with pytest.raises(KeyRefused, match=forbidden):
                take_temporary_keys(provider, block)
    finally:
        provider.close()


def test_a_device_that_computes_wrongly_serves_nothing(tmp_path: Path, new_home: Home) -> None:
    """The self-test of an SDF device runs before the first call and after each fault; while it
    fails, nothing is served, and service comes back with right answers."""
    home = make_home(tmp_path, SDF, new_home.sdf_library, new_home)
    bring_formal_keys(home)
    device = ctypes.CDLL(str(home.sdf_library))
    provider = home.provider()
    chip = Chip(identification_code(1), "none", "carton-20")
    request = Authenticate(chip, KeySet.FORMAL, "EAK", bytes(8))
    try:
        device.double_compute_wrongly(1)
        for _ in range(2):
            with pytest.raises(SelfTestFailed, match="sdf-sm4-ecb"):
                provider.index(["1"])
        device.double_compute_wrongly(0)
        (answer,) = provider.perform([request])
        assert answer.data
        device.double_lose_sessions()
        device.double_compute_wrongly(1)
        for error in (ProviderError, SelfTestFailed):
            with pytest.raises(error):
                provider.perform([request])
        device.double_compute_wrongly(0)
        assert provider.perform([request]) == [answer]
    finally:
        device.double_compute_wrongly(0)
        provider.close()


def test_what_another_process_changes_is_seen(home: Home, provider: Pkcs11Provider) -> None:
    """A master that another process of this machine adds serves at the next call."""
    chip = Chip(identification_code(1), "elsewhere", "carton-20")
    request = Authenticate(chip, KeySet.TEMPORARY, "MK", bytes(8))
    assert provider.perform([request])[0].refused == Code.KEY_UNKNOWN
    script = _ADD.format(label=labels.temporary("elsewhere", "MK", 0))
    config = home.config
    arguments = [config.module, str(config.conf), config.label, str(config.pin_file)]
    subprocess.run(
        [sys.executable, "-c", script, *arguments],
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p or "." for p in sys.path)},
        timeout=60,
    )
    assert provider.perform([request])[0].data
    provider.masters.destroy(labels.temporary("elsewhere", "MK", 0))


_ADD = """
import os
import sys
from pathlib import Path
from actors.hsm.pkcs11_masters import Pkcs11Masters
from actors.hsm.token import KeyToken, TokenConfig
module, conf, label, pin_file = sys.argv[1:]
with KeyToken(TokenConfig(module, Path(conf), label, Path(pin_file))) as token:
    Pkcs11Masters(token).create("{label}", os.urandom(16), "active")
"""


def test_no_key_can_be_read_or_taken_out(home: Home, provider: Pkcs11Provider) -> None:
    """Of every secret and private key in the token the value is refused. Only keys of a backup
    may leave wrapped, and the transport key, which is public, wraps nothing."""
    provider.seal("secret", [("order", b"x")])
    take_temporary_keys(
        provider, Factory.of("secret", home.profile).sealed(home.transport_public_key)
    )
    session = provider.token.session
    keys = [
        key
        for kind in (ObjectClass.SECRET_KEY, ObjectClass.PRIVATE_KEY)
        for key in list(session.get_objects({Attribute.CLASS: kind, Attribute.TOKEN: True}))
    ]
    assert len(keys) >= 6 + 6 + 4
    transport = provider.token.find(labels.TRANSPORT, ObjectClass.PUBLIC_KEY)
    for key in keys:
        private = key[Attribute.CLASS] == ObjectClass.PRIVATE_KEY
        secret = (
            Attribute.VALUE
            if not private or key[Attribute.LABEL] == labels.HEAD
            else Attribute.PRIVATE_EXPONENT
        )
        with pytest.raises(PKCS11Error):
            key[secret]
        assert key[Attribute.SENSITIVE]
        label = key[Attribute.LABEL]
        leaves = label.startswith("formal:") or label in ("index", "head", "transport")
        assert key[Attribute.EXTRACTABLE] is leaves
        with pytest.raises(PKCS11Error):
            key[Attribute.SENSITIVE] = False
        if not leaves:
            with pytest.raises(PKCS11Error):
                key[Attribute.EXTRACTABLE] = True
    assert not transport[Attribute.WRAP]


def test_transport_key_only_unwraps(provider: Pkcs11Provider) -> None:
    """The token does not decrypt a factory's key into the memory of the process."""
    provider.self_test()
    private = provider.token.find(labels.TRANSPORT, ObjectClass.PRIVATE_KEY)
    assert private[Attribute.UNWRAP]
    assert not private[Attribute.DECRYPT]
    assert not private[Attribute.SIGN]


def test_inventory_names_every_key_with_its_check_value(
    home: Home, provider: Pkcs11Provider
) -> None:
    """Label, usage, version and check value: the factory's as given, the same after reopening."""
    factory = Factory.of("inventory:of-one", home.profile)
    accepted = take_temporary_keys(provider, factory.sealed(home.transport_public_key))
    entries = {entry.label: entry for entry in provider.inventory()}
    for key in accepted:
        entry = entries[key.label]
        assert (entry.usage, entry.version) == (key.usage, key.version)
        assert entry.check_value == key.check_value
    formal = entries[labels.formal("MK", 1)]
    assert (formal.usage, formal.version) == ("MK", 1)
    assert all(len(entry.check_value) == 6 for entry in entries.values())
    provider.close()
    provider.self_test()
    assert {e.label: e for e in provider.inventory()} == entries


def test_refusals_cross_a_process_boundary() -> None:
    """Exceptions that a provider raises come out of pickle as they went in (an actor's caller
    is another process)."""
    refused = pickle.loads(pickle.dumps(KeyBlockRefused("KEY_BLOCK_BAD", "format: must be 1")))
    assert (refused.code, refused.reason) == ("KEY_BLOCK_BAD", "format: must be 1")
    assert str(refused) == "KEY_BLOCK_BAD: format: must be 1"
    assert pickle.loads(pickle.dumps(RecordUnsealable("order-1"))).order_id == "order-1"


_SEAL = """
import json, sys
from pathlib import Path
from actors.hsm.pkcs11_provider import Pkcs11Provider
from actors.hsm.token import TokenConfig
from domain.card.profile import load_profile
from tests.conformance.card_side import Records
module, conf, label, pin_file, me = sys.argv[1:]
provider = Pkcs11Provider(
    TokenConfig(module, Path(conf), label, Path(pin_file)), load_profile("ssc-3des"), Records())
out = {}
for batch in range(5):
    batch_id = f"race-{batch}"
    out[batch_id] = provider.seal(batch_id, [(f"{me}", me.encode())])[0].hex()
print(json.dumps(out))
"""


def test_many_processes_open_one_token_and_make_each_data_key_once(
    home: Home, provider: Pkcs11Provider
) -> None:
    """Eight providers start at once on one token and seal for the same new batches: all open,
    and every record opens under the one data key of its batch."""
    config = home.config
    arguments = [config.module, str(config.conf), config.label, str(config.pin_file)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _SEAL, *arguments, f"p{n}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(p or "." for p in sys.path)},
        )
        for n in range(8)
    ]
    for n, process in enumerate(processes):
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err.decode()
        # The log goes to standard output, too; the answer is its last line.
        sealed = json.loads(out.splitlines()[-1])
        for batch_id, box in sealed.items():
            assert provider.unseal(batch_id, [(f"p{n}", bytes.fromhex(box))]) == [f"p{n}".encode()]
