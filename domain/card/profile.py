"""A card profile: what differs from one make of chip to the next, read from a TOML file.

Keys, files, diversification factors and their order, and the bodies of commands are data
(`profiles/*.toml`), since public sources differ about them.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib import resources
from typing import Any

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


class FileKind(StrEnum):
    """RECORDS: records by tag; BINARY: a transparent file."""

    RECORDS = "records"
    BINARY = "binary"


FREE, AFTER_PIN = "free", "pin"
"""Access conditions beside the usages of keys."""


@dataclass(frozen=True)
class Df:
    """One application DF below the environment."""

    name: str
    aid: bytes
    fid: int


@dataclass(frozen=True)
class File:
    """One elementary file. `read` is FREE, AFTER_PIN or the usage of a key; `update` the usage of
    a key. A key opens by EXTERNAL AUTHENTICATE; with `mac` each update bears a MAC under it, too.
    `size` in bytes: of a transparent file, or of the longest record value."""

    number: int
    """Unique on the chip: the short identifier, with the DF's file identifier above it."""
    df: str
    """The application DF (AID in hex); empty: the environment."""
    kind: FileKind
    size: int
    read: str
    update: str
    mac: bool

    @property
    def sfi(self) -> int:
        return self.number & 0x1F


@dataclass(frozen=True)
class PinRule:
    """The PIN of the social application. `tries` wrong ones lock it; `initial` as digits."""

    initial: str
    tries: int
    unblock_usage: str
    reload_usage: str


@dataclass(frozen=True)
class KeyInformation:
    """What the card says about one of its keys: version, tries left before it blocks, the
    first 3 bytes of a block of 00 (AES: 01) under it, and its type (`Profile.key_type`)."""

    key_id: int
    version: int
    tries_left: int
    check_value: bytes
    key_type: int


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
    maintenance_usage: str
    temporary_version: int
    fields: Mapping[str, Field]
    city_suffix: bytes
    low_counter: int
    """EXTERNAL AUTHENTICATE is not tried with a key that has this many tries left, or fewer."""
    dfs: Mapping[str, Df]
    """Application DFs by AID in hex."""
    files: tuple[File, ...]
    pin: PinRule

    @property
    def block(self) -> int:
        """Bytes of a block of the suite: of a random number that the chip enciphers."""
        return 8 if self.suite == "3des" else 16

    @property
    def key_type(self) -> int:
        """How the key information names the suite: 80 DES (GlobalPlatform Card Specification 2.3,
        table 11-16), 90 SM4 (unverified)."""
        return 0x80 if self.suite == "3des" else 0x90

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
    """The key information template: E0 ‖ L ‖ items C0 08 key id, version, type, length, tries left,
    check value (3). Raises RecordError on anything else."""
    items = list(split_tlv(data))
    if len(items) != 1 or items[0][0] != 0xE0:
        raise RecordError("not a key information template")
    keys: dict[int, KeyInformation] = {}
    for tag, value in split_tlv(items[0][1]):
        if tag != 0xC0 or len(value) != 8:
            raise RecordError("not a key information item")
        keys[value[0]] = KeyInformation(value[0], value[1], value[4], value[5:], value[2])
    return keys


def parse_profile(t: Mapping[str, Any]) -> Profile:
    """A profile out of its TOML tables. Raises KeyError or ValueError with the place at fault."""
    fields = {
        f["name"]: Field(f["name"], f["file"], f["tag"], f["coding"], f["length"])
        for f in t["fields"]
    }
    keys = tuple(
        KeySlot(k["usage"], k["id"], k["tries"], Proof(k["proof"]), k.get("df", ""))
        for k in t["keys"]
    )
    dfs = {d["aid"]: Df(d["name"], bytes.fromhex(d["aid"]), d["fid"]) for d in t["dfs"]}
    pin = t["pin"]
    profile = Profile(
        id=t["id"],
        suite=t["suite"],
        aid=bytes.fromhex(t["aid"]),
        keys=keys,
        loading_usage=t["loading_usage"],
        internal_usage=t["internal_usage"],
        external_usage=t["external_usage"],
        maintenance_usage=t["maintenance_usage"],
        temporary_version=t["temporary_version"],
        fields=fields,
        city_suffix=t["city_suffix"].encode("ascii"),
        low_counter=t["low_counter"],
        dfs=dfs,
        files=tuple(file for row in t["files"] for file in _files(row, dfs)),
        pin=PinRule(pin["initial"], pin["tries"], pin["unblock_usage"], pin["reload_usage"]),
    )
    _check(profile)
    return profile


def _files(row: Mapping[str, Any], dfs: Mapping[str, Df]) -> Iterator[File]:
    """The files of one table: `sfis` share a DF and all conditions."""
    df = row.get("df", "")
    above = dfs[df].fid << 8 if df else 0
    for sfi in row["sfis"]:
        yield File(above | sfi, df, FileKind(row["kind"]), row["size"], row["read"], row["update"],
                   row["mac"])  # fmt: skip


def _check(profile: Profile) -> None:
    """What is named must be there, and be there once."""
    if profile.keys[-1].usage != profile.loading_usage:
        raise ValueError(f"profile {profile.id}: the loading key must be written last")
    for names in (
        [slot.key_id for slot in profile.keys],
        [slot.usage for slot in profile.keys],
        [file.number for file in profile.files],
    ):
        if len(set(names)) != len(names):
            raise ValueError(f"profile {profile.id}: a key or file stands twice")
    usages = [profile.internal_usage, profile.external_usage, profile.maintenance_usage,
              profile.pin.unblock_usage, profile.pin.reload_usage]  # fmt: skip
    usages += [file.update for file in profile.files]
    usages += [file.read for file in profile.files if file.read not in (FREE, AFTER_PIN)]
    for usage in usages:
        profile.key(usage)
    for slot in profile.keys:
        if slot.df and slot.df not in profile.dfs:
            raise ValueError(f"profile {profile.id}: key {slot.usage} is of no DF")


def profile_ids() -> list[str]:
    """The profiles that ship."""
    files = resources.files("domain.card").joinpath("profiles").iterdir()
    return sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml"))


def load_profile(profile_id: str) -> Profile:
    """The profile that ships under `profile_id`. Raises FileNotFoundError if there is none."""
    return parse_profile(_tables(profile_id))


def _tables(profile_id: str) -> dict[str, Any]:
    """A profile that is `like` another has all tables of that one which it does not bring."""
    file = resources.files("domain.card").joinpath("profiles", f"{profile_id}.toml")
    t = tomllib.loads(file.read_text(encoding="utf-8"))
    return {**_tables(t["like"]), **t} if "like" in t else t
