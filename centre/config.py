"""The centre's configuration: one TOML file in its home, checked at start."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from domain.card.profile import profile_ids
from domain.custody import TRANSPORT_FILE
from domain.sampling import AQLS
from gateways.fonts import FontUnusable, ListFonts, check_font
from ledger.connection import LedgerUnusable, database, ledger_file

LEDGER = "sqlite:ledger.db"
"""Where the ledger of a new home lives unless it is said otherwise."""
LONGEST_IDLE_MINUTES = 24 * 60.0

TEMPLATE = """\
# Configuration of the card centre (省制卡中心). Paths are relative to this file.

[doors]
# Where card management, factories, stations and operators reach the centre over gRPC.
# Loopback only until certificates exist. Port 0: a free one is chosen and kept in run/doors.json.
listen = "127.0.0.1:0"

[machines]
# Address of this machine by which further ones reach its Ray: `centre up --join HOST:PORT` there.
# It needs a ledger on PostgreSQL, and beyond loopback TLS and a network of their own
# (docs/architecture.md, Several machines). Port 0: a free one, another at each start.
listen = "127.0.0.1:0"

[card_management]
# Where card management (卡管系统) takes the centre return. Empty: files only.
address = ""

[ledger]
# Where the ledger lives: a file of SQLite on one machine, or a database of PostgreSQL, whose
# password stands in the passfile of libpq (~/.pgpass), never here:
#   "postgresql://USER@HOST:5432/DATABASE", "postgresql:///DATABASE?host=/var/run/postgresql"
url = "sqlite:ledger.db"
# Signed heads of the ledger are kept outside the database too.
head_file = "heads.jsonl"
head_seconds = 60

[keys]
# PKCS#11 module, its configuration, and the token that holds the province's keys.
module = "/usr/lib/softhsm/libsofthsm2.so"
conf = "keys/softhsm2.conf"
token = "centre"
# For unattended start the PIN stands in this file, readable by its owner alone (0600).
pin_file = "keys/pin"
# Sessions with the token, a process each, that work side by side; one that fails is taken out and
# comes back by itself.
sessions = 2
# The make of chip, see domain/card/profiles.
profile = "ssc-3des"
# Where the masters of an SM4 profile live: "wrapped", sealed under a key of the token, which is not
# certified; or the path of the C library of a GM/T 0018 (SDF) device.
sm4_device = "wrapped"
# Index of the key-encrypting key of that device.
sdf_kek = 1
# Whether keys of chips may stand in the provider's memory for a call: "allowed" or "forbidden".
# `centre doctor` lists what stops when it is forbidden.
software_assisted = "allowed"

[people]
# A login session ends when it was not used for so many minutes.
idle_minutes = 15

[sampling]
# Acceptance quality limit (GB/T 2828.1, level II, normal inspection) by which the cards of one
# bank and kind in a delivery are sampled before they are packed. Empty: no sample is drawn.
aql = "0.65"

[retention]
# Sealed personal data of a batch are kept so many days after it was taken.
personal_data_days = 90
# A backup (`centre backup`) is to be destroyed after so many days, wherever it lies.
backup_days = 30

[limits]
# A factory return with more records is refused: split it.
max_records_per_file = 100_000
# A station that had the first key of a card released has so many minutes to finish it. Then the
# card is in doubt (IN_DOUBT), until its chip is read again.
lease_minutes = 10

[lists]
# Fonts of the printed sorting and packing lists: each character is drawn by the first font that
# has it. Of a collection (.ttc) the family stands behind a #. A centre puts its licensed fonts
# first; what is here comes with Debian's fonts-noto-cjk and fonts-hanazono.
fonts = [
    "/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc#Noto Sans CJK SC",
    "/usr/share/fonts/truetype/hanazono/HanaMinA.ttf",
    "/usr/share/fonts/truetype/hanazono/HanaMinB.ttf",
]
heading_fonts = [
    "/usr/share/fonts/opentype/noto/NotoSansCJK-Bold.ttc#Noto Sans CJK SC",
    "/usr/share/fonts/truetype/hanazono/HanaMinA.ttf",
    "/usr/share/fonts/truetype/hanazono/HanaMinB.ttf",
]

[log]
# "json" for machines, "people" for reading.
format = "json"
"""


DEFAULTS: dict[str, dict[str, Any]] = tomllib.loads(TEMPLATE)
"""A table or setting that an older file does not have is as in the file of a new home."""
MAX_SESSIONS = 16


class ConfigError(Exception):
    """The configuration can't be used; the message names the place and what to write there."""


