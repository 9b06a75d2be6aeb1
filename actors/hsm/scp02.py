"""Secure Channel Protocol 02, host side, i = 15: three keys, C-MAC on the modified APDU, ICV of
each MAC enciphered (GPC 2.3.1, annex E)."""

from __future__ import annotations

import hmac

from actors.hsm.secure_channel import (
    CHALLENGE_LENGTH,
    MAC_LENGTH,
    CardKeys,
    ChannelError,
    Level,
    Opening,
    check_level,
    external_authenticate,
    for_mac,
    mac_input,
    parse_plain,
    split_response,
)
from actors.hsm.suites import TRIPLE_DES
from domain.card.apdu import Command
from domain.codes import Code

LEVELS = (Level.C_MAC, Level.C_MAC | Level.C_DECRYPTION)

# E.4.1, the constants of session keys.
_C_MAC, _ENC, _DEK = b"\x01\x01", b"\x01\x82", b"\x01\x81"
_ZERO = bytes(8)


class Scp02:
    """See `SecureChannel`."""

    suite = TRIPLE_DES

    def __init__(self, keys: CardKeys, host_challenge: bytes, opening: Opening, level: int) -> None:
        """Raises ChannelError(CARD_CRYPTOGRAM) if the chip does not hold `keys`, ValueError for
        bytes of another length."""
        if len(host_challenge) != CHALLENGE_LENGTH:
            raise ValueError("a host challenge has 8 bytes")
        self._level = check_level(level, LEVELS)
        counter = opening.sequence_counter
        enc = _session_key(keys.enc, _ENC, counter)
        card = counter + opening.card_challenge
        if not hmac.compare_digest(
            _cryptogram(enc, host_challenge + card), opening.card_cryptogram
        ):
            raise ChannelError(Code.CARD_CRYPTOGRAM)
        self._enc = enc
        self._mac = _session_key(keys.mac, _C_MAC, counter)
        self._dek = _session_key(keys.dek, _DEK, counter)
        self._icv = _ZERO
        command = external_authenticate(self._level, _cryptogram(enc, card + host_challenge))
        self.external_authenticate = self._send(command, secret=False)

    def wrap(self, apdu: bytes) -> bytes:
        return self._send(parse_plain(apdu), secret=Level.C_DECRYPTION in self._level)

    def unwrap(self, response: bytes) -> bytes:
        """i = 15 has no protected responses: nothing is checked."""
        split_response(response)
        return response

    def encipher_secret(self, data: bytes) -> bytes:
        """E.4.7: 3DES in ECB under the session's key."""
        return TRIPLE_DES.encipher(self._dek, data)

    def _send(self, command: Command, *, secret: bool) -> bytes:
        """E.4.4 and E.4.6: the MAC covers the plain data, which are enciphered afterwards."""
        sent = for_mac(command)
        mac = TRIPLE_DES.mac(self._mac, self._icv, mac_input(sent))
        # E.3.4: single DES with the first half of the key.
        self._icv = TRIPLE_DES.encipher(self._mac[:8] * 2, mac)
        data = command.data
        if secret and data:
            data = TRIPLE_DES.encipher_cbc(self._enc, _ZERO, TRIPLE_DES.pad(data))
        return bytes(Command(sent.cla, sent.ins, sent.p1, sent.p2, data + mac, command.le))


def _session_key(key: bytes, constant: bytes, counter: bytes) -> bytes:
    """E.4.1."""
    return TRIPLE_DES.encipher_cbc(key, _ZERO, (constant + counter).ljust(16, b"\x00"))


def _cryptogram(enc: bytes, data: bytes) -> bytes:
    """E.4.2, B.1.2.1: the last block of 3DES in CBC over padded data."""
    return TRIPLE_DES.encipher_cbc(enc, _ZERO, TRIPLE_DES.pad(data))[-MAC_LENGTH:]
