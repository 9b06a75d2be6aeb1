"""The factory's sealed key block (docs/files.md): parsed, unwrapped into the token, compared.

    {"format": 1, "factory_id": str, "batch_id": str, "suite": "3des" or "sm4",
     "keys": [{"usage": str, "version": int, "wrapped": hex, "check_value": hex}, ...]}

A wrapped 3DES key is unwrapped by the token into an object of the token: its value is never here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import structlog

from actors.hsm import labels
from actors.hsm.masters import Masters
from actors.hsm.suites import CHECK_VALUE
from actors.hsm.token import KeyToken
from actors.hsm.transport import NotAKey
from domain.card.profile import Profile
from domain.codes import Code
from domain.provider import KeyBlockRefused

LARGEST_BLOCK = 64 * 1024
"""Bytes; a block of eight keys under RSA-3072 has about 7,300."""


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
    if len(value) != CHECK_VALUE:
        raise _bad(f"{place}.check_value", f"must have {CHECK_VALUE} bytes")
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


def import_key_block(token: KeyToken, masters: Masters, block: KeyBlock, state: str) -> list[str]:
    """Take the keys of `block` in `state`; answers their labels.

    All of them are tried first, so a refused block leaves nothing behind. After an interruption
    some keys are there; the same block then completes them. A key that is there already must be
    the same (compared by a whole check block under both).
    """
    with token.alone(), structlog.contextvars.bound_contextvars(batch_id=block.batch_id):
        blocks = {key.usage: _tried(masters, key) for key in block.keys}
        label = {
            key.usage: labels.temporary(block.batch_id, key.usage, key.version)
            for key in block.keys
        }
        missing = [key for key in block.keys if not masters.state(label[key.usage])]
        for key in block.keys:
            at = label[key.usage]
            if key not in missing and masters.check_block(at) != blocks[key.usage]:
                raise KeyBlockRefused(
                    Code.KEY_BLOCK_REPEATED_DIFFERENT, f"batch {block.batch_id}, usage {key.usage}"
                )
        for key in missing:
            masters.take_sealed(label[key.usage], key.wrapped, state)
    return list(label.values())


def _tried(masters: Masters, key: WrappedKey) -> bytes:
    """The check block under a key that is unwrapped for a moment. Raises KeyBlockRefused."""
    try:
        block = masters.try_sealed(key.wrapped)
    except NotAKey as e:
        raise _bad(f"{key.place}.wrapped", str(e)) from None
    if block[:CHECK_VALUE] != key.check_value:
        raise KeyBlockRefused(Code.KEY_CHECK_VALUE_DIFFERS, f"{key.place}.check_value")
    return block