@dataclass(frozen=True)
class Config:
    """What the centre needs to start. Paths are absolute."""

    home: Path
    listen: str
    machines_listen: str
    card_management: str
    ledger: str
    """Its URL (`ledger.connection`), with an absolute path if it is a file."""
    head_file: Path
    head_seconds: float
    module: Path
    conf: Path
    token: str
    pin_file: Path
    sessions: int
    profile: str
    sdf_library: Path | None
    """None: SM4 masters are sealed under a key of the token."""
    sdf_kek: int
    software_assisted: bool
    idle_minutes: float
    sampling_aql: str
    personal_data_days: int
    backup_days: int
    max_records_per_file: int
    lease_minutes: float
    list_fonts: ListFonts
    log_format: str

    @property
    def providers(self) -> tuple[str, ...]:
        """The names of the key providers, one for each session with the token."""
        return tuple(f"provider-{n}" for n in range(self.sessions))

    @property
    def head_public_key(self) -> Path:
        return self.home / "keys" / "head-public.pem"

    @property
    def owner_file(self) -> Path:
        """What only the owner of the home can read: it adds the first two supervisors."""
        return self.home / "keys" / "owner"

    @property
    def transport_public_key(self) -> Path:
        return self.home / "exchange" / TRANSPORT_FILE

    @property
    def inbox(self) -> Path:
        return self.home / "inbox"

    @property
    def run(self) -> Path:
        return self.home / "run"

    @property
    def logs(self) -> Path:
        return self.home / "log"

    @property
    def targets(self) -> Path:
        """Where each process says on which port its metrics are."""
        return self.home / "prometheus" / "targets"

    def with_card_management(self, address: str) -> Config:
        return replace(self, card_management=address)


class _Table:
    """One table of the file; every reading names the place if it fails, unknown names fail."""

    def __init__(self, whole: dict[str, Any], name: str) -> None:
        table = whole.pop(name, {})
        if not isinstance(table, dict):
            raise ConfigError(f"{name}: a table [{name}] is needed")
        self._name, self._left = name, {**DEFAULTS[name], **table}

    def take(self, key: str, kind: type) -> Any:
        value = self._left.pop(key)
        if kind is float and isinstance(value, int):
            value = float(value)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ConfigError(f"[{self._name}] {key}: a value of type {kind.__name__} is needed")
        return value

    def take_texts(self, key: str) -> list[str]:
        """A list of at least one text."""
        texts: list[Any] = self.take(key, list)
        if not texts or not all(isinstance(text, str) for text in texts):
            raise ConfigError(f"[{self._name}] {key}: a list of texts is needed")
        return texts

    def take_choice(self, key: str, no: str, yes: str) -> bool:
        """One of two words: whether it is `yes`."""
        word = self.take(key, str)
        if word not in (no, yes):
            raise ConfigError(f'[{self._name}] {key}: "{yes}" or "{no}"')
        return bool(word == yes)

    def end(self) -> None:
        if self._left:
            raise ConfigError(f"[{self._name}] {min(self._left)}: no such setting")


def load(home: Path) -> Config:
    """Read and check `home`/centre.toml. Raises ConfigError."""
    home = home.resolve()
    file = home / "centre.toml"
    try:
        whole = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{home} is not the home of a centre: `centre init --home DIR`") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise ConfigError(f"{file.name}: {e}") from None
    _name_by_url(whole.get("ledger"))
    t = {name: _Table(whole, name) for name in DEFAULTS}
    if whole:
        raise ConfigError(f"[{min(whole)}]: no such table")
    config = Config(
        home=home,
        listen=t["doors"].take("listen", str),
        machines_listen=t["machines"].take("listen", str),
        card_management=t["card_management"].take("address", str),
        ledger=_ledger(home, t["ledger"].take("url", str)),
        head_file=home / t["ledger"].take("head_file", str),
        head_seconds=t["ledger"].take("head_seconds", float),
        module=Path(t["keys"].take("module", str)),
        conf=home / t["keys"].take("conf", str),
        token=t["keys"].take("token", str),
        pin_file=home / t["keys"].take("pin_file", str),
        sessions=t["keys"].take("sessions", int),
        profile=t["keys"].take("profile", str),
        sdf_library=_sdf_library(home, t["keys"].take("sm4_device", str)),
        sdf_kek=t["keys"].take("sdf_kek", int),
        software_assisted=t["keys"].take_choice("software_assisted", "forbidden", "allowed"),
        idle_minutes=t["people"].take("idle_minutes", float),
        sampling_aql=t["sampling"].take("aql", str),
        personal_data_days=t["retention"].take("personal_data_days", int),
        backup_days=t["retention"].take("backup_days", int),
        max_records_per_file=t["limits"].take("max_records_per_file", int),
        lease_minutes=t["limits"].take("lease_minutes", float),
        list_fonts=ListFonts(
            tuple(t["lists"].take_texts("fonts")), tuple(t["lists"].take_texts("heading_fonts"))
        ),
        log_format=t["log"].take("format", str),
    )
    for table in t.values():
        table.end()
    _check(config)
    return config


