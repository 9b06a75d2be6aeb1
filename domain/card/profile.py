"""A card profile: what differs from one make of chip to the next, read from a TOML file.

Keys, files, diversification factors and their order, and the bodies of commands are data
(`profiles/*.toml`), since public sources differ about them.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib import resources

from domain.card.records import Field, RecordError, split_tlv


class Proof(StrEnum):
    """How a written key is proven. CHECK_VALUE: the key information holds its check value;
    INTERNAL: INTERNAL AUTHENTICATE; EXTERNAL: the chip accepts EXTERNAL AUTHENTICATE with it."""

    CHECK_VALUE = "check_value"
    INTERNAL = "internal"
    EXTERNAL = "external"


@dataclass(frozen=True)
class KeySlot:
    """One key of the application. `usage` names it (MK, STK, EAK, IRK, PUK, RPK, UK_DF01 …),
    `key_id` is its P2 on the card, `tries` its error counter when fresh."""

    usage: str
    key_id: int
    tries: int
    proof: Proof
    """How the chip proves that it holds the key that was written."""
    df: str = ""
    """The application DF to which it belongs (AID in hex); empty: the environment itself."""


@dataclass(frozen=True)
class KeyInformation:
    """What the card says about one of its keys: version, and tries left before it blocks."""

    key_id: int
    version: int
    tries_left: int
    check_value: bytes


@dataclass(frozen=True)
class Profile:
    """One make of chip. `keys` stand in the order in which they are written: the loading key
    (`loading_usage`) last, so that a card whose loading key is formal is formal altogether."""

    id: str
    suite: str
    aid: bytes
    keys: tuple[KeySlot, ...]
    loading_usage: str
    internal_usage: str
    external_usage: str
    temporary_version: int
    formal_version: int
    fields: Mapping[str, Field]
    city_suffix: bytes
    low_counter: int
    """EXTERNAL AUTHENTICATE is not tried with a key that has this many tries left, or fewer."""

    @property
    def block(self) -> int:
        """Bytes of a block of the suite: of a random number that the chip enciphers."""
        return 8 if self.suite == "3des" else 16

    def key(self, usage: str) -> KeySlot:
        """The key of `usage`; KeyError if the profile has none."""
        for slot in self.keys:
            if slot.usage == usage:
                return slot
        raise KeyError(f"profile {self.id} has no key {usage}")

    def city_factor(self, identification_code: str) -> bytes:
        """Level 1 of diversification: area code (6 ASCII digits) and `sx`."""
        return identification_code[:6].encode("ascii") + self.city_suffix

    def chip_factor(self, identification_code: str) -> bytes:
        """Level 2: the chip's serial, the last 8 bytes of the identification code."""
        return bytes.fromhex(identification_code[16:32])


_IDENTIFICATION_CODE = re.compile("[0-9]{6}D156000005[0-9A-F]{16}")


def is_identification_code(text: str) -> bool:
    """Area code (6 digits) ‖ D156000005 ‖ 8 bytes of chip serial, as 32 upper-case hex digits."""
    return _IDENTIFICATION_CODE.fullmatch(text) is not None


def parse_key_information(data: bytes) -> dict[int, KeyInformation]:
    """The key information template: E0 ‖ L ‖ items C0 05 key id, version, type, length, tries left.
    Raises RecordError on anything else."""
    items = list(split_tlv(data))
    if len(items) != 1 or items[0][0] != 0xE0:
        raise RecordError("not a key information template")
    keys: dict[int, KeyInformation] = {}
    for tag, value in split_tlv(items[0][1]):
        if tag != 0xC0 or len(value) != 8:
            raise RecordError("not a key information item")
        keys[value[0]] = KeyInformation(value[0], value[1], value[4], value[5:])
    return keys


def parse_profile(text: str) -> Profile:
    """A profile out of its TOML text. Raises KeyError or ValueError with the place at fault."""
    t = tomllib.loads(text)
    fields = {
        f["name"]: Field(f["name"], f["file"], f["tag"], f["coding"], f["length"])
        for f in t["fields"]
    }
    keys = tuple(
        KeySlot(k["usage"], k["id"], k["tries"], Proof(k["proof"]), k.get("df", ""))
        for k in t["keys"]
    )
    if keys[-1].usage != t["loading_usage"]:
        raise ValueError(f"profile {t['id']}: the loading key must be written last")
    return Profile(
        id=t["id"],
        suite=t["suite"],
        aid=bytes.fromhex(t["aid"]),
        keys=keys,
        loading_usage=t["loading_usage"],
        internal_usage=t["internal_usage"],
        external_usage=t["external_usage"],
        temporary_version=t["temporary_version"],
        formal_version=t["formal_version"],
        fields=fields,
        city_suffix=t["city_suffix"].encode("ascii"),
        low_counter=t["low_counter"],
    )


def load_profile(profile_id: str) -> Profile:
    """The profile that ships under `profile_id`. Raises FileNotFoundError if there is none."""
    file = resources.files("domain.card").joinpath("profiles", f"{profile_id}.toml")
    return parse_profile(file.read_text(encoding="utf-8"))
