"""The home of a centre: its directories, its token and keys, its empty ledger (`centre init`)."""

from __future__ import annotations

import secrets
from pathlib import Path

from actors.hsm.ceremony import export_head_public_key, export_transport_public_key, generate_keys
from actors.hsm.token import KeyToken, create_token, write_pin_file
from centre.config import LEDGER, TEMPLATE, Config, load, with_ledger
from centre.running import write_whole
from centre.wiring import now, token_config
from ledger.commit import Ledger

DIRECTORIES = ("exchange", "inbox", "keys", "lists", "log", "return", "run")
OWNER_ONLY = ("inbox", "keys", "lists", "log", "return")
"""With keys, names or numbers; in `exchange` and `run` lies what others come for."""


def make_directories(home: Path) -> None:
    """Those of a home, as far as they are not there."""
    for name in DIRECTORIES:
        (home / name).mkdir(mode=0o700 if name in OWNER_ONLY else 0o755, exist_ok=True)


def initialise(home: Path, ledger: str = LEDGER) -> Config:
    """Make the home of a centre, or finish one that was interrupted; what is there stays. `ledger`
    is the URL of its ledger.

    The token, the centre's own keys in it and the PINs are made here: the PIN stands in a 0600
    file for unattended start, the security officer's PIN likewise, and what proves the owner of
    the home. Masters are not: they come in components of two custodians.
    """
    home.mkdir(parents=True, exist_ok=True)
    make_directories(home)
    file = home / "centre.toml"
    if not file.exists():
        write_whole(file, with_ledger(TEMPLATE, ledger).encode("utf-8"))
    config = load(home)
    for own in (config.pin_file, config.pin_file.with_name("so-pin"), config.owner_file):
        if not own.exists():
            write_pin_file(own, secrets.token_urlsafe(18))
    create_token(
        config.conf.parent,
        config.pin_file.read_text(encoding="ascii"),
        config.pin_file.with_name("so-pin").read_text(encoding="ascii"),
    )
    with KeyToken(token_config(config)) as token:
        generate_keys(token)
        write_whole(config.transport_public_key, export_transport_public_key(token))
        write_whole(config.head_public_key, export_head_public_key(token))
    Ledger(config.ledger, now).close()
    return config
