"""The social application: files and keys of LD/T 32-2015 (part 5), with 3DES keys.

It enforces what a chip enforces: a challenge serves one command, error counters count down on
file, a key is written only under the loading key's authentication and MAC.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable
from typing import Final

from domain.card.apdu import SW
from domain.card.profile import Profile
from station_agents.virtual.command import Command, StatusError, as_long_as
from station_agents.virtual.crypto import BLOCK, TwoKeyDes, pad
from station_agents.virtual.social_memory import (
    Key,
    KeyWritten,
    SocialChange,
    SocialMemory,
    TriesLeft,
)

KEY_LENGTH: Final = 16
MAC_LENGTH: Final = 4
KEY_TYPE_DES: Final = 0x80  # GlobalPlatform Card Specification 2.3, table 11-16

_TRIES_LEFT: Final = 0x63C0  # tries left in the low digit


class SocialApplication:
    """An `Application` of a chip. `change` puts a change on file and makes it in `memory`, or
    raises; the other arguments are those of `VirtualCard`."""

    def __init__(
        self,
        profile: Profile,
        memory: SocialMemory,
        change: Callable[[SocialChange], None],
        *,
        weak: bool,
    ) -> None:
        self._weak = weak
        self._external = profile.key(profile.external_usage).key_id
        self._loading = profile.key(profile.loading_usage).key_id
        self._internal = profile.key(profile.internal_usage).key_id
        self._memory = memory
        self._change = change
        self.aids = (profile.aid,)
        self.forget()
        self._handlers: dict[int, tuple[int, Callable[[Command, bytes], bytes]]] = {
            0xB2: (0x00, self._read_record),
            0xCA: (0x80, self._get_data),
            0x84: (0x00, self._get_challenge),
            0x82: (0x00, self._external_authenticate),
            0x88: (0x00, self._internal_authenticate),
            0xD4: (0x84, self._write_key),
        }

    def forget(self) -> None:
        self._challenge = b""
        self._authenticated: set[int] = set()
        # Key schedules of this session: setting one up costs more than the operation.
        self._schedules: dict[int, TwoKeyDes] = {}

    def interrupt(self) -> None:
        self._challenge = b""

    def select(self, aid: bytes) -> bytes:
        self._challenge = b""
        self._authenticated.clear()
        name = bytes((0x84, len(aid))) + aid
        return bytes((0x6F, len(name))) + name

    def process(self, command: Command) -> bytes:
        challenge, self._challenge = self._challenge, b""
        known = self._handlers.get(command.ins)
        if known is None:
            raise StatusError(SW.INS_UNKNOWN)
        cla, handler = known
        if command.cla != cla:
            raise StatusError(SW.CLA_UNKNOWN)
        return handler(command, challenge)

    def _key(self, key_id: int) -> Key:
        key = self._memory.keys.get(key_id)
        if key is None:
            raise StatusError(SW.KEY_NOT_FOUND)
        if key.tries_left <= 0:
            raise StatusError(SW.AUTHENTICATION_BLOCKED)
        return key

    def _schedule(self, key: Key) -> TwoKeyDes:
        schedule = self._schedules.get(key.key_id)
        if schedule is None:
            schedule = self._schedules[key.key_id] = TwoKeyDes(key.value)
        return schedule

    def _read_record(self, command: Command, challenge: bytes) -> bytes:
        if command.data or command.le is None:
            raise StatusError(SW.WRONG_LENGTH)
        if command.p2 & 0x07 != 0x04:
            raise StatusError(SW.WRONG_P1P2)
        file = self._memory.files.get(command.p2 >> 3)
        if file is None:
            raise StatusError(SW.FILE_NOT_FOUND)
        value = file.get(command.p1)
        if value is None:
            raise StatusError(SW.RECORD_NOT_FOUND)
        return as_long_as(command.le, bytes((command.p1, len(value))) + value)

    def _get_data(self, command: Command, challenge: bytes) -> bytes:
        """The key information template (GlobalPlatform Card Specification 2.3, 11.3.3.1)."""
        if command.data or command.le is None:
            raise StatusError(SW.WRONG_LENGTH)
        if (command.p1, command.p2) != (0x00, 0xE0):
            raise StatusError(SW.KEY_NOT_FOUND)
        items = b"".join(
            bytes((0xC0, 8, k.key_id, k.version, KEY_TYPE_DES, KEY_LENGTH, k.tries_left))
            + TwoKeyDes(k.value).encrypt(bytes(8))[:3]
            for k in self._memory.keys.values()
        )
        return as_long_as(command.le, bytes((0xE0, len(items))) + items)

    def _get_challenge(self, command: Command, challenge: bytes) -> bytes:
        if command.p1 or command.p2:
            raise StatusError(SW.WRONG_P1P2)
        if command.data or command.le != BLOCK:
            raise StatusError(SW.WRONG_LENGTH)
        self._challenge = os.urandom(BLOCK)
        return self._challenge

    def _external_authenticate(self, command: Command, challenge: bytes) -> bytes:
        if command.p1:
            raise StatusError(SW.WRONG_P1P2)
        if len(command.data) != BLOCK:
            raise StatusError(SW.WRONG_LENGTH)
        key = self._key(command.p2)
        if not challenge:
            raise StatusError(SW.CHALLENGE_MISSING)
        if not hmac.compare_digest(self._schedule(key).encrypt(challenge), command.data):
            self._change(TriesLeft(key.key_id, key.tries_left - 1))
            raise StatusError(_TRIES_LEFT | min(key.tries_left, 15))
        if key.tries_left != key.tries:
            self._change(TriesLeft(key.key_id, key.tries))
        self._authenticated.add(key.key_id)
        if self._weak and key.key_id == self._external:
            self._lose_charge(self._key(self._internal))
        return b""

    def _lose_charge(self, key: Key) -> None:
        """Every second bit of `key` reads as 0, its version as before."""
        worn = bytes(b & 0x55 for b in key.value)
        self._change(KeyWritten(key.key_id, key.version, worn, key.tries_left))
        self._schedules.pop(key.key_id, None)

    def _internal_authenticate(self, command: Command, challenge: bytes) -> bytes:
        if command.p1:
            raise StatusError(SW.WRONG_P1P2)
        if len(command.data) != BLOCK or command.le not in (None, 0, BLOCK):
            raise StatusError(SW.WRONG_LENGTH)
        key = self._key(command.p2)
        if key.key_id != self._internal:
            raise StatusError(SW.CONDITIONS_NOT_SATISFIED)
        return self._schedule(key).encrypt(command.data)

    def _write_key(self, command: Command, challenge: bytes) -> bytes:
        """Data: ECB of (length ‖ new key ‖ 80 00…) under the loading key ‖ MAC over header and
        cryptogram with the challenge as IV. P1 is the new version, P2 the key."""
        if len(command.data) <= MAC_LENGTH or (len(command.data) - MAC_LENGTH) % BLOCK:
            raise StatusError(SW.WRONG_LENGTH)
        target = self._memory.keys.get(command.p2)
        if target is None:
            raise StatusError(SW.KEY_NOT_FOUND)
        if self._loading not in self._authenticated:
            raise StatusError(SW.SECURITY_STATUS_NOT_SATISFIED)
        loading = self._key(self._loading)
        if not challenge:
            raise StatusError(SW.CHALLENGE_MISSING)
        schedule = self._schedule(loading)
        cryptogram, mac = command.data[:-MAC_LENGTH], command.data[-MAC_LENGTH:]
        right = schedule.retail_mac(challenge, command.header + cryptogram)[:MAC_LENGTH]
        if not hmac.compare_digest(right, mac):
            self._change(TriesLeft(loading.key_id, loading.tries_left - 1))
            raise StatusError(SW.SECURE_MESSAGING_OBJECT_WRONG)
        plain = schedule.decrypt(cryptogram)
        value = plain[1 : 1 + KEY_LENGTH]
        if plain != pad(bytes((KEY_LENGTH,)) + value):
            raise StatusError(SW.WRONG_DATA)
        self._change(KeyWritten(target.key_id, command.p1, value, target.tries))
        self._schedules.pop(target.key_id, None)
        return b""
