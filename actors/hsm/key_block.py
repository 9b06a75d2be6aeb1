"""The factory's sealed key block (docs/files.md): parsed, unwrapped into the token, compared.

    {"format": 1, "factory_id": str, "batch_id": str, "suite": "3des",
     "keys": [{"usage": str, "version": int, "wrapped": hex, "check_value": hex}, ...]}

A wrapped key is unwrapped by the token into an object of the token: its value is never here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import structlog
from pkcs11 import Attribute, KeyType, Mechanism, ObjectClass
from pkcs11.exceptions import PKCS11Error

from actors.hsm import labels
from actors.hsm.ceremony import LOCKED_IN, MASTER_CAPABILITIES
from actors.hsm.token import KeyToken
from domain.card.profile import Profile
from domain.codes import Code
from domain.provider import KeyAccepted, KeyBlockRefused, ProviderError

LARGEST_BLOCK = 64 * 1024
"""Bytes; a block of eight keys under RSA-3072 has about 7,300."""

_CHECK_VALUE = 3
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class WrappedKey:
    """One key of a block. `place` names it in refusals (`keys[2]`)."""

    place: str
    usage: str
    version: int
    wrapped: bytes
    check_value: bytes


@dataclass(frozen=True)
class KeyBlock:
    factory_id: str
    batch_id: str
    keys: tuple[WrappedKey, ...]


def parse_key_block(block: bytes, profile: Profile) -> KeyBlock:
    """A block with exactly one key for each usage of the profile, in its temporary version.
    Raises KeyBlockRefused (KEY_BLOCK_BAD) with the field at fault, never with its content."""
    if len(block) > LARGEST_BLOCK:
        raise _bad("block", f"longer than {LARGEST_BLOCK} bytes")
    try:
        top = json.loads(block)
    except (ValueError, RecursionError):
        raise _bad("block", "not JSON in UTF-8") from None
    if not isinstance(top, dict):
        raise _bad("block", "not an object")
    if top.get("format") != 1 or isinstance(top.get("format"), bool):
        raise _bad("format", "must be 1")
    if top.get("suite") != profile.suite:
        raise _bad("suite", f"must be {profile.suite}")
    batch_id = _text(top, "batch_id")
    try:
        labels.checked_batch(batch_id)
    except labels.BatchIdError as e:
        raise _bad("batch_id", str(e)) from None
    factory_id = _text(top, "factory_id")
    items = top.get("keys")
    if not isinstance(items, list):
        raise _bad("keys", "must be a list")
    keys = tuple(_parse_key(item, f"keys[{n}]", profile) for n, item in enumerate(items))
    usages = sorted(key.usage for key in keys)
    wanted = sorted(slot.usage for slot in profile.keys)
    if usages != wanted:
        raise _bad("keys", f"one key each for {', '.join(wanted)}")
    return KeyBlock(factory_id, batch_id, keys)


def _parse_key(item: object, place: str, profile: Profile) -> WrappedKey:
    if not isinstance(item, dict):
        raise _bad(place, "not an object")
    usage = _text(item, "usage", place)
    if usage not in {slot.usage for slot in profile.keys}:
        raise _bad(f"{place}.usage", "not in the card profile")
    version = item.get("version")
    if isinstance(version, bool) or version != profile.temporary_version:
        raise _bad(f"{place}.version", f"must be {profile.temporary_version}")
    wrapped = _hex(item, "wrapped", place)
    value = _hex(item, "check_value", place)
    if len(value) != _CHECK_VALUE:
        raise _bad(f"{place}.check_value", f"must have {_CHECK_VALUE} bytes")
    return WrappedKey(place, usage, int(version), wrapped, value)


def _text(item: Mapping[str, object], name: str, place: str = "") -> str:
    value = item.get(name)
    if not isinstance(value, str) or not value:
        raise _bad(f"{place}.{name}".lstrip("."), "must be a text")
    return value


def _hex(item: Mapping[str, object], name: str, place: str) -> bytes:
    try:
        return bytes.fromhex(_text(item, name, place))
    except ValueError:
        raise _bad(f"{place}.{name}", "must be hex") from None


def _bad(field: str, reason: str) -> KeyBlockRefused:
    return KeyBlockRefused(Code.KEY_BLOCK_BAD, f"{field}: {reason}")


def import_key_block(token: KeyToken, block: KeyBlock) -> list[KeyAccepted]:
    """Take the keys of `block` into the token.

    All of them are tried as session objects first, so a refused block leaves nothing behind.
    After an interruption some keys are there; the same block then completes them. A key that
    is there already must be the same (compared by a whole block of 00 under both).
    """
    with token.alone(), structlog.contextvars.bound_contextvars(batch_id=block.batch_id):
        transport = token.find(labels.TRANSPORT, ObjectClass.PRIVATE_KEY)
        if transport is None:
            raise ProviderError("the token has no transport key: generate the keys first")
        marks = {key.usage: _try(token, transport, key) for key in block.keys}
        label = {
            key.usage: labels.temporary(block.batch_id, key.usage, key.version)
            for key in block.keys
        }
        present = {usage: token.find(text) for usage, text in label.items()}
        for usage, key in present.items():
            if key is not None and _mark(key) != marks[usage]:
                raise KeyBlockRefused(
                    Code.KEY_BLOCK_REPEATED_DIFFERENT, f"batch {block.batch_id}, usage {usage}"
                )
        _store(transport, [k for k in block.keys if present[k.usage] is None], label, marks)
    return [
        KeyAccepted(label[k.usage], k.usage, k.version, k.check_value.hex().upper())
        for k in block.keys
    ]


def _store(
    transport: Any, keys: list[WrappedKey], label: Mapping[str, str], marks: Mapping[str, bytes]
) -> None:
    """Unwrap `keys` for good; if one does not come out as it did before, none stays."""
    stored: list[Any] = []
    try:
        for key in keys:
            stored.append(_unwrap(transport, key, label[key.usage]))
            if _mark(stored[-1]) != marks[key.usage]:
                raise _differs(key)
    except BaseException:
        for done in stored:
            done.destroy()
        raise
    for key in keys:
        _log.info("key_imported", label=label[key.usage])


def _try(token: KeyToken, transport: Any, key: WrappedKey) -> bytes:
    """The mark of a key that is unwrapped for a moment. Raises KeyBlockRefused."""
    try:
        unwrapped = _unwrap(transport, key, "")
        try:
            mark = _mark(unwrapped)
        finally:
            unwrapped.destroy()
    except PKCS11Error:
        # Modules answer garbage with errors of all sorts (SoftHSM2: GeneralError). If it is the
        # session that is gone, this raises, too, and the block is not to blame.
        token.session.generate_random(64)
        raise _bad(f"{key.place}.wrapped", "not a 16-byte key under the transport key") from None
    if mark[:_CHECK_VALUE] != key.check_value:
        raise _differs(key)
    return mark


def _differs(key: WrappedKey) -> KeyBlockRefused:
    return KeyBlockRefused(Code.KEY_CHECK_VALUE_DIFFERS, f"{key.place}.check_value")


def _unwrap(transport: Any, key: WrappedKey, label: str) -> Any:
    """RSA-OAEP with SHA-1, MGF1-SHA-1, empty label: what SoftHSM2 2.6.1 offers."""
    return transport.unwrap_key(
        ObjectClass.SECRET_KEY,
        KeyType.DES2,
        key.wrapped,
        label=label or None,
        store=bool(label),
        mechanism=Mechanism.RSA_PKCS_OAEP,
        capabilities=MASTER_CAPABILITIES,
        template={**LOCKED_IN, Attribute.PRIVATE: True},
    )


def _mark(key: Any) -> bytes:
    """A block of 00 under the key: 8 bytes, of which the first 3 are its check value."""
    mark: bytes = key.encrypt(bytes(8), mechanism=Mechanism.DES3_ECB)
    return mark
