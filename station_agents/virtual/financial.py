"""The financial side of a chip: GlobalPlatform's card manager and the payment applications.

GPC: GlobalPlatform Card Specification 2.3.1. The card manager (issuer security domain) serves the
secure channel to every application; what needs a channel is done on one with C-MAC or more, and
a channel ends with the first command that is not protected as agreed, with another SELECT and
with the power (GPC 10.2.3).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from typing import Final

from domain.card.apdu import SW
from station_agents.virtual import payment
from station_agents.virtual.channel import MAC, Channel, ProtectionError, Scp02, Scp03
from station_agents.virtual.command import Command, StatusError, as_long_as
from station_agents.virtual.financial_memory import (
    AES,
    CARD_LOCKED,
    DES,
    INITIALIZED,
    LOCKED,
    OP_READY,
    SECURED,
    TERMINATED,
    ChannelTries,
    FinancialChange,
    FinancialMemory,
    KeySet,
    LifeCycle,
    SequenceCounter,
)
from station_agents.virtual.key_sets import check_values, put_key
from station_agents.virtual.payment import Incoming, tlv

_GP, _SECURE = 0x80, 0x04  # class byte of GlobalPlatform's commands; its bit for a protected one
_INITIALIZE_UPDATE, _EXTERNAL_AUTHENTICATE = 0x50, 0x82
_CRYPTOGRAM: Final = 8
_ANSWER_MOST: Final = 256
_LAST_COUNTER: Final = {DES: 0xFFFF, AES: 0xFFFFFF}
_LIFE: Final = frozenset(
    {
        (OP_READY, INITIALIZED),
        (INITIALIZED, SECURED),
        (SECURED, CARD_LOCKED),
        (CARD_LOCKED, SECURED),
    }
    | {(state, TERMINATED) for state in (OP_READY, INITIALIZED, SECURED, CARD_LOCKED)}
)
"""Steps of the card's life cycle that SET STATUS may take (GPC 5.1.2)."""

_CARD_DATA: Final = tlv(0x06, bytes.fromhex("2A864886FC6B01")) + tlv(
    0x60, tlv(0x06, bytes.fromhex("2A864886FC6B02020301"))
) + tlv(0x63, tlv(0x06, bytes.fromhex("2A864886FC6B03")))  # fmt: skip
_PROTOCOLS: Final = {DES: bytes((0x02, 0x15)), AES: bytes((0x03, 0x70))}
_MANAGER_INFORMATION: Final = bytes.fromhex("9F6501FF")  # longest data of a command: 255
_MANAGER_PRIVILEGES, _NO_PRIVILEGES = bytes.fromhex("9EFE80"), bytes(3)


