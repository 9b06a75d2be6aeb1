"""The social application of LD/T 32-2015 (part 5), with keys of 3DES or SM4.

It enforces what a chip enforces: a challenge serves one command, error counters count down on
file, files open under their conditions, a key is written only under the loading key's
authentication and MAC. Every command makes at most one change of memory, so a loss of power
leaves it undone or done.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from domain.card.apdu import SW, LifeCycle
from domain.card.profile import Profile
from station_agents.virtual.command import Command, StatusError, as_long_as
from station_agents.virtual.crypto import KEY_LENGTH, pad
from station_agents.virtual.memory import CardBlocked, Change
from station_agents.virtual.social_files import Files
from station_agents.virtual.social_memory import (
    ApplicationBlocked,
    Key,
    KeyWritten,
    PinTriesLeft,
    PinWritten,
    SocialMemory,
)
from station_agents.virtual.social_security import CHALLENGE_LENGTH, MAC_LENGTH, Security

_SEPARATOR: Final = b"\xff"  # between the old PIN and the new one (PBOC, CHANGE PIN)
_SHORTEST_PIN, _LONGEST_PIN = 2, 6  # bytes of BCD
_SERVED_WHILE_BLOCKED: Final = frozenset((0xA4, 0xCA, 0x84, 0x18))

Handler = Callable[[Command], bytes]


class SocialApplication:
    """An `Application` of a chip. `change` puts a change on file and makes it in `memory`, or
    raises; the other arguments are those of `VirtualCard`."""

    def __init__(
        self,
        profile: Profile,
        memory: SocialMemory,
        change: Callable[[Change], None],
        *,
        weak: bool,
    ) -> None:
        self._profile = profile
        self._weak = weak
        self._external = profile.key(profile.external_usage).key_id
        self._internal = profile.key(profile.internal_usage).key_id
        self._holder = profile.fields["name"]
        self._memory = memory
        self._change = change
        self._security = Security(profile, memory, change)
        self._files = files = Files(profile, memory, self._security, change)
        self._dfs = {df.aid: aid for aid, df in profile.dfs.items()}
        self.aids = (profile.aid, *self._dfs)
        self._handlers: dict[int, tuple[tuple[int, ...], Handler]] = {
            0x16: ((0x84,), self._block_card),
            0x18: ((0x84,), self._unblock_application),
            0x1E: ((0x84,), self._block_application),
            0x20: ((0x00,), self._verify),
            0x24: ((0x84,), self._unblock_pin),
            0x5E: ((0x80,), self._change_pin),
            0x82: ((0x00,), self._external_authenticate),
            0x84: ((0x00,), self._get_challenge),
            0x88: ((0x00,), self._internal_authenticate),
            0xA4: ((0x00,), files.select),
            0xB0: ((0x00,), files.read_binary),
            0xB2: ((0x00,), files.read_record),
            0xCA: ((0x80,), self._get_data),
            0xD4: ((0x84,), self._write_key),
            0xD6: ((0x00, 0x04), files.update_binary),
            0xDC: ((0x00, 0x04), files.update_record),
        }

    def forget(self) -> None:
        self._security.forget()
        self._files.forget()

    def interrupt(self) -> None:
        self._security.next_command()

    def select(self, aid: bytes) -> bytes:
        self._security.next_command()
        self._files.forget()
        df = self._dfs.get(aid)
        if df is None:
            self._security.enter_environment()
        else:
            self._security.enter_df(df)
        if self._memory.blocked:
            raise StatusError(SW.SELECTED_FILE_INVALIDATED)
        name = bytes((0x84, len(aid))) + aid
        return bytes((0x6F, len(name))) + name

    def process(self, command: Command) -> bytes:
        self._security.next_command()
        known = self._handlers.get(command.ins)
        if known is None:
            raise StatusError(SW.INS_UNKNOWN)
        classes, handler = known
        if command.cla not in classes:
            raise StatusError(SW.CLA_UNKNOWN)
        if self._memory.blocked and command.ins not in _SERVED_WHILE_BLOCKED:
            raise StatusError(SW.APPLICATION_BLOCKED)
        return handler(command)

    # What the chip says of itself.

    def _get_data(self, command: Command) -> bytes:
        if command.data or command.le is None:
            raise StatusError(SW.WRONG_LENGTH)
        match command.p1 << 8 | command.p2:
            case 0x00E0:
                items = b"".join(map(self._security.information, self._memory.keys.values()))
                data = bytes((0xE0, len(items))) + items
            case 0x9F17:
                data = bytes((0x9F, 0x17, 1, self._memory.pin.tries_left))
            case 0x9F70:
                data = bytes((0x9F, 0x70, 1, self._life_cycle()))
            case _:
                raise StatusError(SW.KEY_NOT_FOUND)
        return as_long_as(command.le, data)

    def _life_cycle(self) -> LifeCycle:
        if self._memory.blocked:
            return LifeCycle.BLOCKED
        if not self._memory.keys:
            return LifeCycle.BLANK
        temporary = self._profile.temporary_version
        if any(key.version == temporary for key in self._memory.keys.values()):
            return LifeCycle.TEMPORARY_KEYS
        holder = self._memory.records.get(self._holder.file, {})
        return LifeCycle.PERSONALIZED if self._holder.tag in holder else LifeCycle.FORMAL_KEYS

    # Keys.

    def _get_challenge(self, command: Command) -> bytes:
        _without_p1p2(command)
        if command.data or command.le != CHALLENGE_LENGTH:
            raise StatusError(SW.WRONG_LENGTH)
        return self._security.give_challenge()

    def _external_authenticate(self, command: Command) -> bytes:
        if command.p1:
            raise StatusError(SW.WRONG_P1P2)
        if len(command.data) != self._security.block:
            raise StatusError(SW.WRONG_LENGTH)
        key = self._security.authenticate(command.p2, command.data)
        if self._weak and key.key_id == self._external:
            self._lose_charge(self._security.key(self._internal))
        return b""

    def _lose_charge(self, key: Key) -> None:
        """Every second bit of `key` reads as 0, its version as before."""
        worn = bytes(b & 0x55 for b in key.value)
        self._change(KeyWritten(key.key_id, key.version, worn, key.tries_left, key.written))
        self._security.was_written(key)

    def _internal_authenticate(self, command: Command) -> bytes:
        if command.p1:
            raise StatusError(SW.WRONG_P1P2)
        if len(command.data) != self._security.block:
            raise StatusError(SW.WRONG_LENGTH)
        if command.le not in (None, 0, self._security.block):
            raise StatusError(SW.WRONG_LENGTH)
        key = self._security.key(command.p2)
        if key.key_id != self._internal:
            raise StatusError(SW.CONDITIONS_NOT_SATISFIED)
        return self._security.schedule(key).encrypt(command.data)

    def _write_key(self, command: Command) -> bytes:
        """Data: ECB of (length ‖ new key ‖ 80 00…) under the loading key ‖ MAC. P1 is the new
        version, P2 the key, which may be a blocked one."""
        block = self._security.block
        if len(command.data) <= MAC_LENGTH or (len(command.data) - MAC_LENGTH) % block:
            raise StatusError(SW.WRONG_LENGTH)
        target = self._security.target(command.p2)
        self._security.require(self._profile.loading_usage)
        loading = self._security.key_of(self._profile.loading_usage)
        plain = self._security.schedule(loading).decrypt(self._security.checked(command, loading))
        value = plain[1 : 1 + KEY_LENGTH]
        if plain != pad(bytes((KEY_LENGTH,)) + value, block):
            raise StatusError(SW.WRONG_DATA)
        times = target.written + 1
        self._change(KeyWritten(target.key_id, command.p1, value, target.tries, times))
        self._security.was_written(target)
        return b""

    # The PIN.

    def _verify(self, command: Command) -> bytes:
        """Without data: 9000 if the PIN was proven, else how many tries it has."""
        _without_p1p2(command)
        if command.data:
            self._security.check_pin(command.data)
            pin = self._memory.pin
            if pin.tries_left != pin.tries:
                self._change(PinTriesLeft(pin.tries))
            self._security.pin_proven = True
        elif not self._security.pin_proven:
            raise StatusError(self._security.pin_state())
        return b""

    def _change_pin(self, command: Command) -> bytes:
        """P1 01: the old PIN, FF, the new one (CHANGE PIN). P1 00: the new one and a MAC under the
        reload key (RELOAD PIN)."""
        if command.p1 > 1 or command.p2:
            raise StatusError(SW.WRONG_P1P2)
        if command.p1:
            old, separator, new = command.data.partition(_SEPARATOR)
            if not separator:
                raise StatusError(SW.WRONG_DATA)
            self._security.check_pin(old)
        else:
            reload = self._security.key_of(self._profile.pin.reload_usage)
            new = self._security.checked(command, reload)
        if not _is_pin(new):
            raise StatusError(SW.WRONG_DATA)
        self._change(PinWritten(new, self._memory.pin.tries))
        self._security.pin_proven = False
        return b""

    def _unblock_pin(self, command: Command) -> bytes:
        """A MAC under the unblocking key; the PIN is the old one, with all its tries."""
        _without_p1p2(command)
        unblock = self._security.key_of(self._profile.pin.unblock_usage)
        self._only_mac(command, unblock)
        if self._memory.pin.tries_left > 0:
            raise StatusError(SW.CONDITIONS_NOT_SATISFIED)
        self._change(PinTriesLeft(self._memory.pin.tries))
        return b""

    # Blocking.

    def _block_application(self, command: Command) -> bytes:
        return self._block(command, self._profile.maintenance_usage, ApplicationBlocked(True))

    def _unblock_application(self, command: Command) -> bytes:
        return self._block(command, self._profile.maintenance_usage, ApplicationBlocked(False))

    def _block_card(self, command: Command) -> bytes:
        """For good: nothing takes a card's block away."""
        return self._block(command, self._profile.loading_usage, CardBlocked())

    def _block(self, command: Command, usage: str, change: Change) -> bytes:
        _without_p1p2(command)
        self._only_mac(command, self._security.key_of(usage))
        self._change(change)
        return b""

    def _only_mac(self, command: Command, key: Key) -> None:
        if self._security.checked(command, key):
            raise StatusError(SW.WRONG_LENGTH)


def _without_p1p2(command: Command) -> None:
    if command.p1 or command.p2:
        raise StatusError(SW.WRONG_P1P2)


def _is_pin(value: bytes) -> bool:
    """BCD of 2 to 6 bytes, of which F may stand at the end only."""
    digits = value.hex().rstrip("f")
    return (
        _SHORTEST_PIN <= len(value) <= _LONGEST_PIN
        and digits.isdigit()
        and 2 * len(value) - len(digits) <= 1
    )
