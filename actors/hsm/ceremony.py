"""Making the centre's own keys in a token, handing out public keys, and the key inventory.

Everything may be repeated: what is there stays, what an interruption left out is made.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import structlog
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)
from pkcs11 import Attribute, KeyType, MechanismFlag, ObjectClass
from pkcs11.mechanisms import Mechanism
from pkcs11.util.ec import encode_ec_public_key, encode_named_curve_parameters

from actors.hsm import labels
from actors.hsm.masters import Masters, MasterState, check_value
from actors.hsm.token import LOCKED_IN, KeyToken
from domain.card.profile import Profile
from domain.provider import ProviderError

TRANSPORT_BITS = 3072
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class KeyEntry:
    """One line of the key inventory. `check_value` is hex, 3 bytes: DES and SM4 a block of 00, AES
    one of 01 under the key, HMAC the code of nothing, a pair the SHA-256 of its public key."""

    label: str
    usage: str
    version: int
    check_value: str


def generate_keys(token: KeyToken, profile: Profile, masters: Masters) -> list[KeyEntry]:
    """Make what is missing of: the wrapping key (AES), an active formal master for each usage of
    the profile, the transport pair (RSA), the index key (HMAC), the head pair (P-256). Returns
    the inventory."""
    with token.alone():
        if token.find(labels.WRAP) is None:
            _generate_secret(
                token, labels.WRAP, KeyType.AES, MechanismFlag.ENCRYPT | MechanismFlag.DECRYPT
            )
        for slot in profile.keys:
            label = labels.formal(slot.usage, labels.FIRST_VERSION)
            if not masters.state(label):
                masters.generate(label, MasterState.ACTIVE)
        if token.find(labels.INDEX) is None:
            _generate_secret(token, labels.INDEX, KeyType.GENERIC_SECRET, MechanismFlag.SIGN)
        if _pair_missing(token, labels.TRANSPORT):
            _generate_transport(token)
        if _pair_missing(token, labels.HEAD):
            _generate_head(token)
    return inventory(token, masters)


def _generate_secret(
    token: KeyToken, label: str, kind: KeyType, capabilities: MechanismFlag
) -> None:
    token.session.generate_key(
        kind,
        256,
        store=True,
        label=label,
        capabilities=capabilities,
        template={**LOCKED_IN, Attribute.PRIVATE: True},
    )
    _log.info("key_generated", label=label)


def export_transport_public_key(token: KeyToken) -> bytes:
    """The key under which factories send their masters: PEM, SubjectPublicKeyInfo."""
    public = _public(token, labels.TRANSPORT)
    numbers = RSAPublicNumbers(
        int.from_bytes(public[Attribute.PUBLIC_EXPONENT], "big"),
        int.from_bytes(public[Attribute.MODULUS], "big"),
    )
    return numbers.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def export_head_public_key(token: KeyToken) -> bytes:
    """The key that checks signed heads of the ledger: PEM, SubjectPublicKeyInfo (P-256)."""
    public = load_der_public_key(encode_ec_public_key(_public(token, labels.HEAD)))
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def inventory(token: KeyToken, masters: Masters) -> list[KeyEntry]:
    """All keys of the token and all masters, by label."""
    values = {label: masters.check_value(label) for label in masters.labels()}
    # The whole list first: the module does nothing else while a search is under way.
    for key in list(token.session.get_objects({Attribute.TOKEN: True})):
        kind = key[Attribute.CLASS]
        if kind not in (ObjectClass.SECRET_KEY, ObjectClass.PRIVATE_KEY):
            continue
        label = key[Attribute.LABEL]
        if label not in values:
            values[label] = check_value(_check_block(token, key, kind, label))
    return [KeyEntry(label, *labels.meaning(label), values[label]) for label in sorted(values)]


def _check_block(token: KeyToken, key: Any, kind: ObjectClass, label: str) -> bytes:
    if kind == ObjectClass.PRIVATE_KEY:
        export = {
            labels.TRANSPORT: export_transport_public_key,
            labels.HEAD: export_head_public_key,
        }.get(label)
        return hashlib.sha256(export(token)).digest() if export else b""
    value: bytes
    match key[Attribute.KEY_TYPE]:
        case KeyType.AES:
            value = key.encrypt(b"\x01" * 16, mechanism=Mechanism.AES_ECB)
        case KeyType.GENERIC_SECRET:
            value = key.sign(b"", mechanism=Mechanism.SHA256_HMAC)
        case _:
            value = key.encrypt(bytes(8), mechanism=Mechanism.DES3_ECB)
    return value


def _public(token: KeyToken, label: str) -> Any:
    public = token.find(label, ObjectClass.PUBLIC_KEY)
    if public is None:
        raise ProviderError(f"the token has no key {label}: generate the keys first")
    return public


def _pair_missing(token: KeyToken, label: str) -> bool:
    """Whether a pair must be made. Half a pair is what an interruption left: it was never
    handed out, and goes."""
    halves = [token.find(label, kind) for kind in (ObjectClass.PUBLIC_KEY, ObjectClass.PRIVATE_KEY)]
    if None not in halves:
        return False
    for half in halves:
        if half is not None:
            half.destroy()
    return True


def _generate_transport(token: KeyToken) -> None:
    token.session.generate_keypair(
        KeyType.RSA,
        TRANSPORT_BITS,
        store=True,
        label=labels.TRANSPORT,
        # Unwrap only: what comes under this key goes into the token, never into memory.
        capabilities=MechanismFlag.WRAP | MechanismFlag.UNWRAP,
        private_template=LOCKED_IN,
    )
    _log.info("key_generated", label=labels.TRANSPORT)


def _generate_head(token: KeyToken) -> None:
    curve = token.session.create_domain_parameters(
        KeyType.EC,
        {Attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1")},
        local=True,
    )
    curve.generate_keypair(
        store=True,
        label=labels.HEAD,
        capabilities=MechanismFlag.SIGN | MechanismFlag.VERIFY,
        private_template=LOCKED_IN,
    )
    _log.info("key_generated", label=labels.HEAD)
