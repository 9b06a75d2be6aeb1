"""Secure channels with the banks' applications (`domain.provider.OpenChannel`, `ReadChannel`).

A chip's keys are made from its bank's KMC by the token, in one ECB call; they and the channel live
in this process for one request (*software-assisted*: PKCS#11 has neither protocol).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

from pkcs11 import Attribute, KeyType

from actors.hsm import labels
from actors.hsm.card_keys import MASTER_SUITES, Diversification, card_keys
from actors.hsm.global_platform import check_put_key, open_channel, put_key
from actors.hsm.masters import MasterState
from actors.hsm.secure_channel import (
    CardKeys,
    ChannelError,
    SecureChannel,
    parse_opening,
    split_response,
)
from actors.hsm.token import KeyToken
from actors.hsm.token_ciphers import KEY_TYPES, encipher
from domain.card.profile import is_identification_code
from domain.codes import Code
from domain.provider import Answer, Channel, OpenChannel, ReadChannel, ReplaceCardKeys

_PROTOCOLS = {2: KeyType.DES2, 3: KeyType.AES}


class _Refused(Exception):
    def __init__(self, code: Code) -> None:
        super().__init__(code)
        self.code = code


class _Kmc(NamedTuple):
    """A bank's master as a chunk found it in the token."""

    key: Any
    state: str
    length: int


class BankChannels:
    """Answers requests for channels, without memory of those before."""

    def __init__(
        self,
        token: KeyToken,
        bank: Callable[[str], str],
        admit: Callable[[str, str], bool],
    ) -> None:
        """`bank(carton_id)`: whose cards a carton holds, "" if nobody knows it. `admit(carton_id,
        identification_code)`: whether a chip may draw keys (`CartonQuota.admit`)."""
        self._token = token
        self._bank = bank
        self._admit = admit
        self._kmcs: dict[str, _Kmc | None] = {}

    def answers(self, requests: Sequence[OpenChannel | ReadChannel]) -> list[Answer]:
        """One answer for each request of a chunk. Refused by a code, alone: a channel that fails
        disturbs no other. Masters are looked for once a chunk, since their states may change."""
        self._kmcs.clear()
        return [self._answer(request) for request in requests]

    def _answer(self, request: OpenChannel | ReadChannel) -> Answer:
        try:
            if isinstance(request, OpenChannel):
                return Answer(apdus=tuple(self._sent(request.channel)))
            return Answer(apdus=tuple(self._read(request)))
        except (_Refused, ChannelError) as e:
            return Answer(refused=e.code)
        except ValueError:
            # Bytes that are no command, no answer, no version, no level.
            return Answer(refused=Code.BAD_FORMAT)

    def _sent(self, channel: Channel) -> Iterator[bytes]:
        secure, bank = self._open(channel)
        yield secure.external_authenticate
        for command in channel.commands:
            if isinstance(command, ReplaceCardKeys):
                command, _ = self._put_key(secure, bank, channel, command)
            yield secure.wrap(command)

    def _read(self, request: ReadChannel) -> Iterator[bytes]:
        """The channel is sent again, in memory: each MAC is chained from those before it."""
        secure, bank = self._open(request.channel)
        if len(request.responses) > len(request.channel.commands):
            raise ValueError("more answers than commands")
        for command, response in zip(request.channel.commands, request.responses, strict=False):
            if isinstance(command, ReplaceCardKeys):
                new_version = command.new_version
                apdu, keys = self._put_key(secure, bank, request.channel, command)
                secure.wrap(apdu)
                plain = secure.unwrap(response)
                if split_response(plain)[1] == b"\x90\x00":
                    check_put_key(secure, new_version, keys, plain)
            else:
                secure.wrap(command)
                plain = secure.unwrap(response)
            yield plain

    def _open(self, channel: Channel) -> tuple[SecureChannel, str]:
        chip = channel.chip
        if not is_identification_code(chip.identification_code):
            raise _Refused(Code.BAD_FORMAT)
        bank = self._bank(chip.carton_id)
        if not bank:
            raise _Refused(Code.CARTON_UNKNOWN)
        keys = self._card_keys(bank, channel, channel.kmc_version)
        opened = open_channel(
            keys, channel.host_challenge, channel.initialize_update, channel.level
        )
        if not self._admit(chip.carton_id, chip.identification_code):
            raise _Refused(Code.KEY_QUOTA_EXCEEDED)
        return opened, bank

    def _put_key(
        self, secure: SecureChannel, bank: str, channel: Channel, order: ReplaceCardKeys
    ) -> tuple[bytes, CardKeys]:
        keys = self._card_keys(bank, channel, order.kmc_version, new=True)
        return put_key(secure, order.replace_version, order.new_version, keys), keys

    def _card_keys(
        self, bank: str, channel: Channel, version: int, *, new: bool = False
    ) -> CardKeys:
        """The chip's keys out of its bank's KMC. A staged KMC serves nothing, a retired one only
        chips that carry its keys already (`new`: they do not)."""
        kdf = Diversification(channel.diversification)
        opening = parse_opening(channel.initialize_update)
        kmc = self._kmc(labels.kmc(bank, version))
        serving = (MasterState.ACTIVE,) if new else (MasterState.ACTIVE, MasterState.RETIRED)
        if kmc is None or kmc.state not in serving:
            raise _Refused(Code.KEY_UNKNOWN)
        if not kmc.key.key_type == KEY_TYPES[MASTER_SUITES[kdf]] == _PROTOCOLS[opening.protocol]:
            raise _Refused(Code.BAD_FORMAT)
        return card_keys(kdf, partial(encipher, kmc.key), kmc.length, opening.key_data)

    def _kmc(self, label: str) -> _Kmc | None:
        if label not in self._kmcs:
            key = self._token.find(label)
            if key is not None:
                state = key[Attribute.ID].decode("ascii", "replace")
                # The length of a DES2 key is fixed, and the module does not tell it.
                length = 16 if key.key_type is KeyType.DES2 else key[Attribute.VALUE_LEN]
                key = _Kmc(key, state, length)
            self._kmcs[label] = key
        return self._kmcs[label]
