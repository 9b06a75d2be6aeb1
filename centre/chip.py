"""What a chip is and what is wrong with it, by reading alone: `centre chip`.

No authentication, no PIN, nothing that writes or wears a counter; also no GET PROCESSING OPTIONS,
which counts a transaction. What is of a person leaves this module masked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Final

from domain.card.apdu import (
    SW,
    Command,
    LifeCycle,
    get_key_information,
    get_life_cycle,
    get_pin_tries,
    read_record,
    select_application,
)
from domain.card.ber import BerError, objects
from domain.card.profile import (
    KeyInformation,
    Profile,
    is_identification_code,
    load_profile,
    parse_key_information,
)
from domain.card.records import RecordError
from domain.codes import Code

Transmit = Callable[[bytes], tuple[bytes, int]]
"""One command; data and status word."""

PROTECTED: Final = "需认证后读取 protected"
CATEGORIES: Final = {"1": "社会保障卡 social security card", "2": "临时卡 temporary card"}
_BLOCKED_WORDS: Final = frozenset(
    {SW.SELECTED_FILE_INVALIDATED, SW.CARD_BLOCKED, SW.APPLICATION_BLOCKED}
)
_DIRECTORIES: Final = (b"2PAY.SYS.DDF01", b"1PAY.SYS.DDF01")
_PAYMENT: Final = tuple(bytes.fromhex(f"A00000033301010{n}") for n in (1, 2, 3, 6))
"""UnionPay debit, credit, quasi-credit, electronic cash: asked for where there is no directory."""
_AID, _LABEL, _NUMBER, _TRACK_2, _DIRECTORY_FILE = 0x4F, 0x50, 0x5A, 0x57, 0x88
_FILES, _RECORDS = range(1, 11), range(1, 6)


@dataclass(frozen=True)
class Wrong:
    """Something wrong: a code (`domain.codes`) and what it is about."""

    code: str
    note: str = ""


@dataclass(frozen=True)
class KeyFound:
    """A key as the chip tells of it; `state` is temporary, formal or missing."""

    usage: str
    key_id: int
    version: int | None
    state: str
    tries_left: int | None
    tries: int


@dataclass(frozen=True)
class Application:
    """A payment application; `card_number` masked, empty if it can't be read so."""

    aid: str
    label: str
    blocked: bool
    card_number: str


@dataclass
class Chip:
    """What was read. Empty: the chip does not say. `holder`: masked texts by field of the profile;
    `keys_are`: temporary, formal, unfinished or mixed; `life_cycle`: as `LifeCycle`, in lower case;
    `dfs`: application DFs that are there."""

    reader: str = ""
    atr: str = ""
    profile: str = ""
    identification_code: str = ""
    category: str = ""
    life_cycle: str = ""
    keys_are: str = ""
    key_version: int | None = None
    keys: list[KeyFound] = field(default_factory=list)
    pin_tries_left: int | None = None
    pin_tries: int | None = None
    dfs: list[str] = field(default_factory=list)
    holder: dict[str, str] = field(default_factory=dict)
    applications: list[Application] = field(default_factory=list)
    wrong: list[Wrong] = field(default_factory=list)


def known_profiles() -> list[Profile]:
    """All card profiles that ship with the centre."""
    folder = resources.files("domain.card").joinpath("profiles")
    names = sorted(f.name for f in folder.iterdir() if f.name.endswith(".toml"))
    return [load_profile(name.removesuffix(".toml")) for name in names]


def examine(transmit: Transmit, profiles: Sequence[Profile]) -> Chip:
    """What a chip that was just powered on says of itself. `transmit` raises what it raises; there
    is nothing that a chip could answer that raises here."""
    chip = Chip()
    _social(chip, transmit, profiles)
    chip.applications = list(_payment(chip, transmit))
    return chip


