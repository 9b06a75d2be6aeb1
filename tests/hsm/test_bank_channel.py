"""Channels with the banks' applications through the provider and its token: a KMC serves the
chips of its own bank, in its state, within the quota, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from Crypto.Cipher import AES, DES3
from pkcs11 import Attribute, KeyType, ObjectClass

from actors.hsm import labels
from actors.hsm.masters import MasterState
from actors.hsm.pkcs11_provider import Pkcs11Provider
from domain.card.apdu import initialize_update, select_application
from domain.codes import Code
from domain.provider import (
    Answer,
    Channel,
    Chip,
    OpenChannel,
    ReadChannel,
    ReplaceCardKeys,
)
from station_agents.virtual.financial_memory import AES as AES_TYPE
from station_agents.virtual.financial_memory import DES, KeySet
from tests.conformance.card_side import Records, identification_code
from tests.hsm import bank_chip
from tests.hsm.place import Home
from tests.virtual import bank

BANK, OTHER = "102", "103"
BANKS = {"K1": BANK, "K2": OTHER, "K3": BANK}
GET_DATA = bytes.fromhex("80CA006600")
KMC = {version: bytes(range(version, version + 16)) for version in (1, 2, 3, 4)}
AES_KMC = bytes(range(32))
AES_VERSION = 9


class OfBanks(Records):
    """Cartons of two bodies."""

    def carton_quota(self, carton_id: str) -> int:
        return 2

    def carton_bank(self, carton_id: str) -> str:
        return BANKS.get(carton_id, "")


@pytest.fixture
def banks(home: Home) -> Iterator[Pkcs11Provider]:
    """Of bank 102: versions 1 and 2 active, 3 staged, 4 retired, 9 AES-256; of 103: version 1."""
    provider = home.provider(OfBanks())
    states = dict(zip(KMC, ("active", "active", "staged", "retired"), strict=True))
    made = [labels.kmc(BANK, version) for version in (*KMC, AES_VERSION)] + [labels.kmc(OTHER, 1)]
    for version, state in states.items():
        provider.masters.create(labels.kmc(BANK, version), KMC[version], state)
    provider.masters.create(labels.kmc(OTHER, 1), bytes(range(100, 116)), "active")
    provider.token.session.create_object(
        {
            Attribute.CLASS: ObjectClass.SECRET_KEY,
            Attribute.KEY_TYPE: KeyType.AES,
            Attribute.VALUE: AES_KMC,
            Attribute.TOKEN: True,
            Attribute.LABEL: labels.kmc(BANK, AES_VERSION),
            Attribute.ID: MasterState.ACTIVE.encode(),
            Attribute.SENSITIVE: True,
            Attribute.ENCRYPT: True,
        }
    )
    yield provider
    for label in made:
        provider.token.find(label).destroy()
    provider.close()


def _channel(carton: str = "K1", kmc_version: int = 1, serial: int = 1) -> Channel:
    """A chip that holds the keys of bank 102, KMC version 1."""
    return Channel(
        Chip(identification_code(serial), "", carton),
        kmc_version,
        "emv",
        bank_chip.HOST,
        bank_chip.scp02_answer(bank_chip.emv_keys(KMC[1])),
        0x01,
        (GET_DATA,),
    )


def _ask(provider: Pkcs11Provider, channel: Channel) -> Answer:
    (answer,) = provider.perform([OpenChannel(channel)])
    return answer


def test_a_chip_of_the_bank_is_served(banks: Pkcs11Provider) -> None:
    """All commands of a session in one request, the same bytes for the same request, also after
    the provider has lost its session: it keeps nothing between two requests."""
    answer = _ask(banks, _channel())
    assert not answer.refused
    assert [apdu[:4].hex() for apdu in answer.apdus] == ["84820100", "84ca0066"]
    banks.close()
    assert _ask(banks, _channel()) == answer


REFUSED = [
    (_channel(carton="K2"), Code.CARD_CRYPTOGRAM),
    (_channel(carton="K9"), Code.CARTON_UNKNOWN),
    (_channel(kmc_version=2), Code.CARD_CRYPTOGRAM),
    (_channel(kmc_version=3), Code.KEY_UNKNOWN),
    (_channel(kmc_version=5), Code.KEY_UNKNOWN),
    (_channel(kmc_version=AES_VERSION), Code.BAD_FORMAT),
    (replace(_channel(), diversification="kdf3"), Code.BAD_FORMAT),
    (replace(_channel(), diversification="none"), Code.BAD_FORMAT),
    (replace(_channel(), level=0x33), Code.BAD_FORMAT),
    (replace(_channel(), commands=(b"\x80",)), Code.BAD_FORMAT),
    (replace(_channel(), initialize_update=b""), Code.BAD_FORMAT),
    (replace(_channel(), host_challenge=b""), Code.BAD_FORMAT),
    (replace(_channel(), chip=Chip("", "", "K1")), Code.BAD_FORMAT),
    (replace(_channel(), commands=(ReplaceCardKeys(3, 0, 1),)), Code.KEY_UNKNOWN),
    (replace(_channel(), commands=(ReplaceCardKeys(4, 0, 1),)), Code.KEY_UNKNOWN),
    (replace(_channel(), commands=(ReplaceCardKeys(2, 0, 0),)), Code.BAD_FORMAT),
]


def test_anything_else_is_refused(banks: Pkcs11Provider) -> None:
    """Another bank's carton, an unknown one, a KMC that is not there, not active or of another
    kind, bytes that are no command: a code, no bytes, and the request beside them is served."""
    answers = banks.perform(
        [OpenChannel(channel) for channel in [*(c for c, _ in REFUSED), _channel()]]
    )
    assert [(a.refused, a.apdus) for a in answers[:-1]] == [(code, ()) for _, code in REFUSED]
    assert answers[-1].apdus


def test_a_carton_opens_no_more_chips_than_it_has(banks: Pkcs11Provider) -> None:
    """The quota of a carton (2 here) counts chips, not requests."""
    for serial in (1, 2, 1):
        assert not _ask(banks, _channel("K3", serial=serial)).refused
    assert _ask(banks, _channel("K3", serial=3)).refused == Code.KEY_QUOTA_EXCEEDED


def test_a_retired_kmc_serves_the_chips_that_carry_its_keys(banks: Pkcs11Provider) -> None:
    """Its chips are opened, and get the keys of an active one."""
    answer = bank_chip.scp02_answer(bank_chip.emv_keys(KMC[4]))
    channel = replace(_channel(kmc_version=4), initialize_update=answer)
    channel = replace(channel, commands=(ReplaceCardKeys(1, 0x20, 0x21),))
    assert len(_ask(banks, channel).apdus) == 2


def test_put_key_gives_the_chip_its_keys_of_the_new_kmc(banks: Pkcs11Provider) -> None:
    """The chip finds its own keys in PUT KEY, with right check values. What it answers is
    compared: the right values pass, others stop with a code, and so does silence."""
    channel = replace(_channel(), commands=(ReplaceCardKeys(2, 0x20, 0x21), GET_DATA))
    apdus = _ask(banks, channel).apdus
    taken = bank_chip.open_put_key(apdus[1], bank_chip.emv_keys(KMC[1]), scp=2)
    assert taken.keys == list(bank_chip.emv_keys(KMC[2]))
    assert taken.version == 0x21
    values = [DES3.new(key, DES3.MODE_ECB).encrypt(bytes(8))[:3] for key in taken.keys]
    assert taken.values == values
    right = b"\x21" + b"".join(values) + b"\x90\x00"
    wrong = [right[:3] + b"\x00" + right[4:], right[1:], b"\x90\x00", b"\x21\x90\x00"]
    answers = banks.perform([ReadChannel(channel, (r, b"\x90\x00")) for r in (right, *wrong)])
    assert answers[0].apdus == (right, b"\x90\x00")
    assert [answer.refused for answer in answers[1:]] == [Code.CARD_CHECK_VALUE] * len(wrong)
    # A chip that refused PUT KEY stored nothing: its status word is the answer.
    (refused,) = banks.perform([ReadChannel(channel, (b"\x69\x82",))])
    assert refused.apdus == (b"\x69\x82",)


def test_an_aes_kmc_serves_scp03(banks: Pkcs11Provider) -> None:
    """AES-256 in the token: diversified by CMAC, new keys for the chip, responses under R-MAC that
    nobody else can make."""
    static = bank_chip.kdf3_keys(AES_KMC)
    channel = Channel(
        Chip(identification_code(1), "", "K1"),
        AES_VERSION,
        "kdf3",
        bank_chip.HOST,
        bank_chip.scp03_answer(static),
        0x01,
        (ReplaceCardKeys(AES_VERSION, 0x20, 0x20),),
    )
    apdus = _ask(banks, channel).apdus
    taken = bank_chip.open_put_key(apdus[1], static, scp=3)
    assert taken.keys == list(static)
    assert taken.values == [AES.new(key, AES.MODE_ECB).encrypt(b"\x01" * 16)[:3] for key in static]
    forged = replace(channel, level=0x11, commands=(GET_DATA,))
    (answer,) = banks.perform([ReadChannel(forged, (bytes(12) + b"\x90\x00",))])
    assert answer.refused == Code.RESPONSE_MAC


@pytest.mark.parametrize(
    ("static", "kmc", "new", "diversification", "level"),
    [
        (bank_chip.emv_keys(KMC[1]), 1, 2, "emv", 0x03),
        (bank_chip.kdf3_keys(AES_KMC), AES_VERSION, AES_VERSION, "kdf3", 0x33),
    ],
)
def test_the_virtual_chip_and_the_provider_agree(
    banks: Pkcs11Provider,
    static: bank_chip.Keys,
    kmc: int,
    new: int,
    diversification: str,
    level: int,
) -> None:
    """SCP02 and SCP03 with the card manager of a virtual card: it takes the provider's session, has
    the keys of the new KMC, and its answers pass."""
    memory = bank.memory("3des", 16)
    assert memory.financial is not None
    key_type = DES if diversification == "emv" else AES_TYPE
    memory.financial.key_sets = [KeySet(bank_chip.KEY_VERSION, key_type, static)]
    memory.financial.diversification = bank_chip.KEY_DATA
    card = bank.powered(memory)
    card.process(bytes(select_application(bank.MANAGER)))
    opening = card.process(bytes(initialize_update(0, bank_chip.HOST)))[:-2]
    channel = Channel(
        Chip(identification_code(1), "", "K1"),
        kmc,
        diversification,
        bank_chip.HOST,
        opening,
        level,
        (ReplaceCardKeys(new, bank_chip.KEY_VERSION, 0x21), GET_DATA),
    )
    accepted, *answers = [card.process(apdu) for apdu in _ask(banks, channel).apdus]
    assert accepted == b"\x90\x00"
    (read,) = banks.perform([ReadChannel(channel, tuple(answers))])
    assert not read.refused
    assert [answer[:1] + answer[-2:] for answer in read.apdus] == [b"\x21\x90\x00", b"\x66\x90\x00"]
    keys = bank_chip.emv_keys(KMC[2]) if new == 2 else static
    assert memory.financial.key_sets == [KeySet(0x21, key_type, keys)]
