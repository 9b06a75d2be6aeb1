"""Keys, PIN and security state of the social application: who has proven what, since when.

A challenge serves the one command after it. An authentication with a key of a DF ends when that
DF is left; one with a key of the environment, and the PIN, hold until the environment is selected
anew, another application is, or the power is gone.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable
from typing import Final

from domain.card.apdu import SW
from domain.card.profile import AFTER_PIN, FREE, Profile
from station_agents.virtual.command import Command, StatusError
from station_agents.virtual.crypto import CHECK_VALUE_LENGTH, SUITES, Sm4Key, TwoKeyDes
from station_agents.virtual.social_memory import (
    Key,
    PinTriesLeft,
    SocialChange,
    SocialMemory,
    TriesLeft,
)

CHALLENGE_LENGTH: Final = 8
MAC_LENGTH: Final = 4

_TRIES_LEFT: Final = 0x63C0  # tries left in the low digit (ISO/IEC 7816-4, table 6)


class Security:
    """`df` is the DF that is selected (AID in hex), empty for the environment itself."""

    def __init__(
        self, profile: Profile, memory: SocialMemory, change: Callable[[SocialChange], None]
    ) -> None:
        self._memory = memory
        self._change = change
        self._suite = SUITES[profile.suite]
        self.block = self._suite.block
        self._slots = {slot.key_id: slot for slot in profile.keys}
        self._key_ids = {slot.usage: slot.key_id for slot in profile.keys}
        self.forget()

    def forget(self) -> None:
        self.df = ""
        self.pin_proven = False
        self._given = self._challenge = b""
        self._authenticated: set[int] = set()
        # Key schedules of this session: setting one up costs more than the operation.
        self._schedules: dict[int, TwoKeyDes | Sm4Key] = {}

    def next_command(self) -> None:
        """What was given out for this command serves it; nothing serves the one after."""
        self._challenge, self._given = self._given, b""

    def enter_environment(self) -> None:
        self.df = ""
        self.pin_proven = False
        self._authenticated.clear()

    def enter_df(self, df: str) -> None:
        self.df = df
        self._authenticated = {k for k in self._authenticated if not self._slots[k].df}

    def give_challenge(self) -> bytes:
        self._given = os.urandom(CHALLENGE_LENGTH)
        return self._given

    def target(self, key_id: int) -> Key:
        """A key of the environment or of the selected DF, blocked or not; 6A88 for any other."""
        key, slot = self._memory.keys.get(key_id), self._slots.get(key_id)
        if key is None or slot is None or slot.df not in ("", self.df):
            raise StatusError(SW.KEY_NOT_FOUND)
        return key

    def key(self, key_id: int) -> Key:
        """The same, for use: 6983 if it is blocked."""
        key = self.target(key_id)
        if key.tries_left <= 0:
            raise StatusError(SW.AUTHENTICATION_BLOCKED)
        return key

    def key_of(self, usage: str) -> Key:
        return self.key(self._key_ids[usage])

    def schedule(self, key: Key) -> TwoKeyDes | Sm4Key:
        schedule = self._schedules.get(key.key_id)
        if schedule is None:
            schedule = self._schedules[key.key_id] = self._suite(key.value)
        return schedule

    def was_written(self, key: Key) -> None:
        """`key` has another value from now on."""
        self._schedules.pop(key.key_id, None)

    def information(self, key: Key) -> bytes:
        """Its item in the key information template (GlobalPlatform Card Specification 2.3,
        11.3.3.1, and the check value)."""
        if not key.check_value:
            key.check_value = self.schedule(key).encrypt(bytes(self.block))[:CHECK_VALUE_LENGTH]
        return (
            bytes((0xC0, 8, key.key_id, key.version, self._suite.key_type, len(key.value)))
            + bytes((key.tries_left,))
            + key.check_value
        )

    def authenticate(self, key_id: int, cryptogram: bytes) -> Key:
        """EXTERNAL AUTHENTICATE: one block, the challenge filled with zeros under the key."""
        key = self.key(key_id)
        if not self._challenge:
            raise StatusError(SW.CHALLENGE_MISSING)
        right = self.schedule(key).encrypt(self._challenge_block())
        if not hmac.compare_digest(right, cryptogram):
            self._change(TriesLeft(key.key_id, key.tries_left - 1))
            raise StatusError(_TRIES_LEFT | min(key.tries_left, 15))
        if key.tries_left != key.tries:
            self._change(TriesLeft(key.key_id, key.tries))
        self._authenticated.add(key.key_id)
        return key

    def require(self, condition: str) -> None:
        """6982 unless `condition` (FREE, AFTER_PIN or the usage of a key) is met."""
        if condition == FREE:
            return
        met = (
            self.pin_proven
            if condition == AFTER_PIN
            else self._key_ids[condition] in self._authenticated
        )
        if not met:
            raise StatusError(SW.SECURITY_STATUS_NOT_SATISFIED)

    def checked(self, command: Command, key: Key) -> bytes:
        """The data of a command without the MAC at their end, which `key` makes over header, Lc
        and data from the challenge. Wrong: 6988, and the key has one try less."""
        if len(command.data) < MAC_LENGTH:
            raise StatusError(SW.WRONG_LENGTH)
        if not self._challenge:
            raise StatusError(SW.CHALLENGE_MISSING)
        body, mac = command.data[:-MAC_LENGTH], command.data[-MAC_LENGTH:]
        right = self.schedule(key).mac(self._challenge_block(), command.header + body)
        if not hmac.compare_digest(right[:MAC_LENGTH], mac):
            self._change(TriesLeft(key.key_id, key.tries_left - 1))
            raise StatusError(SW.SECURE_MESSAGING_OBJECT_WRONG)
        return body

    def check_pin(self, given: bytes) -> None:
        """Wrong: 63Cx and one try less; locked: 6983."""
        pin = self._memory.pin
        if pin.tries_left <= 0:
            raise StatusError(SW.AUTHENTICATION_BLOCKED)
        if not hmac.compare_digest(pin.value, given):
            self.pin_proven = False
            self._change(PinTriesLeft(pin.tries_left - 1))
            raise StatusError(_TRIES_LEFT | min(pin.tries_left, 15))

    def pin_state(self) -> int:
        """63Cx, or 6983 when it is locked."""
        left = self._memory.pin.tries_left
        return _TRIES_LEFT | min(left, 15) if left > 0 else SW.AUTHENTICATION_BLOCKED

    def _challenge_block(self) -> bytes:
        return self._challenge.ljust(self.block, b"\x00")
