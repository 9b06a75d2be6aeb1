"""What a provider must answer before it serves a bank's chips: sessions and card keys that others
have published."""

from __future__ import annotations

from functools import partial

import pkcs11
from pkcs11 import KeyType

from actors.hsm.card_keys import Diversification, card_keys
from actors.hsm.global_platform import open_channel
from actors.hsm.secure_channel import CardKeys
from actors.hsm.self_test import KnownAnswer, throw_away
from actors.hsm.suites import AES, TRIPLE_DES, Suite
from actors.hsm.token_ciphers import encipher

_MASTER = bytes.fromhex("404142434445464748494A4B4C4D4E4F")
_KEY_DATA = bytes(range(10))


def _scp02(_session: pkcs11.Session) -> bytes:
    keys = CardKeys(
        bytes.fromhex("100102030405060708090A0B0C0D0E0F"),
        bytes.fromhex("101102030405060708090A0B0C0D0E0F"),
        bytes.fromhex("102102030405060708090A0B0C0D0E0F"),
    )
    answer = "00000000000000000000700200016B4524ABEE7CF32EA3838BC148F3"
    host = bytes.fromhex("40A62C37FA6304F8")
    channel = open_channel(keys, host, bytes.fromhex(answer), 0x01)
    return channel.external_authenticate + channel.wrap(bytes.fromhex("80F22002"))


def _scp03(_session: pkcs11.Session) -> bytes:
    keys = CardKeys(*(bytes(range(first, first + 16)) for first in (0x00, 0x10, 0x20)))
    answer = "000000000000000000003003703B1ACA81E821F219081CDC01C26B372D000003"
    host = bytes.fromhex("FDF38259A1E0DE44")
    channel = open_channel(keys, host, bytes.fromhex(answer), 0x33)
    return channel.external_authenticate + channel.wrap(bytes.fromhex("80E2910006BF3E035C015A00"))


def _card_keys(kind: KeyType, suite: Suite, kdf: Diversification, session: pkcs11.Session) -> bytes:
    kmc = throw_away(session, kind, _MASTER)
    try:
        keys = card_keys(kdf, partial(encipher, kmc), len(_MASTER), _KEY_DATA)
    finally:
        kmc.destroy()
    return b"".join(map(suite.check_value, keys))


CHANNEL_ANSWERS = (
    KnownAnswer(
        "scp02",
        "osmocom/pysim 597f1e03, test_globalplatform.py, SCP02_Test",
        bytes.fromhex("8482010010BA6961667737C5BCEBECE14C7D6A437684F220020814DB34FA4341DCA8"),
        _scp02,
    ),
    KnownAnswer(
        "scp03",
        "osmocom/pysim 597f1e03, test_globalplatform.py, SCP03_Test_AES128_33",
        bytes.fromhex(
            "84823300108C36F96BCC00724A4E13AD591D7DA3F0"
            "84E2910018267A85DFE4A98FCA6FB0527E0DFECCE4914E40401433C87F00"
        ),
        _scp03,
    ),
    KnownAnswer(
        "card-keys-emv",
        "martinpaljak/GlobalPlatformPro 236a610a, testDiversification_EMV_SCP02",
        bytes.fromhex("C330136F4CA6BB8179"),
        partial(_card_keys, KeyType.DES2, TRIPLE_DES, Diversification.EMV),
    ),
    KnownAnswer(
        "card-keys-kdf3",
        "martinpaljak/GlobalPlatformPro 236a610a, testDiversification_KDF3_SCP03_AES128",
        bytes.fromhex("E79C05D1BD773FDE8C"),
        partial(_card_keys, KeyType.AES, AES, Diversification.KDF3),
    ),
)
