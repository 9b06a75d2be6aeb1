"""The centre's own keys in the token: index, head, transport, wrap. `centre init` makes them, and
no key of anybody else: masters come in components (`custody`).

Everything may be repeated: what is there stays, what an interruption left out is made. A key is
staged until something hangs on it (`put_in_use`): until then a backup may replace it.
"""

from __future__ import annotations

import hashlib
from typing import Any

import structlog
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
    load_pem_public_key,
)
from pkcs11 import Attribute, KeyType, Mechanism, MechanismFlag, ObjectClass
from pkcs11.constants import DEFAULT
from pkcs11.util.ec import (
    decode_ec_public_key,
    encode_ec_public_key,
    encode_named_curve_parameters,
)

from actors.hsm import labels
from actors.hsm.suites import CHECK_VALUE
from actors.hsm.token import EXPORTABLE, LOCKED_IN, KeyToken
from domain.provider import KeyEntry, KeyState, ProviderError

TRANSPORT_BITS = 3072
SUITES = {labels.INDEX: "hmac", labels.HEAD: "ecdsa", labels.TRANSPORT: "rsa", labels.WRAP: "aes"}
PAIRS = {
    # Unwrap only: no command deciphers what comes under this key.
    labels.TRANSPORT: (KeyType.RSA, MechanismFlag.UNWRAP),
    labels.HEAD: (KeyType.EC, MechanismFlag.SIGN | MechanismFlag.VERIFY),
}
SECRETS = {
    labels.INDEX: (KeyType.GENERIC_SECRET, MechanismFlag.SIGN),
    labels.WRAP: (KeyType.AES, MechanismFlag.ENCRYPT | MechanismFlag.DECRYPT),
}
_HALVES = (ObjectClass.PUBLIC_KEY, ObjectClass.PRIVATE_KEY)
_CURVE = encode_named_curve_parameters("secp256r1")
_log = structlog.get_logger(__name__)


def generate_keys(token: KeyToken) -> list[KeyEntry]:
    """Make what is missing of: the index key (HMAC), the wrap key (AES-256), the transport pair
    (RSA-3072), the head pair (P-256)."""
    with token.changing():
        for label in labels.OWN:
            if find(token, label) is None:
                # Half a pair is what an interruption left: it was never handed out, and goes.
                remove(token, label)
                _generate(token, label)
                _log.info("key_generated", label=label)
        return [entry(token, label) for label in labels.OWN]


def _generate(token: KeyToken, label: str) -> None:
    known: dict[str, Any] = {"store": True, "label": label, "id": KeyState.STAGED.encode()}
    if label in SECRETS:
        kind, capabilities = SECRETS[label]
        # What `wrap` seals leaves in another way: it need not.
        template = LOCKED_IN if label == labels.WRAP else EXPORTABLE
        token.session.generate_key(kind, 256, capabilities=capabilities, template=template, **known)
        return
    kind, capabilities = PAIRS[label]
    options: dict[str, Any] = {
        "capabilities": capabilities,
        "private_template": EXPORTABLE,
        **known,
    }
    if kind is KeyType.RSA:
        token.session.generate_keypair(kind, TRANSPORT_BITS, **options)
    else:
        curve = token.session.create_domain_parameters(
            kind, {Attribute.EC_PARAMS: _CURVE}, local=True
        )
        curve.generate_keypair(**options)


def find(token: KeyToken, label: str) -> Any:
    """The secret or private key `label`; None unless all of it is there."""
    if label in SECRETS:
        return token.find(label)
    public, private = (token.find(label, kind) for kind in _HALVES)
    return private if public is not None else None


def remove(token: KeyToken, label: str) -> None:
    """Destroy all there is of an own key."""
    for kind in (ObjectClass.SECRET_KEY, *_HALVES):
        half = token.find(label, kind)
        if half is not None:
            half.destroy()


def entry(token: KeyToken, label: str) -> KeyEntry:
    """The line of an own key in the inventory. Raises ProviderError if it is not there."""
    key = needed(token, label)
    state = key[Attribute.ID].decode()
    return KeyEntry(label, label, 0, SUITES[label], state, _check_value(token, key, label))


def needed(token: KeyToken, label: str) -> Any:
    """The own key `label`. Raises ProviderError."""
    key = find(token, label)
    if key is None:
        raise ProviderError(f"the token has no key {label}: generate the keys first")
    return key


