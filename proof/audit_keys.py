"""The keys and data on the plastic: formal, those of the province, each written once; and the data
of the order. With a cryptography of its own (pycryptodome), from the custodians' envelopes.

Keys of the profile `ssc-3des` (LD/T 32, two levels): key = E(K, F || ~F) by city, then by chip.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

from Crypto.Cipher import DES3

from proof.evidence import BrokenPromise, Row

USAGES = {
    0x01: "STK", 0x07: "EAK", 0x06: "IRK", 0x03: "PUK", 0x04: "RPK", 0x11: "UK_DF01",
    0x13: "UK_DF03", 0x00: "MK",
}  # fmt: skip
"""By key id on the chip."""
DATA = {"08": "identity_number", "0A": "sex", "0B": "nation", "0C": "birth_place",
        "0D": "birth_date"}  # fmt: skip
"""Fields of EF06 by tag; text is coded as its digits, or as them in BCD."""
_WORN = 0x06
_NAME_BYTES = 30


def masters_in(envelopes: Path) -> dict[str, bytes]:
    """The province's masters by usage: the XOR of the components in all envelopes."""
    found: dict[str, bytes] = {}
    for envelope in sorted(envelopes.glob("*.component")):
        for part in json.loads(envelope.read_text("ascii")):
            usage, half = part["label"].split(":")[1], bytes.fromhex(part["component"])
            other = found.get(usage, bytes(len(half)))
            found[usage] = bytes(a ^ b for a, b in zip(half, other, strict=True))
    return found


def audit_keys(cards: list[tuple[str, Row]], masters: dict[str, bytes]) -> None:
    """Each of these chips (with the order or body that it is) carries its own keys under the
    masters, written once, with every try left. A weak chip's worn key is not asked for."""
    by_city: dict[bytes, list[tuple[str, Row, bytes]]] = defaultdict(list)
    for name, card in cards:
        code = str(card["social"]["records"]["05"]["01"])
        by_city[code[:6].encode("ascii") + b"sx"].append((name, card, bytes.fromhex(code[16:])))
    for city, chips in by_city.items():
        for key_id, usage in USAGES.items():
            key = _derived(masters[usage], [city])[0]
            values = _derived(key, [serial for _, _, serial in chips])
            for (name, card, _), value in zip(chips, values, strict=True):
                _key(name, card, key_id, value)


def _derived(key: bytes, factors: list[bytes]) -> list[bytes]:
    blocks = b"".join(f + bytes(b ^ 0xFF for b in f) for f in factors)
    made = DES3.new(DES3.adjust_key_parity(key), DES3.MODE_ECB).encrypt(blocks)
    return [made[i : i + 16] for i in range(0, len(made), 16)]


def _key(name: str, card: Row, key_id: int, value: bytes) -> None:
    (key,) = (k for k in card["social"]["keys"] if k["id"] == key_id)
    if key.get("written", 0) != 1:
        raise BrokenPromise(f"key {key_id:02X} was written {key.get('written', 0)} times", name)
    if key["tries_left"] != key["tries"]:
        raise BrokenPromise(f"key {key_id:02X} has lost tries", name)
    worn = card.get("weak") and key_id == _WORN
    if not worn and _without_parity(bytes.fromhex(key["value"])) != _without_parity(value):
        raise BrokenPromise(f"key {key_id:02X} is not the province's", name)


def _without_parity(key: bytes) -> bytes:
    return bytes(b & 0xFE for b in key)


def audit_untouched(cards: list[tuple[str, Row]]) -> None:
    """No key of these chips was ever written."""
    for name, card in cards:
        if any(k.get("written", 0) for k in card["social"]["keys"]):
            raise BrokenPromise("a key was written that nobody released", name)


def audit_data(cards: list[tuple[str, Row]], records: dict[str, Row]) -> None:
    """Each of these chips (with its order) carries the data of the order's record."""
    for order_id, card in cards:
        record, chip = dict(records[order_id]), card["social"]["records"]
        record["name"] = _fitting(record["name"])
        on_chip = {
            "identification_code": chip["05"]["01"],
            "social_card_number": bytes.fromhex(chip["05"]["07"]).decode("ascii"),
            "name": bytes.fromhex(chip["06"]["09"]).rstrip(b"\0").decode("gb18030"),
            **{field: _text(chip["06"][tag], record[field]) for tag, field in DATA.items()},
        }
        for field, value in on_chip.items():
            if value != record[field]:
                raise BrokenPromise(f"the chip carries another {field}", order_id)


def _fitting(name: str) -> str:
    """As much of a long name as the chip has room for, in whole characters."""
    while len(name.encode("gb18030")) > _NAME_BYTES:
        name = name[:-1]
    return name


def _text(value: str, expected: str) -> str:
    """A field as digits: in BCD it is as long as in hex, in ASCII half as long."""
    return value if len(value) == len(expected) else bytes.fromhex(value).decode("ascii")
