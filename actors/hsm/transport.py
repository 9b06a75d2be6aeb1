"""What comes to the centre sealed under its transport key (RSA-OAEP)."""

from __future__ import annotations

from typing import Any

from pkcs11 import Attribute, KeyType, Mechanism, MechanismFlag, ObjectClass
from pkcs11.exceptions import PKCS11Error

from actors.hsm import labels
from actors.hsm.token import KeyToken
from domain.provider import ProviderError

UNUSED = MechanismFlag(0)


class NotAKey(ValueError):
    """What was sealed is no key of the wanted kind, or was sealed for another centre."""


def unwrap(
    token: KeyToken,
    kind: KeyType,
    sealed: bytes,
    template: dict[Attribute, Any],
    capabilities: MechanismFlag = UNUSED,
    *,
    label: str = "",
) -> Any:
    """The sealed key as an object of the token; a session object if it has no label.

    RSA-OAEP with SHA-1, MGF1-SHA-1, empty label: what SoftHSM2 2.6.1 offers. Raises NotAKey.
    """
    transport = token.find(labels.TRANSPORT, ObjectClass.PRIVATE_KEY)
    if transport is None:
        raise ProviderError("the token has no transport key: generate the keys first")
    try:
        return transport.unwrap_key(
            ObjectClass.SECRET_KEY,
            kind,
            sealed,
            label=label or None,
            store=bool(label),
            mechanism=Mechanism.RSA_PKCS_OAEP,
            capabilities=capabilities,
            template={**template, Attribute.PRIVATE: True},
        )
    except PKCS11Error:
        raise blamed(token) from None


def blamed(token: KeyToken) -> NotAKey:
    """What to raise after the token failed over something sealed. Modules answer garbage with
    errors of all sorts (SoftHSM2: GeneralError); if it is the session that is gone, this raises,
    too, and what was sealed is not to blame."""
    token.session.generate_random(64)
    return NotAKey("not a key under the transport key")


def unsealed(token: KeyToken, sealed: bytes, length: int | None = None) -> bytes:
    """A sealed key (of `length` bytes) in the memory of this process: *software-assisted*, for keys
    that the token has no place for (SM4 masters, components). Raises NotAKey."""
    readable = {Attribute.SENSITIVE: False, Attribute.EXTRACTABLE: True}
    key = unwrap(token, KeyType.GENERIC_SECRET, sealed, readable)
    try:
        value: bytes = key[Attribute.VALUE]
    finally:
        key.destroy()
    if length is not None and len(value) != length:
        raise NotAKey(f"not a {length}-byte key")
    return value


_PASSING = {Attribute.SENSITIVE: False, Attribute.EXTRACTABLE: True, Attribute.PRIVATE: True}


def wrapped_value(token: KeyToken, key: bytes, kek: Any) -> bytes:
    """A key that is in the memory of this process, under a KEK of the token (RFC 3394)."""
    passing = token.session.create_object(
        {
            Attribute.CLASS: ObjectClass.SECRET_KEY,
            Attribute.KEY_TYPE: KeyType.GENERIC_SECRET,
            Attribute.VALUE: key,
            Attribute.TOKEN: False,
            **_PASSING,
        }
    )
    try:
        blob: bytes = kek.wrap_key(passing, mechanism=Mechanism.AES_KEY_WRAP)
    finally:
        passing.destroy()
    return blob


def unwrapped_value(blob: bytes, kek: Any) -> bytes:
    """The inverse of `wrapped_value`."""
    passing = kek.unwrap_key(
        ObjectClass.SECRET_KEY,
        KeyType.GENERIC_SECRET,
        blob,
        store=False,
        mechanism=Mechanism.AES_KEY_WRAP,
        capabilities=UNUSED,
        template=_PASSING,
    )
    try:
        value: bytes = passing[Attribute.VALUE]
    finally:
        passing.destroy()
    return value