def _social(chip: Chip, transmit: Transmit, profiles: Sequence[Profile]) -> None:
    answers = set()
    for aid in dict.fromkeys(profile.aid for profile in profiles):
        _, word = _send(transmit, select_application(aid))
        answers.add(word)
        if word not in (SW.OK, SW.SELECTED_FILE_INVALIDATED):
            continue
        chip.life_cycle = _life_cycle(transmit)
        keys = _key_information(transmit)
        fitting = [p for p in profiles if p.aid == aid and _fits(p, keys or {})]
        if fitting:
            chip.profile = fitting[0].id
            _judge_keys(chip, fitting[0], keys or {})
            _judge_pin(chip, transmit, fitting[0])
            if word == SW.OK:
                _identify(chip, transmit, fitting[0])
                _look_for_dfs(chip, transmit, fitting[0])
        elif keys is None:
            chip.wrong.append(Wrong(Code.CHIP_UNREADABLE, "密钥信息 key information"))
        else:
            note = "" if not keys else "与已知卡型不符 not those of a known profile"
            chip.wrong.append(Wrong(Code.KEYS_MISSING, note))
        if word == SW.SELECTED_FILE_INVALIDATED:
            chip.wrong.append(Wrong(Code.APPLICATION_BLOCKED, "社保应用 social application"))
        return
    code = Code.APPLICATION_BLOCKED if answers & _BLOCKED_WORDS else Code.APPLICATION_MISSING
    whole = "，或整卡已锁 or the whole card" if SW.CARD_BLOCKED in answers else ""
    chip.wrong.append(Wrong(code, f"社保应用 social application{whole}"))


def _send(transmit: Transmit, command: Command) -> tuple[bytes, int]:
    return transmit(bytes(command))


def _key_information(transmit: Transmit) -> Mapping[int, KeyInformation] | None:
    data, word = _send(transmit, get_key_information())
    try:
        return parse_key_information(data) if word == SW.OK else None
    except (RecordError, IndexError):
        return None


def _fits(profile: Profile, keys: Mapping[int, KeyInformation]) -> bool:
    loading = keys.get(profile.key(profile.loading_usage).key_id)
    return loading is not None and loading.key_type == profile.key_type


def _one_byte(transmit: Transmit, command: Command) -> int | None:
    """The value of a data object of one byte: tag (2), 01, value; None if there is none."""
    data, word = _send(transmit, command)
    return data[3] if word == SW.OK and len(data) == 4 and data[2] == 1 else None


def _life_cycle(transmit: Transmit) -> str:
    value = _one_byte(transmit, get_life_cycle())
    return LifeCycle(value).name.lower() if value in {int(v) for v in LifeCycle} else ""


def _judge_pin(chip: Chip, transmit: Transmit, profile: Profile) -> None:
    chip.pin_tries_left, chip.pin_tries = _one_byte(transmit, get_pin_tries()), profile.pin.tries
    if chip.pin_tries_left == 0:
        chip.wrong.append(Wrong(Code.PIN_LOCKED))


def _look_for_dfs(chip: Chip, transmit: Transmit, profile: Profile) -> None:
    for df in profile.dfs.values():
        _, word = _send(transmit, select_application(df.aid))
        if word == SW.OK:
            chip.dfs.append(df.name)
        else:
            blocked = word in _BLOCKED_WORDS
            code = Code.APPLICATION_BLOCKED if blocked else Code.APPLICATION_MISSING
            chip.wrong.append(Wrong(code, df.name))


def _identify(chip: Chip, transmit: Transmit, profile: Profile) -> None:
    for name, item in profile.fields.items():
        data, word = _send(transmit, read_record(item.tag, item.file, item.length))
        if word in (SW.RECORD_NOT_FOUND, SW.FILE_NOT_FOUND):
            if name in ("identification_code", "card_category"):
                chip.wrong.append(Wrong(Code.FIELD_MISSING, name))
            continue
        if word == SW.SECURITY_STATUS_NOT_SATISFIED:
            chip.holder[name] = PROTECTED
            continue
        if word != SW.OK:
            chip.wrong.append(Wrong(Code.CHIP_UNREADABLE, f"{name}: {word:04X}"))
            continue
        try:
            text = item.decode(item.parse(data))
        except RecordError:
            code = Code.BAD_CODING if item.coding == "AN" else Code.BAD_FORMAT
            chip.wrong.append(Wrong(code, name))
            continue
        if name == "identification_code":
            chip.identification_code = text
            if not is_identification_code(text):
                chip.wrong.append(Wrong(Code.BAD_FORMAT, name))
        elif name == "card_category":
            chip.category = CATEGORIES.get(text, "")
            if not chip.category:
                chip.wrong.append(Wrong(Code.BAD_FORMAT, name))
        elif text:
            chip.holder[name] = masked(name, text)


def masked(name: str, text: str) -> str:
    """A field of a holder for a screen: of a name the first character, of a birth date the year, of
    any number the last four digits."""
    if name in ("sex", "nation"):
        return text
    if name == "name":
        return text[:1] + "*" * (len(text) - 1)
    if name == "birth_date":
        return text[:4] + "*" * (len(text) - 4)
    return "*" * (len(text) - 4) + text[-4:] if len(text) > 4 else "*" * len(text)


