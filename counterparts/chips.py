"""The factory's chips: temporary masters, diversified keys, files; and the sealed key block.

Cryptography of the factory's own, on pycryptodome and `sm4`; it shares nothing with the centre's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from Crypto.Cipher import DES3, PKCS1_OAEP
from Crypto.Hash import SHA1
from Crypto.PublicKey import RSA

from counterparts import sm4
from counterparts.bank_side import finished
from counterparts.orders import Order
from domain.card.profile import Profile

Masters = Mapping[str, bytes]
HOLDER_FILE, ISSUER_FILE = "06", "05"


@dataclass(frozen=True, repr=False)
class Chip:
    """A chip as it leaves the factory. `files`: record values by file and tag; `keys`: usage ->
    16 bytes, not yet there for a chip whose keys `diversify` still makes."""

    carton_id: str
    order_id: str
    identification_code: str
    face_number: str
    files: Mapping[str, Mapping[str, bytes]]
    keys: Mapping[str, bytes]
    version: int
    silent: bool = False
    weak: bool = False
    """Its memory does not hold (docs/files.md, "Tray")."""
    financial: Mapping[str, Any] | None = None
    """Its bank's side, as a row of the tray."""


def encipher(suite: str, key: bytes, blocks: bytes) -> bytes:
    """Whole blocks in ECB, under a key of the profile's suite."""
    if suite == "sm4":
        return sm4.encrypt(key, blocks)
    return DES3.new(key, DES3.MODE_ECB).encrypt(blocks)


def _next_level(suite: str, key: bytes, factors: bytes) -> bytes:
    """The keys that follow from `key` and each 8-byte factor F, one after another: F ‖ ~F
    enciphered, which is two blocks of 3DES or one of SM4."""
    blocks = b"".join(
        factors[i : i + 8] + bytes(b ^ 0xFF for b in factors[i : i + 8])
        for i in range(0, len(factors), 8)
    )
    return encipher(suite, key, blocks)


def make_masters(profile: Profile, random: Random) -> dict[str, bytes]:
    """A temporary master (two-key 3DES with odd parity, or SM4) for each usage of the profile."""
    masters = {slot.usage: random.randbytes(16) for slot in profile.keys}
    if profile.suite == "sm4":
        return masters
    return {usage: DES3.adjust_key_parity(key) for usage, key in masters.items()}


def check_value(profile: Profile, key: bytes) -> bytes:
    """The first 3 bytes of a block of 00 under `key`."""
    return encipher(profile.suite, key, bytes(profile.block))[:3]


def diversify(
    profile: Profile, masters: Masters, codes: Iterable[str]
) -> dict[str, dict[str, bytes]]:
    """Keys by usage for each identification code: level 1 the city, level 2 the chip's serial."""
    keys: dict[str, dict[str, bytes]] = defaultdict(dict)
    by_city: dict[bytes, list[str]] = defaultdict(list)
    for code in codes:
        by_city[profile.city_factor(code)].append(code)
    for city, of_city in by_city.items():
        factors = b"".join(profile.chip_factor(code) for code in of_city)
        for usage, master in masters.items():
            city_key = _next_level(profile.suite, master, city)
            derived = _next_level(profile.suite, city_key, factors)
            for n, code in enumerate(of_city):
                keys[code][usage] = derived[n * 16 : n * 16 + 16]
    return dict(keys)


def key_block(
    profile: Profile,
    masters: Masters,
    factory_id: str,
    batch_id: str,
    transport_public_key_pem: bytes,
    random: Random,
) -> dict[str, Any]:
    """The sealed block of temporary masters (docs/files.md). ValueError for a key that is not
    RSA of 2048 bits or more."""
    public = RSA.import_key(transport_public_key_pem)
    if public.size_in_bits() < 2048:
        raise ValueError("the transport key must have 2048 bits or more")
    # SHA-1 is what SoftHSM2 2.6.1 unwraps; random padding from the seed makes deliveries equal.
    oaep = PKCS1_OAEP.new(public, hashAlgo=SHA1, randfunc=random.randbytes)
    return {
        "format": 1,
        "factory_id": factory_id,
        "batch_id": batch_id,
        "suite": profile.suite,
        "keys": [
            {
                "usage": slot.usage,
                "version": profile.temporary_version,
                "wrapped": oaep.encrypt(masters[slot.usage]).hex().upper(),
                "check_value": check_value(profile, masters[slot.usage]).hex().upper(),
            }
            for slot in profile.keys
        ],
    }


def _files(profile: Profile, texts: Mapping[str, str]) -> dict[str, dict[str, bytes]]:
    files: dict[str, dict[str, bytes]] = {ISSUER_FILE: {}, HOLDER_FILE: {}}
    for name, text in texts.items():
        field = profile.fields[name]
        files[f"{field.file:02X}"][f"{field.tag:02X}"] = field.encode(field.fit(text))
    return files


def social_card(profile: Profile, order: Order) -> Chip:
    """The card of `order`, still without keys."""
    person = order.person
    texts = {
        "identification_code": order.identification_code,
        "card_category": "1",
        "social_card_number": order.social_card_number,
        "identity_number": person.identity_number,
        "name": person.name,
        "sex": person.sex,
        "nation": person.nation,
        "birth_place": person.birth_place,
        "birth_date": person.birth_date,
    }
    return Chip(
        order.carton_id,
        order.order_id,
        order.identification_code,
        order.social_card_number,
        _files(profile, texts),
        {},
        profile.temporary_version,
        financial=finished(order),
    )


def temporary_card(profile: Profile, carton_id: str, identification_code: str) -> Chip:
    """A temporary card without holder, still without keys."""
    texts = {"identification_code": identification_code, "card_category": "2"}
    files = _files(profile, texts)
    return Chip(carton_id, "", identification_code, "", files, {}, profile.temporary_version)


def with_temporary_keys(profile: Profile, masters: Masters, chips: list[Chip]) -> list[Chip]:
    """The same chips with their keys; a chip that has keys keeps them."""
    keys = diversify(profile, masters, [c.identification_code for c in chips if not c.keys])
    return [c if c.keys else replace(c, keys=keys[c.identification_code]) for c in chips]


def answer_to_reset(identification_code: str) -> bytes:
    """3B 6D 00 00, then 13 historical bytes that end with the chip's serial. T=0, so no check
    byte. The five bytes before the serial are a maker's own, and unverified."""
    return bytes.fromhex("3B6D000000814E4323" + identification_code[16:])


def tray_line(profile: Profile, card: str, chip: Chip) -> dict[str, Any]:
    """One card as a line of a tray file (docs/files.md)."""
    line: dict[str, Any] = {
        "card": card,
        "carton_id": chip.carton_id,
        "face_number": chip.face_number,
        "atr": answer_to_reset(chip.identification_code).hex().upper(),
        "silent": chip.silent,
        "social": {
            "records": {
                file: {tag: value.hex().upper() for tag, value in records.items()}
                for file, records in chip.files.items()
            },
            "keys": [
                {
                    "id": slot.key_id,
                    "version": chip.version,
                    "value": chip.keys[slot.usage].hex().upper(),
                    "tries": slot.tries,
                    "tries_left": slot.tries,
                }
                for slot in profile.keys
            ],
            "pin": [profile.pin.initial, profile.pin.tries, profile.pin.tries],
        },
    }
    if chip.financial is not None:
        line["financial"] = chip.financial
    if chip.weak:
        line["weak"] = True
    return line
