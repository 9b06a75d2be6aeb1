"""Personal data under a data key per batch, and the comparison with what a chip reads back.

A sealed record is `01 ‖ nonce (12) ‖ ciphertext ‖ tag (16)`: AES-256-GCM (NIST SP 800-38D) with
the order id as additional data, so that it opens only under its own order. Nonces are random:
one key seals far fewer than 2^32 records (8.3 of the standard).
"""

from __future__ import annotations

import hmac
import json
import os
from collections.abc import Mapping
from typing import Any

from pkcs11 import Attribute, GCMParams, KeyType, Mechanism, MechanismFlag
from pkcs11.exceptions import (
    EncryptedDataInvalid,
    EncryptedDataLenRange,
    GeneralError,
)

from actors.hsm import labels
from actors.hsm.ceremony import put_in_use
from actors.hsm.token import LOCKED_IN, KeyToken
from domain.card.profile import Profile
from domain.card.records import RecordError
from domain.provider import KeyState, RecordUnsealable

_FORMAT = 1
_NONCE = 12
_TAG = 16
# What modules answer to a wrong tag (SoftHSM2: GeneralError, hence the probe in `unseal`).
_WRONG_TAG = (EncryptedDataInvalid, EncryptedDataLenRange, GeneralError)

NOT_OF_THE_HOLDER = frozenset({"identification_code", "card_category"})
"""Fields of the profile that are no part of a sealed record: they belong to the body."""
FITTED = frozenset({"name"})
"""Fields that hold as much of a longer text as fits."""


class DataKeys:
    """The data keys of batches, found in the token once a session."""

    def __init__(self, token: KeyToken) -> None:
        self._token = token
        self._keys: dict[str, Any] = {}

    def clear(self) -> None:
        """Forget all handles; for a session that is gone."""
        self._keys.clear()

    def get(self, batch_id: str) -> Any:
        """The data key of a batch, or None."""
        if batch_id not in self._keys:
            key = self._token.find(labels.data(batch_id))
            if key is None:
                return None
            self._keys[batch_id] = key
        return self._keys[batch_id]

    def get_or_make(self, batch_id: str) -> Any:
        """The data key of a batch; never two of one batch, whoever else makes it meanwhile."""
        key = self.get(batch_id)
        if key is not None:
            return key
        with self._token.alone():
            key = self.get(batch_id)
            if key is None:
                # Records have look-up values, too.
                put_in_use(self._token, labels.INDEX)
                key = self._keys[batch_id] = self._token.session.generate_key(
                    KeyType.AES,
                    256,
                    store=True,
                    label=labels.data(batch_id),
                    id=KeyState.ACTIVE.encode(),
                    capabilities=MechanismFlag.ENCRYPT | MechanismFlag.DECRYPT,
                    template={**LOCKED_IN, Attribute.PRIVATE: True},
                )
        return key


def seal(key: Any, order_id: str, plaintext: bytes) -> bytes:
    """One sealed record. `order_id` must not be empty."""
    nonce = os.urandom(_NONCE)
    params = GCMParams(nonce, _bound(order_id))
    sealed: bytes = key.encrypt(plaintext, mechanism=Mechanism.AES_GCM, mechanism_param=params)
    return bytes((_FORMAT,)) + nonce + sealed


def unseal(key: Any, order_id: str, sealed: bytes) -> bytes:
    """The inverse of `seal`. Raises RecordUnsealable."""
    if len(sealed) < 1 + _NONCE + _TAG or sealed[0] != _FORMAT:
        raise RecordUnsealable(order_id)
    params = GCMParams(sealed[1 : 1 + _NONCE], _bound(order_id))
    try:
        plain: bytes = key.decrypt(
            sealed[1 + _NONCE :], mechanism=Mechanism.AES_GCM, mechanism_param=params
        )
    except _WRONG_TAG:
        # The same error may mean that the device fails; then this raises, too, and the caller
        # sees a lost device instead of a bad record.
        key.encrypt(b"", mechanism=Mechanism.AES_GCM, mechanism_param=params)
        raise RecordUnsealable(order_id) from None
    return plain


def _bound(order_id: str) -> bytes:
    if not order_id:
        raise ValueError("a record is sealed for an order id, which must not be empty")
    return order_id.encode()


def first_difference(profile: Profile, plaintext: bytes, read_back: Mapping[str, bytes]) -> str:
    """The first field of the holder that is not on the chip as the record says; "" if none.

    A field that the record or the chip does not have, or that cannot be coded, differs.
    Raises ValueError if the record is not a JSON object.
    """
    try:
        record = json.loads(plaintext)
    except ValueError:
        # The cause would carry the record.
        raise ValueError("a sealed record is not JSON") from None
    if not isinstance(record, dict):
        raise ValueError("a sealed record is not an object")
    for name, field in profile.fields.items():
        if name in NOT_OF_THE_HOLDER:
            continue
        text, value = record.get(name), read_back.get(name)
        if not isinstance(text, str) or value is None:
            return name
        try:
            wanted = field.encode(field.fit(text) if name in FITTED else text)
        except RecordError:
            return name
        if not hmac.compare_digest(wanted, value):
            return name
    return ""
