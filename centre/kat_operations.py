"""The operations of a known-answer file, each through the code that production runs: 3DES and AES
with real throw-away keys in the token where production's keys live there, the rest through the
provider's own functions.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from secrets import token_urlsafe
from typing import Any

import pkcs11

from actors.hsm import card_keys, cryptograms
from actors.hsm.global_platform import check_values, open_channel, put_key
from actors.hsm.pkcs11_masters import derive_in_token
from actors.hsm.secure_channel import CardKeys, ChannelError, SecureChannel
from actors.hsm.self_test import throw_away
from actors.hsm.suites import CHECK_VALUE, SM4, SUITES, Suite, factor_block, sm3
from actors.hsm.token import (
    KeyToken,
    create_token,
    token_config,
    write_pin_file,
    write_softhsm_conf,
)
from actors.hsm.token_ciphers import KEY_TYPES, encipher, encipher_cbc
from centre import wiring
from centre.config import ConfigError, load
from domain.provider import ProviderError

Value = bytes | list[bytes] | str


@dataclass(frozen=True)
class Given:
    """The `in` of a case. What is missing or has another form is a ValueError that names it."""

    fields: Mapping[str, Any]

    def has(self, name: str) -> bool:
        return name in self.fields

    def octets(self, name: str, *lengths: int) -> bytes:
        """Bytes; of one of `lengths`, if any are named."""
        value = as_bytes(name, self._field(name))
        if lengths and len(value) not in lengths:
            raise ValueError(f"{name} has {' or '.join(map(str, lengths))} bytes")
        return value

    def list(self, name: str) -> list[bytes]:
        values = self._field(name)
        if not isinstance(values, list):
            raise ValueError(f"{name} is a list")
        return [as_bytes(f"{name}[{at}]", value) for at, value in enumerate(values)]

    def number(self, name: str) -> int:
        """A number of one byte, as a JSON number or as two hex digits."""
        value = self._field(name)
        if isinstance(value, str):
            value = int.from_bytes(as_bytes(name, value.zfill(2)), "big")
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 0xFF:
            raise ValueError(f"{name} is a number from 0 to 255, or two hex digits")
        return value

    def one_of(self, name: str, *choices: str) -> str:
        value = self._field(name)
        if value not in choices:
            raise ValueError(f"{name} is {' or '.join(choices)}")
        return str(value)

    def suite(self, *names: str) -> Suite:
        return SUITES[self.one_of("suite", *names)]

    def _field(self, name: str) -> Any:
        if name not in self.fields:
            raise ValueError(f"{name} is missing")
        return self.fields[name]


def as_bytes(name: str, value: object) -> bytes:
    """Hex in either case. ValueError for anything else."""
    if isinstance(value, str) and value.isascii() and value.isalnum() | (value == ""):
        with suppress(ValueError):
            return bytes.fromhex(value)
    raise ValueError(f"{name} is not hex")


class Bench:
    """Where throw-away keys live: a token that is opened when first needed."""

    def __init__(self, place: Path, home: Path | None, *, only: bool) -> None:
        """`place`: an empty directory for a token of its own, if there is no home, or (unless it
        is the `only` one that may serve) its token does not open."""
        self._place = place
        self._home = home
        self._only = only
        self._token: KeyToken | None = None
        self.token = ""
        """`home` or `temporary`; empty if none was needed."""

    @contextmanager
    def key(self, suite: Suite, value: bytes) -> Iterator[Any]:
        """A key of the session that is gone afterwards. ValueError for a length that the suite
        has not."""
        if len(value) not in suite.key_lengths:
            lengths = " or ".join(map(str, suite.key_lengths))
            raise ValueError(f"a {suite.name} key has {lengths} bytes")
        if self._token is None:
            self._token = self._open()
        key = throw_away(self._token.session, KEY_TYPES[suite.name], value)
        try:
            yield key
        finally:
            key.destroy()

    def close(self) -> None:
        if self._token is not None:
            self._token.close()

    def _open(self) -> KeyToken:
        if self._home is not None:
            try:
                config = load(self._home)
                write_softhsm_conf(config.conf.parent)
                token = KeyToken(wiring.token_config(config))
                _ = token.session
            except (ConfigError, ProviderError, OSError):
                if self._only:
                    raise
            else:
                self.token = "home"
                return token
        pin = token_urlsafe(18)
        create_token(self._place / "token", pin, token_urlsafe(18))
        write_pin_file(self._place / "pin", pin)
        self.token = "temporary"
        return KeyToken(token_config(self._place / "token", self._place / "pin"))


@contextmanager
def bench(home: Path | None, *, only: bool = False) -> Iterator[Bench]:
    """A bench that leaves nothing behind. Raises ConfigError or ProviderError, when a key is first
    needed, if `home` is the `only` one and does not open."""
    with tempfile.TemporaryDirectory(prefix="kat-") as place:
        made = Bench(Path(place), home, only=only)
        try:
            yield made
        finally:
            made.close()


def cipher(given: Given, place: Bench) -> dict[str, Value]:
    suite = given.suite("3des", "aes", "sm4")
    mode = given.one_of("mode", "ecb", "cbc")
    key, data = given.octets("key"), given.octets("data")
    iv = given.octets("iv", suite.block) if mode == "cbc" else b""
    if not data or len(data) % suite.block:
        raise ValueError(f"data are whole blocks of {suite.block} bytes")
    if suite.name not in KEY_TYPES:
        enciphered = suite.encipher_cbc(key, iv, data) if iv else suite.encipher(key, data)
    else:
        with place.key(suite, key) as held:
            enciphered = encipher_cbc(held, iv, data) if iv else encipher(held, data)
    return {"data": enciphered}


def digest(given: Given, _place: Bench) -> dict[str, Value]:
    return {"digest": sm3(given.octets("data"))}


def check_value(given: Given, place: Bench) -> dict[str, Value]:
    suite = given.suite("3des", "aes", "sm4")
    key = given.octets("key")
    if suite.name not in KEY_TYPES:
        return {"kcv": suite.check_value(key)}
    with place.key(suite, key) as held:
        return {"kcv": encipher(held, suite.check_block)[:CHECK_VALUE]}


def diversify(given: Given, place: Bench) -> dict[str, Value]:
    suite = given.suite("3des", "sm4")
    key, factors = given.octets("master", 16), given.list("factors")
    if not factors or any(len(factor) != 8 for factor in factors):
        raise ValueError("factors are one or more of 8 bytes")
    if suite is SM4:
        for factor in factors:
            key = suite.encipherer(key)(factor_block(factor))
    while suite is not SM4 and factors:
        # Production has two levels, of which the first stays in the token.
        with place.key(suite, key) as master:
            key = _two_levels(master, factors[:2])
        factors = factors[2:]
    return {"key": key, "kcv": suite.check_value(key)}


def _two_levels(master: Any, factors: list[bytes]) -> bytes:
    if len(factors) == 1:
        return encipher(master, factor_block(factors[0]))
    city = derive_in_token(master, factors[0])
    try:
        return encipher(city, factor_block(factors[1]))
    finally:
        city.destroy()


def mac(given: Given, _place: Bench) -> dict[str, Value]:
    suite = given.suite("3des", "sm4")
    length = given.number("length")
    if not 0 < length <= suite.block:
        raise ValueError(f"length is 1 to {suite.block}")
    iv = given.octets("iv", 8)
    return {"mac": suite.mac(given.octets("key", 16), iv, given.octets("data"))[:length]}


def key_body(given: Given, _place: Bench) -> dict[str, Value]:
    suite = given.suite("3des", "sm4")
    new_key = given.octets("new_key", 16)
    return {"data": cryptograms.key_body(suite.ready(given.octets("key", 16)), new_key)}


def external_authenticate(given: Given, _place: Bench) -> dict[str, Value]:
    suite = given.suite("3des", "sm4")
    key, challenge = given.octets("key", 16), given.octets("challenge", 8)
    return {"data": cryptograms.answer_challenge(suite.ready(key), challenge)}


def keys_of_card(given: Given, place: Bench) -> dict[str, Value]:
    kdf = card_keys.Diversification(given.one_of("kdf", *card_keys.Diversification))
    suite, master = SUITES[card_keys.MASTER_SUITES[kdf]], given.octets("master")
    key_data = given.octets("key_data", card_keys.KEY_DATA)
    with place.key(suite, master) as kmc:
        keys = card_keys.card_keys(kdf, partial(encipher, kmc), len(master), key_data)
    parts = {"enc": keys.enc, "mac": keys.mac, "dek": keys.dek}
    return {**parts, **{f"{name}_kcv": suite.check_value(key) for name, key in parts.items()}}


def secure_channel(given: Given, _place: Bench) -> dict[str, Value]:
    commands = given.list("commands")
    responses = given.list("responses") if given.has("responses") else []
    if len(responses) > len(commands):
        raise ValueError("responses are at most as many as commands")
    channel = _channel(given)
    wrapped: list[bytes] = []
    plain: list[bytes] = []
    for at, command in enumerate(commands):
        wrapped.append(channel.wrap(command))
        if at < len(responses):
            plain.append(channel.unwrap(responses[at]))
    return {
        "external_authenticate": channel.external_authenticate,
        "wrapped": wrapped,
        "responses": plain,
    }


def put_keys(given: Given, _place: Bench) -> dict[str, Value]:
    replace_version, new_version = given.number("replace_version"), given.number("new_version")
    new = given.list("new_keys")
    if len(new) != 3:
        raise ValueError("new_keys are three: enc, mac, dek")
    channel, keys = _channel(given), CardKeys(*new)
    apdu = channel.wrap(put_key(channel, replace_version, new_version, keys))
    return {"wrapped": apdu, "kcvs": check_values(channel, keys)}


def _channel(given: Given) -> SecureChannel:
    protocol = given.number("protocol")
    keys = CardKeys(given.octets("enc"), given.octets("mac"), given.octets("dek"))
    response = given.octets("initialize_update_response")
    if response[11:12] != bytes((protocol,)):
        raise ValueError("initialize_update_response is of another protocol")
    level = given.number("security_level")
    return open_channel(keys, given.octets("host_challenge", 8), response, level)


Operation = Callable[[Given, Bench], dict[str, Value]]

OPERATIONS: dict[str, Operation] = {
    "cipher": cipher,
    "sm3": digest,
    "check_value": check_value,
    "diversify": diversify,
    "mac": mac,
    "key_body": key_body,
    "external_authenticate": external_authenticate,
    "card_keys": keys_of_card,
    "secure_channel": secure_channel,
    "put_key": put_keys,
}


def perform(op: str, given: Given, place: Bench) -> dict[str, Value]:
    """The answers of an operation by name. An answer that a chip did not make is the answer
    `error`, the code in small letters. Raises ValueError for what cannot be done."""
    try:
        return OPERATIONS[op](given, place)
    except ChannelError as e:
        return {"error": e.code.lower()}
    except pkcs11.PKCS11Error as e:
        raise ValueError(f"the token refused: {type(e).__name__}") from e
