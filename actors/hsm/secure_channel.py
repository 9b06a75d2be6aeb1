"""What the host sides of GlobalPlatform's secure channel protocols share (`scp02`, `scp03`).

GPC: GlobalPlatform Card Specification 2.3.1. Amendment D: 1.1.2. Short APDUs, basic logical
channel, explicit initiation. A channel lives in the provider's memory for one call; what it has
sent can be computed again from the same bytes, so nothing is kept between two calls.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import IntFlag
from typing import Protocol

from actors.hsm.suites import Suite
from domain.card.apdu import Command, parse
from domain.codes import Code

MAC_LENGTH = 8
CHALLENGE_LENGTH = 8

_SECURE_MESSAGING = 0x04
_EXTERNAL_AUTHENTICATE = 0x82
_KEY_DATA = 10


class Level(IntFlag):
    """Security level, P1 of EXTERNAL AUTHENTICATE (GPC E.5.2.3; Amendment D 7.1.2.1)."""

    C_MAC = 0x01
    C_DECRYPTION = 0x02
    R_MAC = 0x10
    R_ENCRYPTION = 0x20


class ChannelError(Exception):
    """A chip's answer does not belong to the channel; `code` is one of `domain.codes.Code`."""

    def __init__(self, code: Code) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True)
class CardKeys:
    """The three static keys of a security domain (GPC 7.5.1), never shown."""

    enc: bytes = field(repr=False)
    mac: bytes = field(repr=False)
    dek: bytes = field(repr=False)

    def __iter__(self) -> Iterator[bytes]:
        """In the order of their key identifiers, 1 to 3."""
        return iter((self.enc, self.mac, self.dek))


@dataclass(frozen=True)
class Opening:
    """A chip's answer to INITIALIZE UPDATE (GPC E.5.1.6; Amendment D 7.1.1.6)."""

    key_data: bytes
    """Key diversification data, 10 bytes."""
    key_version: int
    protocol: int
    sequence_counter: bytes
    """SCP02: 2 bytes. SCP03: empty; its counter serves the chip alone."""
    card_challenge: bytes
    """SCP02: 6 bytes; SCP03: 8."""
    card_cryptogram: bytes


def parse_opening(response: bytes) -> Opening:
    """The answer to INITIALIZE UPDATE without its status word. Raises ValueError."""
    protocol = response[_KEY_DATA + 1] if len(response) > _KEY_DATA + 1 else 0
    key_data, key_version = response[:_KEY_DATA], response[_KEY_DATA : _KEY_DATA + 1]
    rest = response[_KEY_DATA + 2 :]
    if protocol == 2 and len(rest) == 16:
        counter, challenge, cryptogram = rest[:2], rest[2:8], rest[8:]
    elif protocol == 3 and len(rest) in (17, 20) and not rest[0] & 0x01:
        # Parameter i, of which bit 1 asks for challenges of 16 bytes (not served), then challenge
        # and cryptogram; a chip whose challenges are pseudo-random adds its counter.
        counter, challenge, cryptogram = b"", rest[1:9], rest[9:17]
    else:
        raise ValueError("no answer to INITIALIZE UPDATE of SCP02, nor of SCP03 with 8 bytes")
    return Opening(key_data, key_version[0], protocol, counter, challenge, cryptogram)


class SecureChannel(Protocol):
    """A channel that the chip has opened. Commands go through `wrap` in the order in which they
    are sent, each answer through `unwrap` before the next command."""

    suite: Suite
    external_authenticate: bytes
    """The whole APDU, the first that is sent."""

    def wrap(self, apdu: bytes) -> bytes:
        """A plain command as it is sent. ValueError for a command that does not fit."""
        ...

    def unwrap(self, response: bytes) -> bytes:
        """An answer (data and status word) as the chip meant it. Raises
        ChannelError(RESPONSE_MAC) for one that the chip did not make; ValueError if it is none."""
        ...

    def encipher_secret(self, data: bytes) -> bytes:
        """Whole blocks under the data encryption key, for keys and secret DGIs."""
        ...


def external_authenticate(level: Level, host_cryptogram: bytes) -> Command:
    """EXTERNAL AUTHENTICATE before its MAC (GPC E.5.2)."""
    return Command(0x80, _EXTERNAL_AUTHENTICATE, level, 0x00, host_cryptogram)


def for_mac(command: Command) -> Command:
    """The command that a MAC covers: class byte of secure messaging; Le is never covered."""
    return replace(command, cla=command.cla | _SECURE_MESSAGING, le=None)


def mac_input(command: Command) -> bytes:
    """The modified APDU without its MAC: the header counts the MAC in Lc (GPC E.4.4)."""
    length = len(command.data) + MAC_LENGTH
    if length > 255:
        raise ValueError("the command does not fit into one short APDU with its MAC")
    header = (command.cla, command.ins, command.p1, command.p2, length)
    return bytes(header) + command.data


def parse_plain(apdu: bytes) -> Command:
    """A command before it is wrapped. Raises ValueError."""
    command = parse(apdu)
    if command.cla & 0x0F:
        raise ValueError("a plain command on the basic logical channel has a class byte X0")
    return command


def split_response(response: bytes) -> tuple[bytes, bytes]:
    """Data and status word. Raises ValueError."""
    if len(response) < 2:
        raise ValueError("an answer has a status word")
    return response[:-2], response[-2:]


def check_level(level: int, allowed: tuple[int, ...]) -> Level:
    """ValueError for a security level that the protocol does not have."""
    if level not in allowed:
        raise ValueError(f"security level {level:02X} is none of this protocol")
    return Level(level)
