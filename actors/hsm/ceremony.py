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
from actors.hsm.token import KeyToken
from domain.card.profile import Profile
from domain.provider import ProviderError

TRANSPORT_BITS = 3072
LOCKED_IN = {Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False}
MASTER_CAPABILITIES = MechanismFlag.ENCRYPT | MechanismFlag.DERIVE
"""ENCRYPT for the check value. It gives nothing away that DERIVE would not."""

_CHECK_VALUE = 3
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class KeyEntry:
    """One line of the key inventory. `check_value` is hex, 3 bytes: DES a block of 00 and AES a
    block of 01 under the key, HMAC the code of nothing, a pair the SHA-256 of its public key."""

    label: str
    usage: str
    version: int
    check_value: str


def generate_keys(token: KeyToken, profile: Profile) -> list[KeyEntry]:
    """Make what is missing of: a formal master for each usage of the profile, the transport pair
    (RSA), the index key (HMAC), the head pair (P-256). Returns the inventory."""
    with token.alone():
        for slot in profile.keys:
            label = labels.formal(slot.usage, profile.formal_version)
            if token.find(label) is None:
                token.session.generate_key(
                    KeyType.DES2,
                    store=True,
                    label=label,
                    capabilities=MASTER_CAPABILITIES,
                    template=LOCKED_IN,
                )
                _log.info("key_generated", label=label)
        if token.find(labels.INDEX) is None:
            token.session.generate_key(
                KeyType.GENERIC_SECRET,
                256,
                store=True,
                label=labels.INDEX,
                capabilities=MechanismFlag.SIGN,
                template=LOCKED_IN,
            )
            _log.info("key_generated", label=labels.INDEX)
        if _pair_missing(token, labels.TRANSPORT):
            _generate_transport(token)
        if _pair_missing(token, labels.HEAD):
            _generate_head(token)
    return inventory(token)


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


def inventory(token: KeyToken) -> list[KeyEntry]:
    """All keys that stay in the token, by label."""
    entries = []
    # The whole list first: the module does nothing else while a search is under way.
    for key in list(token.session.get_objects({Attribute.TOKEN: True})):
        kind = key[Attribute.CLASS]
        if kind not in (ObjectClass.SECRET_KEY, ObjectClass.PRIVATE_KEY):
            continue
        label = key[Attribute.LABEL]
        usage, version = labels.meaning(label)
        value = _check_value(token, key, kind, label)
        entries.append(KeyEntry(label, usage, version, value[:_CHECK_VALUE].hex().upper()))
    return sorted(entries, key=lambda entry: entry.label)


def _check_value(token: KeyToken, key: Any, kind: ObjectClass, label: str) -> bytes:
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
