"""The three static keys of a chip out of its bank's master key (KMC) and the chip's key
diversification data (10 bytes of its answer to INITIALIZE UPDATE).

All are one ECB encipherment under the master, wherever that master lives.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from actors.hsm.secure_channel import CardKeys

KEY_DATA = 10

Encipher = Callable[[bytes], bytes]
"""ECB over whole blocks under the master."""


class Diversification(StrEnum):
    """EMV: EMV CPS 1.1, 4.1 (last six bytes of the key data); VISA2: first two bytes and those
    from the fifth to the eighth, as GlobalPlatformPro and GPShell do; both for a 3DES master.
    KDF3: NIST SP 800-108 in counter mode over AES-CMAC, as GlobalPlatformPro does."""

    EMV = "emv"
    VISA2 = "visa2"
    KDF3 = "kdf3"


MASTER_SUITES = {
    Diversification.EMV: "3des",
    Diversification.VISA2: "3des",
    Diversification.KDF3: "aes",
}
"""The suite of a master (`suites.Suite.name`)."""


def card_keys(
    kdf: Diversification, encipher: Encipher, key_length: int, key_data: bytes
) -> CardKeys:
    """The keys of the chip with `key_data`; `key_length` is that of the master in bytes. ValueError
    for key data of another length."""
    if len(key_data) != KEY_DATA:
        raise ValueError(f"key diversification data have {KEY_DATA} bytes")
    if kdf is Diversification.KDF3:
        raw, length = _kdf3(encipher, key_length, key_data), key_length
    else:
        chip = key_data[4:] if kdf is Diversification.EMV else key_data[:2] + key_data[4:8]
        blocks = (chip + bytes((half, key)) for key in (1, 2, 3) for half in (0xF0, 0x0F))
        raw, length = encipher(b"".join(blocks)), 16
    return CardKeys(raw[:length], raw[length : 2 * length], raw[2 * length : 3 * length])


def _kdf3(encipher: Encipher, key_length: int, key_data: bytes) -> bytes:
    """For each key CMAC over counter ‖ 00 00 00 ‖ key ‖ 00 ‖ key data, which is one whole block:
    E(block ⊕ K1), where K1 is E(00…) doubled in GF(2^128) (NIST SP 800-38B, 6.1)."""
    zero = int.from_bytes(encipher(bytes(16)), "big")
    subkey = (zero << 1) ^ (0x87 if zero >> 127 else 0)
    mask = (subkey & ((1 << 128) - 1)).to_bytes(16, "big")
    counters = range(1, -(-key_length // 16) + 1)
    masked = b"".join(
        bytes(a ^ b for a, b in zip(block, mask, strict=True))
        for key in (1, 2, 3)
        for block in (bytes((i, 0, 0, 0, key, 0)) + key_data for i in counters)
    )
    raw, each = encipher(masked), 16 * len(counters)
    return b"".join(raw[at : at + key_length] for at in range(0, 3 * each, each))
