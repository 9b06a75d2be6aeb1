"""Secure Channel Protocol 03, host side, with challenges and MACs of 8 bytes (GPC Amendment D
1.1.2): AES-128, 192 and 256, session keys by the counter mode KDF of NIST SP 800-108 over CMAC."""

from __future__ import annotations

import hmac

from cryptography.hazmat.primitives.ciphers.algorithms import AES as AESCipher
from cryptography.hazmat.primitives.cmac import CMAC

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
from actors.hsm.suites import AES
from domain.card.apdu import Command
from domain.codes import Code

_COMMANDS = Level.C_MAC | Level.C_DECRYPTION
LEVELS = (
    Level.C_MAC,
    _COMMANDS,
    Level.C_MAC | Level.R_MAC,
    _COMMANDS | Level.R_MAC,
    _COMMANDS | Level.R_MAC | Level.R_ENCRYPTION,
)

# 4.1.5, table 4-1: what is derived.
_CARD_CRYPTOGRAM, _HOST_CRYPTOGRAM, _S_ENC, _S_MAC, _S_RMAC = 0x00, 0x01, 0x04, 0x06, 0x07
_BLOCK = 16
_ZERO = bytes(_BLOCK)


def cmac(key: bytes, data: bytes) -> bytes:
    """NIST SP 800-38B over AES, 16 bytes."""
    code = CMAC(AESCipher(key))
    code.update(data)
    return code.finalize()


def derive(key: bytes, constant: int, context: bytes, length: int) -> bytes:
    """`length` bytes by the data derivation scheme of 4.1.5: label (11 bytes of 00 ‖ constant) ‖
    00 ‖ length in bits (2 bytes) ‖ counter (1 byte) ‖ context."""
    fixed = bytes(11) + bytes((constant, 0x00)) + (8 * length).to_bytes(2, "big")
    blocks = range(1, -(-length // _BLOCK) + 1)
    return b"".join(cmac(key, fixed + bytes((i,)) + context) for i in blocks)[:length]


class Scp03:
    """See `SecureChannel`."""

    suite = AES

    def __init__(self, keys: CardKeys, host_challenge: bytes, opening: Opening, level: int) -> None:
        """Raises ChannelError(CARD_CRYPTOGRAM) if the chip does not hold `keys`, ValueError for
        bytes of another length."""
        if len(host_challenge) != CHALLENGE_LENGTH:
            raise ValueError("a host challenge has 8 bytes")
        self._level = check_level(level, LEVELS)
        context = host_challenge + opening.card_challenge
        mac = derive(keys.mac, _S_MAC, context, len(keys.mac))
        expected = derive(mac, _CARD_CRYPTOGRAM, context, MAC_LENGTH)
        if not hmac.compare_digest(expected, opening.card_cryptogram):
            raise ChannelError(Code.CARD_CRYPTOGRAM)
        self._mac = mac
        self._enc = derive(keys.enc, _S_ENC, context, len(keys.enc))
        self._rmac = derive(keys.mac, _S_RMAC, context, len(keys.mac))
        self._dek = keys.dek
        self._chain = _ZERO
        self._counter = 0
        cryptogram = derive(mac, _HOST_CRYPTOGRAM, context, MAC_LENGTH)
        self.external_authenticate = self._send(external_authenticate(self._level, cryptogram))

    def wrap(self, apdu: bytes) -> bytes:
        command = parse_plain(apdu)
        # 6.2.6: counted also for a command without data, which has nothing to encipher.
        self._counter += 1
        data = command.data
        if Level.C_DECRYPTION in self._level and data:
            data = AES.encipher_cbc(self._enc, self._icv(0x00), AES.pad(data))
        # A protected response is longer than the plain one that Le asks for.
        le = 0 if command.le is not None and Level.R_MAC in self._level else command.le
        return self._send(Command(command.cla, command.ins, command.p1, command.p2, data, le))

    def unwrap(self, response: bytes) -> bytes:
        data, status = split_response(response)
        if Level.R_MAC not in self._level:
            return response
        if not data and status != b"\x90\x00" and status[0] not in (0x62, 0x63):
            # 6.2.5: an error is a bare status word.
            return response
        data, mac = data[:-MAC_LENGTH], data[-MAC_LENGTH:]
        expected = cmac(self._rmac, self._chain + data + status)[:MAC_LENGTH]
        if not hmac.compare_digest(expected, mac):
            raise ChannelError(Code.RESPONSE_MAC)
        if Level.R_ENCRYPTION in self._level and data:
            # 6.2.7: the ICV of the command's counter, with 80 in its first byte.
            padded = AES.decipher_cbc(self._enc, self._icv(0x80), data)
            data, mark, rest = padded.rpartition(b"\x80")
            if not mark or rest.strip(b"\x00"):
                raise ChannelError(Code.RESPONSE_MAC)
        return data + status

    def encipher_secret(self, data: bytes) -> bytes:
        """6.2.8: AES in CBC from an ICV of zeros, under the static key."""
        return AES.encipher_cbc(self._dek, _ZERO, data)

    def _icv(self, first: int) -> bytes:
        """6.2.6: the enciphered command counter."""
        block = self._counter.to_bytes(_BLOCK, "big")
        return AES.encipher(self._enc, bytes((first,)) + block[1:])

    def _send(self, command: Command) -> bytes:
        """6.2.4: each MAC is chained from the whole one before."""
        sent = for_mac(command)
        self._chain = cmac(self._mac, self._chain + mac_input(sent))
        mac = self._chain[:MAC_LENGTH]
        return bytes(Command(sent.cla, sent.ins, sent.p1, sent.p2, sent.data + mac, command.le))
