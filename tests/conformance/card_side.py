"""The other side's cryptography: what a factory and a chip compute, on pycryptodome.

Shares no code with the centre, so that agreement means something.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from Crypto.Cipher import DES, DES3, PKCS1_OAEP
from Crypto.PublicKey import RSA

from domain.card.profile import Profile

AREA = "430100"


def des3(key: bytes, data: bytes) -> bytes:
    return DES3.new(key, DES3.MODE_ECB).encrypt(data)


def check_value(key: bytes) -> str:
    return des3(key, b"\0" * 8)[:3].hex().upper()


def diversify(master: bytes, *factors: bytes) -> bytes:
    key = master
    for factor in factors:
        key = des3(key, factor) + des3(key, bytes(255 - byte for byte in factor))
    return key


def chip_key(master: bytes, identification_code: str) -> bytes:
    city = identification_code[:6].encode() + b"sx"
    return diversify(master, city, bytes.fromhex(identification_code[-16:]))


def retail_mac(key: bytes, iv: bytes, data: bytes) -> bytes:
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


def open_write_key(loading: bytes, challenge: bytes, apdu: bytes) -> tuple[int, int, bytes]:
    """(version, key id, new key) as a chip takes them out of WRITE KEY; asserts its form."""
    assert apdu[:2] == b"\x84\xd4"
    assert apdu[4] == len(apdu) - 5 == 28
    assert retail_mac(loading, challenge, apdu[:-4])[:4] == apdu[-4:]
    plain = DES3.new(loading, DES3.MODE_ECB).decrypt(apdu[5:-4])
    assert plain[0] == 16
    assert plain[17:] == b"\x80" + bytes(6)
    return apdu[2], apdu[3], plain[1:17]


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

    def key(self, usage: str, code: str) -> bytes:
        return chip_key(self.masters[usage], code)

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
                    "check_value": check_value(master),
                }
                for usage, master in self.masters.items()
            ],
        }

    def sealed(self, transport: bytes) -> bytes:
        return json.dumps(self.block(transport)).encode()


BODIES = {"carton-2": 2, "begun-2": 2, "carton-20": 20, "carton-500": 500}


def quota(carton_id: str) -> int:
    """What a provider under test must be made with."""
    return BODIES.get(carton_id, 0)


def drawn(carton_id: str) -> list[str]:
    """What a provider under test must be made with: one chip of `begun-2` drew before."""
    return [identification_code(77)] if carton_id == "begun-2" else []
