"""Diversification in two levels: master → city inside the token, city → chips in one call.

Per level, key = E(K, F) ‖ E(K, ~F) with two-key 3DES in ECB. Level 1: F = area code ‖ suffix of
the profile; level 2: F = the 8 bytes of the chip's serial.
"""

from __future__ import annotations

import ctypes
import struct
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import pkcs11
from pkcs11 import Attribute, KeyType, Mechanism

from actors.hsm.suites import factor_block
from actors.hsm.token import KeyToken

KEY_LENGTH = 16

_CITY_KEYS = 512
"""City keys held as session objects; 6 usages of about 40 batches and cities at a time."""


def derive_in_token(master: Any, factor: bytes) -> Any:
    """The next level's key as a session object that cannot be read out.

    CKM_DES3_ECB_ENCRYPT_DATA (PKCS#11 2.40, 2.13.4): the parameter is pointer ‖ length.
    """
    block = factor_block(factor)
    buffer = ctypes.create_string_buffer(block, len(block))
    return master.derive_key(
        KeyType.DES2,
        8 * KEY_LENGTH,
        mechanism=Mechanism.DES3_ECB_ENCRYPT_DATA,
        mechanism_param=struct.pack("<QQ", ctypes.addressof(buffer), len(block)),
        template={
            # The length of a DES2 key is fixed, and the module refuses to be told.
            Attribute.VALUE_LEN: pkcs11.constants.DEFAULT,
            Attribute.SENSITIVE: True,
            Attribute.EXTRACTABLE: False,
            Attribute.ENCRYPT: True,
        },
    )


class CityKeys:
    """Level 1, with the keys used last kept in the session (not in this process)."""

    def __init__(self, token: KeyToken, capacity: int = _CITY_KEYS) -> None:
        self._token = token
        self._capacity = capacity
        self._masters: dict[str, Any] = {}
        self._cities: OrderedDict[tuple[str, bytes], Any] = OrderedDict()

    def clear(self) -> None:
        """Forget all handles; for a session that is gone."""
        self._masters.clear()
        self._cities.clear()

    def has_master(self, label: str) -> bool:
        """Whether the token holds the master `label`."""
        if label not in self._masters:
            master = self._token.find(label)
            if master is None:
                return False
            self._masters[label] = master
        return True

    def chip_keys(self, label: str, city: bytes, chips: Sequence[bytes]) -> list[bytes]:
        """The keys (16 bytes) of chips with these factors, all of one city, in one call of the
        token. KeyError if `has_master` was not asked or said no."""
        key = self._city(label, city)
        blocks = b"".join(factor_block(chip) for chip in chips)
        raw: bytes = key.encrypt(blocks, mechanism=Mechanism.DES3_ECB)
        return [raw[at : at + KEY_LENGTH] for at in range(0, len(raw), KEY_LENGTH)]

    def _city(self, label: str, city: bytes) -> Any:
        at = (label, city)
        key = self._cities.get(at)
        if key is None:
            if len(self._cities) >= self._capacity:
                self._cities.popitem(last=False)[1].destroy()
            key = self._cities[at] = derive_in_token(self._masters[label], city)
        else:
            self._cities.move_to_end(at)
        return key