def _name_by_url(ledger: Any) -> None:
    """Before there were two databases, `path` named the file."""
    if isinstance(ledger, dict) and isinstance(ledger.get("path"), str):
        if "url" in ledger:
            raise ConfigError("[ledger] path: no such setting beside url; remove it")
        ledger["url"] = f"sqlite:{ledger.pop('path')}"


def with_ledger(text: str, url: str) -> str:
    """The text of a centre.toml, with this ledger instead of the one that it names."""
    line = f"url = {json.dumps(url)}"
    named = re.search(r"(?m)^(?:url|path)\s*=.*$", text)
    if named:
        return text[: named.start()] + line + text[named.end() :]
    table = re.search(r"(?m)^\[ledger\].*$", text)
    if table:
        return f"{text[: table.end()]}\n{line}{text[table.end() :]}"
    return f"{text}\n[ledger]\n{line}\n"


def _ledger(home: Path, url: str) -> str:
    try:
        file = ledger_file(url)
        return url if file is None else database(home / file).url
    except LedgerUnusable as e:
        raise ConfigError(str(e)) from None


def _sdf_library(home: Path, device: str) -> Path | None:
    return None if device == "wrapped" else home / device


def is_loopback(host: str) -> bool:
    return host in ("127.0.0.1", "localhost")


def host_of(address: str) -> str:
    """The host of HOST:PORT; empty if it is no such thing."""
    host, _, port = address.rpartition(":")
    return host if port.isascii() and port.isdecimal() and int(port) <= 65535 else ""


def _check(config: Config) -> None:
    if not is_loopback(host_of(config.listen)):
        raise ConfigError('[doors] listen: a loopback address and port, such as "127.0.0.1:0"')
    if not host_of(config.machines_listen):
        raise ConfigError('[machines] listen: an address and port, such as "127.0.0.1:0"')
    if not config.module.exists():
        raise ConfigError(
            f"[keys] module: {config.module} does not exist (apt-get install softhsm2)"
        )
    if not 0 < config.sessions <= MAX_SESSIONS:
        raise ConfigError(f"[keys] sessions: 1 to {MAX_SESSIONS}")
    if config.sdf_library is not None and not config.sdf_library.exists():
        raise ConfigError(f'[keys] sm4_device: {config.sdf_library} does not exist; or "wrapped"')
    if config.sdf_kek < 1:
        raise ConfigError("[keys] sdf_kek: an index from 1 is needed")
    if config.head_seconds <= 0:
        raise ConfigError("[ledger] head_seconds: more than 0 is needed")
    if not 0 < config.idle_minutes <= LONGEST_IDLE_MINUTES:
        raise ConfigError(f"[people] idle_minutes: 大于 0，至多 {LONGEST_IDLE_MINUTES:.0f}"
                          f" more than 0, at most {LONGEST_IDLE_MINUTES:.0f}")  # fmt: skip
    if config.profile not in profile_ids():
        raise ConfigError(f"[keys] profile: 应为 one of {', '.join(profile_ids())}")
    if config.sampling_aql and config.sampling_aql not in AQLS:
        raise ConfigError(f"[sampling] aql: one of {', '.join(AQLS)}, or empty")
    if config.personal_data_days <= 0:
        raise ConfigError("[retention] personal_data_days: more than 0 is needed")
    if config.backup_days <= 0:
        raise ConfigError("[retention] backup_days: more than 0 is needed")
    if config.max_records_per_file <= 0:
        raise ConfigError("[limits] max_records_per_file: more than 0 is needed")
    if config.lease_minutes <= 0:
        raise ConfigError("[limits] lease_minutes: more than 0 is needed")
    for font in {*config.list_fonts.text, *config.list_fonts.heading}:
        try:
            check_font(font)
        except FontUnusable as e:
            mend = "apt-get install fonts-noto-cjk fonts-hanazono, or name other fonts"
            raise ConfigError(f"[lists] fonts: {e} ({mend})") from None
    if config.log_format not in ("json", "people"):
        raise ConfigError('[log] format: "json" or "people"')
