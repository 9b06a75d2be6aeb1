"""Known answers that a provider must give before it serves: published vectors, on throw-away
keys, through the same code and the same mechanisms of the device. Those of the masters stand
beside their code."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import pkcs11
from pkcs11 import Attribute, GCMParams, KeyType, Mechanism, ObjectClass

from actors.hsm.suites import SM4, TRIPLE_DES
from domain.provider import ProviderError

TWO_KEYS = bytes.fromhex("0123456789ABCDEFFEDCBA9876543210")
_ZERO_IV = bytes(8)


class KnownAnswer(NamedTuple):
    """`source` names where the answer is published, `got` computes it on a session."""

    name: str
    source: str
    wanted: bytes
    got: Callable[[pkcs11.Session], bytes]


class SelfTestFailed(ProviderError):
    """A known answer came out wrong: no service."""


def throw_away(session: pkcs11.Session, kind: KeyType, value: bytes) -> Any:
    """A session object with a published value."""
    return session.create_object(
        {
            Attribute.CLASS: ObjectClass.SECRET_KEY,
            Attribute.KEY_TYPE: kind,
            Attribute.VALUE: value,
            Attribute.TOKEN: False,
            Attribute.ENCRYPT: kind != KeyType.GENERIC_SECRET,
            Attribute.DERIVE: kind == KeyType.DES2,
            Attribute.SIGN: kind == KeyType.GENERIC_SECRET,
        }
    )


def _gcm_in_token(session: pkcs11.Session) -> bytes:
    key = throw_away(session, KeyType.AES, bytes(32))
    try:
        value: bytes = key.encrypt(
            bytes(16), mechanism=Mechanism.AES_GCM, mechanism_param=GCMParams(bytes(12))
        )
    finally:
        key.destroy()
    return value


def _hmac_in_token(session: pkcs11.Session) -> bytes:
    key = throw_away(session, KeyType.GENERIC_SECRET, b"\xaa" * 131)
    try:
        value: bytes = key.sign(
            b"Test Using Larger Than Block-Size Key - Hash Key First",
            mechanism=Mechanism.SHA256_HMAC,
        )
    finally:
        key.destroy()
    return value


_SM4_KEY = bytes.fromhex("0123456789ABCDEFFEDCBA9876543210")
SM4_BLOCK = KnownAnswer(
    "sm4-ecb",
    "GB/T 32907-2016, A.1, example 1 (key and plaintext are the same 16 bytes)",
    bytes.fromhex("681EDF34D206965E86B3E94F536E4246"),
    lambda _: SM4.encipher(_SM4_KEY, _SM4_KEY),
)

SUITE_ANSWERS: dict[str, tuple[KnownAnswer, ...]] = {
    "3des": (
        KnownAnswer(
            "3des-ecb",
            "NIST SP 800-17, table of variable plaintexts for DES (K1 = K2)",
            bytes.fromhex("95F8A5E5DD31D900"),
            lambda _: TRIPLE_DES.encipher(b"\x01" * 16, bytes.fromhex("8000000000000000")),
        ),
        KnownAnswer(
            "mac-one",
            "ISO/IEC 9797-1:2011, annex B, MAC algorithm 3, padding method 2, data string 1",
            bytes.fromhex("E9086230CA3BE796"),
            lambda _: TRIPLE_DES.mac(TWO_KEYS, _ZERO_IV, b"Now is the time for all "),
        ),
        KnownAnswer(
            "mac-two",
            "ISO/IEC 9797-1:2011, annex B, MAC algorithm 3, padding method 2, data string 2",
            bytes.fromhex("5A692CE64F404145"),
            lambda _: TRIPLE_DES.mac(TWO_KEYS, _ZERO_IV, b"Now is the time for it"),
        ),
        KnownAnswer(
            "mac-three",
            "ICAO Doc 9303 part 11, appendix D.3, MAC of E.IFD",
            bytes.fromhex("5F1448EEA8AD90A7"),
            lambda _: TRIPLE_DES.mac(
                bytes.fromhex("7962D9ECE03D1ACD4C76089DCE131543"),
                _ZERO_IV,
                bytes.fromhex("72C29C2371CC9BDB65B779B8E8D37B29ECC154AA56A8799FAE2F498F76ED92F2"),
            ),
        ),
    ),
    "sm4": (
        SM4_BLOCK,
        KnownAnswer(
            "sm4-cbc",
            "draft-ribose-cfrg-sm4-10, A.2.2.1 (the chain of the MAC)",
            bytes.fromhex("78EBB11CC40B0A48312AAEB2040244CB4CB7016951909226979B0D15DC6A8F6D"),
            lambda _: SM4.encipher_cbc(
                _SM4_KEY,
                bytes(range(16)),
                bytes.fromhex("AAAAAAAABBBBBBBBCCCCCCCCDDDDDDDDEEEEEEEEFFFFFFFFAAAAAAAABBBBBBBB"),
            ),
        ),
    ),
}
"""What is done with keys of chips, by suite."""

TOKEN_ANSWERS = (
    KnownAnswer(
        "token-gcm",
        "McGrew and Viega, The Galois/Counter Mode of Operation, test case 14",
        bytes.fromhex("CEA7403D4D606B6E074EC5D3BAF39D18D0D1C8A799996BF0265B98B5D48AB919"),
        _gcm_in_token,
    ),
    KnownAnswer(
        "token-hmac",
        "RFC 4231, test case 6",
        bytes.fromhex("60E431591EE0B67F0D8A26AACBF5B77F8E0BC6213728C5140546040F0EE37F54"),
        _hmac_in_token,
    ),
)
"""What every provider needs of its token."""


def run_self_test(session: pkcs11.Session, answers: Iterable[KnownAnswer]) -> Iterator[str]:
    """The name of each known answer as it holds. Raises SelfTestFailed at the first that does
    not."""
    for answer in answers:
        if answer.got(session) != answer.wanted:
            raise SelfTestFailed(f"known answer {answer.name} does not hold ({answer.source})")
        yield answer.name
