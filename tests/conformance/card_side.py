"""The other side's cryptography: what a factory and a chip compute, on pycryptodome and the SM4
of the virtual card.

Shares no code with the centre, so that agreement means something.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from Crypto.Cipher import DES, DES3, PKCS1_OAEP
from Crypto.PublicKey import RSA

from domain.card.profile import Profile
from domain.provider import KeyCustody, KeyEntry, KeyStanding, KeyState
from station_agents.virtual.crypto import Sm4Key

AREA = "430100"


def _des3(key: bytes, data: bytes) -> bytes:
    return DES3.new(key, DES3.MODE_ECB).encrypt(data)


def _des3_back(key: bytes, data: bytes) -> bytes:
    return DES3.new(key, DES3.MODE_ECB).decrypt(data)


def _retail_mac(key: bytes, iv: bytes, data: bytes) -> bytes:
    """ISO 9797-1 algorithm 3, block by block as the standard draws it."""
    data += b"\x80"
    while len(data) % 8:
        data += b"\0"
    left, right = DES.new(key[:8], DES.MODE_ECB), DES.new(key[8:], DES.MODE_ECB)
    chain = iv
    for at in range(0, len(data), 8):
        block = bytes(x ^ y for x, y in zip(chain, data[at : at + 8], strict=True))
        chain = left.encrypt(block)
    return left.encrypt(right.decrypt(chain))


@dataclass(frozen=True)
class CardCipher:
    """What a chip of one suite computes."""

    block: int
    encipher: Callable[[bytes, bytes], bytes]
    decipher: Callable[[bytes, bytes], bytes]
    mac: Callable[[bytes, bytes, bytes], bytes]

    def check_value(self, key: bytes) -> bytes:
        return self.encipher(key, bytes(self.block))[:3]

    def answer(self, key: bytes, challenge: bytes) -> bytes:
        return self.encipher(key, challenge.ljust(self.block, b"\0"))

    def diversify(self, master: bytes, *factors: bytes) -> bytes:
        key = master
        for factor in factors:
            key = self.encipher(key, factor + bytes(255 - byte for byte in factor))
        return key

    def chip_key(self, master: bytes, identification_code: str) -> bytes:
        city = identification_code[:6].encode() + b"sx"
        return self.diversify(master, city, bytes.fromhex(identification_code[-16:]))

    def open_write_key(
        self, loading: bytes, challenge: bytes, apdu: bytes
    ) -> tuple[int, int, bytes]:
        """(version, key id, new key) as a chip takes them out of WRITE KEY; asserts its form."""
        assert apdu[:2] == b"\x84\xd4"
        body = 17 + -17 % self.block
        assert apdu[4] == len(apdu) - 5 == body + 4
        assert self.mac(loading, challenge, apdu[:-4])[:4] == apdu[-4:]
        plain = self.decipher(loading, apdu[5:-4])
        assert plain[0] == 16
        assert plain[17:] == b"\x80" + bytes(body - 18)
        return apdu[2], apdu[3], plain[1:17]


DES3_CARD = CardCipher(8, _des3, _des3_back, _retail_mac)
SM4_CARD = CardCipher(
    16,
    lambda key, data: Sm4Key(key).encrypt(data),
    lambda key, data: Sm4Key(key).decrypt(data),
    lambda key, iv, data: Sm4Key(key).mac(iv.ljust(16, b"\0"), data),
)
CARDS = {"3des": DES3_CARD, "sm4": SM4_CARD}


def identification_code(serial: int, area: str = AREA) -> str:
    return f"{area}D156000005{serial:016X}"


@dataclass(frozen=True)
class Factory:
    """A factory with temporary masters of its own for one batch."""

    batch_id: str
    profile: Profile
    masters: Mapping[str, bytes] = field(default_factory=dict)

    @classmethod
    def of(cls, batch_id: str, profile: Profile) -> Factory:
        return cls(batch_id, profile, {slot.usage: os.urandom(16) for slot in profile.keys})

    @property
    def card(self) -> CardCipher:
        return CARDS[self.profile.suite]

    def key(self, usage: str, code: str) -> bytes:
        return self.card.chip_key(self.masters[usage], code)

    def block(self, transport: bytes) -> dict[str, object]:
        seal = PKCS1_OAEP.new(RSA.import_key(transport))
        return {
            "format": 1,
            "factory_id": "F-1",
            "batch_id": self.batch_id,
            "suite": self.profile.suite,
            "keys": [
                {
                    "usage": usage,
                    "version": self.profile.temporary_version,
                    "wrapped": seal.encrypt(master).hex(),
                    "check_value": self.card.check_value(master).hex().upper(),
                }
                for usage, master in self.masters.items()
            ],
        }

    def sealed(self, transport: bytes) -> bytes:
        return json.dumps(self.block(transport)).encode()


BODIES = {"carton-2": 2, "begun-2": 2, "carton-20": 20, "carton-500": 500}


class Records:
    """What a provider under test must be made with: `BODIES`, one chip of `begun-2` that drew
    before, and chips that stand as a test puts them."""

    def __init__(self) -> None:
        self.standings: dict[str, KeyStanding] = {}
        self.asked: list[Sequence[str]] = []

    def carton_quota(self, carton_id: str) -> int:
        return BODIES.get(carton_id, 0)

    def carton_drawn(self, carton_id: str) -> list[str]:
        return [identification_code(77)] if carton_id == "begun-2" else []

    def carton_released(self, carton_id: str) -> int:
        return len(self.carton_drawn(carton_id))

    def carton_bank(self, carton_id: str) -> str:
        return ""

    def key_standings(self, identification_codes: Sequence[str]) -> dict[str, KeyStanding]:
        self.asked.append(identification_codes)
        return {c: self.standings[c] for c in identification_codes if c in self.standings}


def take_temporary_keys(custody: KeyCustody, block: bytes) -> list[KeyEntry]:
    """A factory's block, staged and accepted: what takes two people at a centre."""
    staged = custody.stage_temporary_keys(block)
    return custody.set_state([key.label for key in staged], KeyState.ACTIVE)