def _judge_keys(chip: Chip, profile: Profile, keys: Mapping[int, KeyInformation]) -> None:
    for slot in profile.keys:
        found = keys.get(slot.key_id)
        version = found.version if found else None
        state = (
            "missing" if version is None
            else "temporary" if version == profile.temporary_version
            else "formal"
        )  # fmt: skip
        left = found.tries_left if found else None
        chip.keys.append(KeyFound(slot.usage, slot.key_id, version, state, left, slot.tries))
        if left is not None and left <= profile.low_counter:
            code = Code.KEY_COUNTER_LOW if left else Code.KEY_BLOCKED
            chip.wrong.append(Wrong(code, f"{slot.usage}: {left}/{slot.tries}"))
    versions = {key.version for key in chip.keys if key.state == "formal"}
    states = {key.state for key in chip.keys}
    loading = next(key for key in chip.keys if key.usage == profile.loading_usage)
    if states == {"temporary"}:
        chip.keys_are = "temporary"
    elif states == {"formal"} and len(versions) == 1:
        chip.keys_are = "formal"
    elif states == {"temporary", "formal"} and len(versions) == 1 and loading.state == "temporary":
        chip.keys_are = "unfinished"
        chip.wrong.append(Wrong(Code.KEYS_UNFINISHED))
    else:
        chip.keys_are = "mixed"
        missing = [key.usage for key in chip.keys if key.state == "missing"]
        note = f"缺 missing: {', '.join(missing)}" if missing else ""
        chip.wrong.append(Wrong(Code.KEYS_MIXED, note))
    if len(versions) == 1:
        chip.key_version = versions.pop()


def _payment(chip: Chip, transmit: Transmit) -> Iterator[Application]:
    for aid in _payment_aids(transmit) or _PAYMENT:
        data, word = _open(transmit, aid)
        blocked = word in _BLOCKED_WORDS
        if word != SW.OK and not blocked:
            continue
        label = _first(data, _LABEL) or b""
        if blocked:
            chip.wrong.append(Wrong(Code.APPLICATION_BLOCKED, f"金融应用 payment {aid.hex()}"))
        number = "" if blocked else _card_number(transmit)
        yield Application(
            aid.hex().upper(), label.decode("ascii", "replace"), blocked,
            masked("number", number),
        )  # fmt: skip


def _payment_aids(transmit: Transmit) -> list[bytes]:
    """What the card's payment directory lists: in its FCI (PPSE), or in the records of the file
    that its FCI names (EMV book 1, 12.2)."""
    for name in _DIRECTORIES:
        data, word = _open(transmit, name)
        if word != SW.OK:
            continue
        listed = _objects(data)
        sfi = _first(data, _DIRECTORY_FILE)
        if sfi and sfi[0] in _FILES:
            listed += [o for record in _records(transmit, sfi[0]) for o in _objects(record)]
        aids = [value for tag, value in listed if tag == _AID and 5 <= len(value) <= 16]
        if aids:
            return list(dict.fromkeys(aids))
    return []


def _open(transmit: Transmit, aid: bytes) -> tuple[bytes, int]:
    """SELECT a payment application, with its FCI."""
    return _send(transmit, Command(0x00, 0xA4, 0x04, 0x00, aid, le=0))


def _records(transmit: Transmit, sfi: int) -> Iterator[bytes]:
    for number in _RECORDS:
        data, word = _send(transmit, Command(0x00, 0xB2, number, sfi << 3 | 0x04, le=0))
        if word != SW.OK:
            return
        yield data


def _card_number(transmit: Transmit) -> str:
    """The card number as a record has it; empty where it can't be read without a transaction."""
    for sfi in _FILES:
        for record in _records(transmit, sfi):
            value = _first(record, _NUMBER) or _first(record, _TRACK_2)
            if value:
                return value.hex().upper().split("D")[0].rstrip("F")
    return ""


def _first(data: bytes, wanted: int) -> bytes | None:
    return next((value for tag, value in _objects(data) if tag == wanted), None)


def _objects(data: bytes) -> list[tuple[int, bytes]]:
    """What can be read of them; a payment application's data are not ours to judge."""
    found = []
    try:
        for item in objects(data):
            found.append(item)  # keeps what came before the fault
    except (BerError, RecursionError):
        pass
    return found