def put_in_use(token: KeyToken, label: str) -> None:
    """From now on something hangs on this key: no backup replaces it any more."""
    key = needed(token, label)
    if key[Attribute.ID] != KeyState.ACTIVE.encode():
        key[Attribute.ID] = KeyState.ACTIVE.encode()
        _log.info("key_in_use", label=label)


def _check_value(token: KeyToken, key: Any, label: str) -> str:
    value: bytes
    if label in PAIRS:
        value = hashlib.sha256(_public_pem(token, label)).digest()
    elif label == labels.INDEX:
        value = key.sign(b"", mechanism=Mechanism.SHA256_HMAC)
    else:
        value = key.encrypt(b"\x01" * 16, mechanism=Mechanism.AES_ECB)
    return value[:CHECK_VALUE].hex().upper()


def export_transport_public_key(token: KeyToken) -> bytes:
    """The key under which factories and custodians seal: PEM, SubjectPublicKeyInfo."""
    return _public_pem(token, labels.TRANSPORT)


def export_head_public_key(token: KeyToken) -> bytes:
    """The key that checks signed heads of the ledger: PEM, SubjectPublicKeyInfo (P-256)."""
    return _public_pem(token, labels.HEAD)


def _public_pem(token: KeyToken, label: str) -> bytes:
    needed(token, label)
    half = token.find(label, ObjectClass.PUBLIC_KEY)
    if label == labels.TRANSPORT:
        numbers = RSAPublicNumbers(
            int.from_bytes(half[Attribute.PUBLIC_EXPONENT], "big"),
            int.from_bytes(half[Attribute.MODULUS], "big"),
        )
        return _pem(numbers.public_key())
    return _pem(load_der_public_key(encode_ec_public_key(half)))


def _pem(key: Any) -> bytes:
    pem: bytes = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem


def wrapped(token: KeyToken, label: str, kek: Any) -> tuple[bytes, str]:
    """An own key under a KEK, and its public half (PEM; empty for a secret key)."""
    key = needed(token, label)
    if label in SECRETS:
        blob: bytes = kek.wrap_key(key, mechanism=Mechanism.AES_KEY_WRAP)
        return blob, ""
    blob = kek.wrap_key(key, mechanism=Mechanism.AES_KEY_WRAP_PAD)
    return blob, _public_pem(token, label).decode()


def take_wrapped(
    token: KeyToken, label: str, blob: bytes, public: str, kek: Any, state: KeyState
) -> None:
    """Put an own key of a backup into the place of the one that is there. The public half comes
    last: cut off before it, there is no key, and the repeat makes it whole."""
    with token.changing():
        remove(token, label)
        _take_wrapped(token, label, blob, public, kek, state)
    _log.info("key_restored", label=label)


def _take_wrapped(
    token: KeyToken, label: str, blob: bytes, public: str, kek: Any, state: KeyState
) -> None:
    secret = label in SECRETS
    kind, capabilities = SECRETS[label] if secret else PAIRS[label]
    never = (Attribute.ENCRYPT, Attribute.WRAP, Attribute.VERIFY)
    kek.unwrap_key(
        ObjectClass.SECRET_KEY if secret else ObjectClass.PRIVATE_KEY,
        kind,
        blob,
        store=True,
        label=label,
        id=state.encode(),
        mechanism=Mechanism.AES_KEY_WRAP if secret else Mechanism.AES_KEY_WRAP_PAD,
        capabilities=capabilities,
        template=EXPORTABLE if secret else {**EXPORTABLE, **dict.fromkeys(never, DEFAULT)},
    )
    if not secret:
        token.session.create_object(
            {
                **_public_numbers(load_pem_public_key(public.encode())),
                Attribute.CLASS: ObjectClass.PUBLIC_KEY,
                Attribute.TOKEN: True,
                Attribute.PRIVATE: False,
                Attribute.LABEL: label,
                Attribute.ID: state.encode(),
            }
        )


def _public_numbers(key: Any) -> dict[Attribute, Any]:
    if isinstance(key, RSAPublicKey):
        numbers = key.public_numbers()
        return {
            Attribute.KEY_TYPE: KeyType.RSA,
            Attribute.MODULUS: numbers.n.to_bytes(key.key_size // 8, "big"),
            Attribute.PUBLIC_EXPONENT: numbers.e.to_bytes(3, "big"),
        }
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return {**decode_ec_public_key(der), Attribute.VERIFY: True}