class FinancialApplication:
    """Card manager and payment applications of one chip, over `memory`.

    `change` puts a change on file and makes it; raises OSError if it cannot. `random` gives the
    card challenges of SCP02.
    """

    def __init__(
        self,
        memory: FinancialMemory,
        change: Callable[[FinancialChange], None],
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._memory = memory
        self._change = change
        self._random = random
        self._aid = memory.manager
        self._pending: tuple[KeySet, Channel] | None = None
        self._channel: Channel | None = None
        self._incoming: Incoming | None = None
        self._manager: dict[tuple[int, int], Callable[[Command], bytes]] = {
            (0x80, 0xCA): self._get_data,
            (0x80, 0xD8): self._put_key,
            (0x80, 0xE2): self._store_data,
            (0x80, 0xE6): self._install,
            (0x80, 0xF0): self._set_status,
            (0x80, 0xF2): self._get_status,
        }
        self._payment: dict[tuple[int, int], Callable[[Command], bytes]] = {
            (0x00, 0xB2): self._read_record,
            (0x80, 0xA8): self._processing_options,
            (0x80, 0xCA): self._payment_data,
            (0x80, 0xE2): self._store_data,
        }

    @property
    def aids(self) -> Collection[bytes]:
        return (self._memory.manager, *self._memory.applications)

    def select(self, aid: bytes) -> bytes:
        """Card manager or payment application; a locked one is not found."""
        self._end()
        if aid == self._memory.manager:
            self._aid = aid
            return tlv(0x6F, tlv(0x84, aid) + tlv(0xA5, _MANAGER_INFORMATION))
        application = self._memory.applications[aid]
        if self._memory.state in (CARD_LOCKED, TERMINATED) or application.state & LOCKED:
            raise StatusError(SW.FILE_NOT_FOUND)
        self._aid = aid
        return payment.control_information(aid, application)

    def interrupt(self) -> None:
        self._end()

    def forget(self) -> None:
        self._end()
        self._aid = self._memory.manager

    def _end(self) -> None:
        """The channel is gone, and with it what STORE DATA has not brought whole."""
        self._pending = self._channel = self._incoming = None

    def process(self, command: Command) -> bytes:
        pending, self._pending = self._pending, None
        if (command.cla, command.ins) == (_GP, _INITIALIZE_UPDATE):
            self._end()
            return self._initialize_update(command)
        if (command.cla, command.ins) == (_GP | _SECURE, _EXTERNAL_AUTHENTICATE):
            self._end()
            return self._external_authenticate(command, pending)
        protected = bool(command.cla & _SECURE)
        channel = self._channel
        if channel is None:
            if protected:
                raise StatusError(SW.SECURITY_STATUS_NOT_SATISFIED)
            return self._execute(command)
        if not protected or len(command.data) < MAC:
            self._end()
            raise StatusError(SW.SECURITY_STATUS_NOT_SATISFIED)
        try:
            data = channel.unwrap(command)
        except ProtectionError:
            self._end()
            raise StatusError(SW.SECURE_MESSAGING_OBJECT_WRONG) from None
        answer = self._execute(command._replace(cla=command.cla & ~_SECURE, data=data))
        return _within(channel.wrap(answer))

    def _initialize_update(self, command: Command) -> bytes:
        """GPC E.5.1; Amendment D 7.1.1. P1 00 asks for the first key set."""
        keys = self._memory.key_set(command.p1)
        if command.p2:
            raise StatusError(SW.WRONG_P1P2)
        if len(command.data) != 8:
            raise StatusError(SW.WRONG_LENGTH)
        if keys is None:
            raise StatusError(SW.KEY_NOT_FOUND)
        if self._memory.state == TERMINATED:
            raise StatusError(SW.CONDITIONS_NOT_SATISFIED)
        if self._memory.tries_left <= 0 or keys.counter >= _LAST_COUNTER[keys.type]:
            raise StatusError(SW.AUTHENTICATION_BLOCKED)
        channel: Channel
        if keys.type == DES:
            channel = Scp02(keys.keys, keys.counter, command.data, self._random)
        else:
            # The challenge follows from the counter: it never comes twice.
            self._change(SequenceCounter(keys.version, keys.counter + 1))
            channel = Scp03(keys.keys, keys.counter + 1, command.data, self._aid)
        self._pending = keys, channel
        return self._memory.diversification + bytes((keys.version,)) + channel.opening

    def _external_authenticate(
        self, command: Command, pending: tuple[KeySet, Channel] | None
    ) -> bytes:
        """GPC E.5.2; Amendment D 7.1.2. A wrong host costs a try, the right one restores them."""
        if pending is None:
            raise StatusError(SW.CONDITIONS_NOT_SATISFIED)
        keys, channel = pending
        if command.p1 not in channel.LEVELS or command.p2:
            raise StatusError(SW.WRONG_P1P2)
        if len(command.data) != _CRYPTOGRAM + MAC:
            raise StatusError(SW.WRONG_LENGTH)
        memory = self._memory
        if not channel.is_host(command.data[:_CRYPTOGRAM]):
            self._change(ChannelTries(memory.tries_left - 1))
            raise StatusError(SW.AUTHENTICATION_FAILED)
        try:
            channel.authenticate(command)
        except ProtectionError:
            self._change(ChannelTries(memory.tries_left - 1))
            raise StatusError(SW.SECURE_MESSAGING_OBJECT_WRONG) from None
        if keys.type == DES:  # counted with the first C-MAC that is right
            self._change(SequenceCounter(keys.version, keys.counter + 1))
        if memory.tries_left != memory.tries:
            self._change(ChannelTries(memory.tries))
        self._channel = channel
        return b""  # without R-MAC: the channel holds from the next command on

    def _execute(self, command: Command) -> bytes:
        handlers = self._manager if self._aid == self._memory.manager else self._payment
        handler = handlers.get((command.cla, command.ins))
        if handler is None:
            known = any(ins == command.ins for _, ins in handlers)
            raise StatusError(SW.CLA_UNKNOWN if known else SW.INS_UNKNOWN)
        return _within(handler(command))

    def _open(self, *, locked: bool = False) -> Channel:
        """The channel, or 6982; 6985 in a locked card, except for what `locked` allows."""
        if self._channel is None:
            raise StatusError(SW.SECURITY_STATUS_NOT_SATISFIED)
        if self._memory.state == TERMINATED or (self._memory.state == CARD_LOCKED and not locked):
            raise StatusError(SW.CONDITIONS_NOT_SATISFIED)
        return self._channel

    def _get_data(self, command: Command) -> bytes:
        """GPC 11.3: card data, key information, production data, diversification data."""
        if command.data:
            raise StatusError(SW.WRONG_LENGTH)
        memory = self._memory
        tag = command.p1 << 8 | command.p2
        match tag:
            case 0x0066:
                types = dict.fromkeys(keys.type for keys in memory.key_sets)
                channels = b"".join(
                    tlv(0x64, tlv(0x06, bytes.fromhex("2A864886FC6B04") + _PROTOCOLS[t]))
                    for t in types
                )
                value = tlv(0x73, _CARD_DATA + channels)
            case 0x00E0:
                value = b"".join(
                    tlv(0xC0, bytes((number, keys.version, keys.type, len(key))))
                    for keys in memory.key_sets
                    for number, key in enumerate(keys.keys, 1)
                )
            case 0x9F7F:
                value = memory.cplc
            case 0x00CF:
                value = memory.diversification
            case _:
                raise StatusError(SW.KEY_NOT_FOUND)
        return as_long_as(command.le or 0, tlv(tag, value))

    def _put_key(self, command: Command) -> bytes:
        """GPC 11.8. On file as a whole before the answer, or not at all."""
        written = put_key(command, self._open(), self._memory)
        self._change(written)
        return check_values(written.keys)

    def _install(self, command: Command) -> bytes:
        """INSTALL [for personalization] (GPC 11.5): STORE DATA goes to that application."""
        self._open()
        if (command.p1, command.p2) != (0x20, 0x00):
            raise StatusError(SW.WRONG_P1P2)
        data = command.data
        aid = data[3 : 3 + data[2]] if len(data) > 2 else b""
        if data != b"\0\0" + bytes((len(aid),)) + aid + b"\0\0\0":
            raise StatusError(SW.WRONG_DATA)
        if aid not in self._memory.applications:
            raise StatusError(SW.KEY_NOT_FOUND)
        self._incoming = Incoming(aid)
        return b"\0"

    def _store_data(self, command: Command) -> bytes:
        """GPC 11.11: for the selected application, or the one that INSTALL named."""
        channel = self._open()
        if self._incoming is None:
            if self._aid == self._memory.manager:
                raise StatusError(SW.CONDITIONS_NOT_SATISFIED)
            self._incoming = Incoming(self._aid)
        application = self._memory.applications[self._incoming.aid]
        self._incoming.store(command, application, channel.decipher, self._change)
        return b""

    def _set_status(self, command: Command) -> bytes:
        """GPC 11.10: the card's own state (P1 80), or lock and unlock an application (P1 40)."""
        self._open(locked=True)
        memory = self._memory
        if command.p1 == 0x80:
            if (memory.state, command.p2) not in _LIFE:
                raise StatusError(SW.CONDITIONS_NOT_SATISFIED)
            self._change(LifeCycle(memory.manager, command.p2))
        elif command.p1 == 0x40 and not command.p2 & ~LOCKED:
            application = memory.applications.get(command.data)
            if application is None:
                raise StatusError(SW.KEY_NOT_FOUND)
            self._change(LifeCycle(command.data, application.state & ~LOCKED | command.p2))
        else:
            raise StatusError(SW.WRONG_P1P2)
        return b""

    def _get_status(self, command: Command) -> bytes:
        """GPC 11.4: of the card manager (P1 80) or the applications (P1 40); P2 02 as objects, 00
        as AID, state and privileges. The data is 4F and the AIDs' beginning, or nothing."""
        self._open(locked=True)
        if command.p2 not in (0x00, 0x02) or command.p1 not in (0x80, 0x40, 0x20, 0x10):
            raise StatusError(SW.WRONG_P1P2)
        begin = payment.find(command.data, 0x4F)
        if begin is None:
            raise StatusError(SW.WRONG_DATA)
        found: list[tuple[bytes, int, bytes]] = []
        if command.p1 == 0x80:
            found = [(self._memory.manager, self._memory.state, _MANAGER_PRIVILEGES)]
        elif command.p1 == 0x40:
            found = [(a, m.state, _NO_PRIVILEGES) for a, m in self._memory.applications.items()]
        found = [entry for entry in found if entry[0].startswith(begin)]
        if not found:
            raise StatusError(SW.KEY_NOT_FOUND)
        if command.p2 == 0x02:
            return b"".join(
                tlv(0xE3, tlv(0x4F, aid) + tlv(0x9F70, bytes((state,))) + tlv(0xC5, privileges))
                for aid, state, privileges in found
            )
        return b"".join(
            bytes((len(aid),)) + aid + bytes((state, privileges[0]))
            for aid, state, privileges in found
        )

    def _read_record(self, command: Command) -> bytes:
        return payment.read_record(command, self._memory.applications[self._aid])

    def _processing_options(self, command: Command) -> bytes:
        return payment.processing_options(command, self._memory.applications[self._aid])

    def _payment_data(self, command: Command) -> bytes:
        return payment.get_data(command, self._memory.applications[self._aid])


def _within(answer: bytes) -> bytes:
    """`answer`, if a short APDU can carry it; else 6F00."""
    if len(answer) > _ANSWER_MOST:
        raise StatusError(SW.NO_DIAGNOSIS)
    return answer
