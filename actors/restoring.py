"""What comes back out of a backup or an export: decided when it is proposed, for both people to
read, and done so or not at all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from actors.hsm.labels import OWN, TRANSPORT, meaning
from actors.hsm.suites import CHECK_VALUE
from domain.codes import Code
from domain.custody import DESTROYED, Denied
from domain.provider import KeyEntry, KeyState


def restoration(
    saved: Iterable[KeyEntry], there: Iterable[KeyEntry], known: Mapping[str, str]
) -> dict[str, Any]:
    """`keys`: state and check value of each key that comes back; `left_out`: why another one does
    not; `own`: check values of the centre's own keys in the file. `saved` is the file, `there` the
    token, `known` the states in the ledger, which says more than the file: what was destroyed since
    stays away, and what was retired comes back retired. Raises Denied."""
    now = {entry.label: entry for entry in there}
    keys: dict[str, Any] = {}
    left_out: dict[str, str] = {}
    own: dict[str, str] = {}
    for entry in saved:
        label, state = entry.label, known.get(entry.label, "")
        if label in OWN:
            own[label] = entry.check_value
        elif state == DESTROYED:
            left_out[label] = DESTROYED
        elif label in now and state:
            _check_same(entry, now[label], state)
            left_out[label] = "there"
        else:
            if label in now:  # of an act that came to nothing half-way
                _check_same(entry, now[label], now[label].state)
                state = now[label].state
            keys[label] = {
                "state": state or _state_of_stranger(entry, known),
                "check_value": entry.check_value,
            }
    return {"keys": keys, "left_out": left_out, "own": own}


def _check_same(saved: KeyEntry, now: KeyEntry, state: str) -> None:
    if saved.check_value != now.check_value:
        raise Denied(Code.KEY_EXISTS_DIFFERENT, saved.label)
    if now.state != state:
        raise Denied(Code.KEY_STATE, f"{saved.label}: {now.state}, not {state}")


def _state_of_stranger(entry: KeyEntry, known: Mapping[str, str]) -> str:
    """Of a key that the ledger does not know: the file's, but one version is active at a time."""
    if entry.state != KeyState.ACTIVE:
        return entry.state
    what = meaning(entry.label)
    for label, state in known.items():
        other = meaning(label)
        if state == KeyState.ACTIVE and other.family == what.family and other != what:
            if other.version > what.version:
                return KeyState.RETIRED
            if other.version < what.version:
                raise Denied(Code.KEY_STATE, f"{label} is active: centre key retire")
    return KeyState.ACTIVE


def transport_of(block: bytes, entries: Iterable[KeyEntry]) -> bytes:
    """The public transport key of a backup (PEM), if `entries`, what the token holds now, say that
    it came back; else empty."""
    try:
        keys = json.loads(block)["keys"]
        found = [str(key["public"]).encode() for key in keys if key["label"] == TRANSPORT]
    except (ValueError, KeyError, TypeError):
        return b""
    there = {entry.check_value for entry in entries if entry.label == TRANSPORT}
    for public in found:
        if hashlib.sha256(public).digest()[:CHECK_VALUE].hex().upper() in there:
            return public
    return b""
