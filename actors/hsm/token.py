"""A PKCS#11 token: how it is made, and the one session that a process holds with it."""

from __future__ import annotations

import fcntl
import json
import os
import random
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pkcs11
import structlog
from pkcs11 import Attribute, ObjectClass
from pkcs11.exceptions import (
    MultipleObjectsReturned,
    PinIncorrect,
    PinInvalid,
    PinLocked,
    PKCS11Error,
)

from domain.provider import ProviderError

SOFTHSM2 = "/usr/lib/softhsm/libsofthsm2.so"
LABEL = "centre"
LOCKED_IN = {Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False}
"""Of keys that nobody ever reads or takes out."""
EXPORTABLE = {Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: True}
"""Never read out, and wrapped under a KEK only (docs/decisions/0020)."""

_MAKING = "making-"
_ATTEMPTS = 8
_FIRST_PAUSE = 0.05
"""Seconds; doubled after each attempt, up to `_LONGEST_PAUSE`."""
_LONGEST_PAUSE = 1.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class TokenConfig:
    """Where the token is and who may open it."""

    module: str
    """The PKCS#11 library."""
    conf: Path
    """The module's configuration (SoftHSM2: softhsm2.conf). Lock file beside it."""
    label: str
    pin_file: Path
    """Holds the user PIN; must belong to this user and be closed to all others (0600)."""


def token_config(directory: Path, pin_file: Path) -> TokenConfig:
    """The configuration of a token that `create_token(directory, ...)` made."""
    return TokenConfig(SOFTHSM2, directory / "softhsm2.conf", LABEL, pin_file)


def write_pin_file(path: Path, pin: str) -> None:
    """Write a PIN file that only this user can read. Raises FileExistsError."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as f:
        f.write(pin)
        f.flush()
        os.fsync(f.fileno())


def create_token(directory: Path, pin: str, so_pin: str) -> None:
    """Make a SoftHSM2 token in `directory` (0700), with its own softhsm2.conf.

    After an interruption nothing counts and the next call makes it; once made, a repeat changes
    nothing. PINs have 4 to 255 characters. Raises ProviderError when the module refuses.
    """
    directory = directory.absolute()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    tokens = directory / "tokens"
    with _exclusive(directory / "softhsm2.lock"):
        _write_softhsm_conf(directory / "softhsm2.conf", tokens)
        if tokens.exists():
            return
        for left in directory.glob(f"{_MAKING}*"):
            shutil.rmtree(left)
        scratch = Path(tempfile.mkdtemp(prefix=_MAKING, dir=directory))
        try:
            (scratch / "tokens").mkdir(mode=0o700)
            _write_softhsm_conf(scratch / "softhsm2.conf", scratch / "tokens")
            _initialise(scratch / "softhsm2.conf", pin, so_pin)
            # The rename is what makes the token exist: before it there is none, after it all.
            (scratch / "tokens").rename(tokens)
        finally:
            shutil.rmtree(scratch)
    _log.info("token_created", label=LABEL)


def copy_tokens(directory: Path, target: Path) -> None:
    """Copy the token of `directory` to the new folder `target`, while no process changes it. Raises
    ProviderError if there is none."""
    if not (directory / "tokens").exists():
        raise ProviderError(f"there is no token in {directory}")
    with _exclusive(directory / "softhsm2.lock"):
        shutil.copytree(directory / "tokens", target)


def write_softhsm_conf(directory: Path) -> None:
    """Write where the token of `directory` lies. A home that was moved or restored elsewhere says
    so again at each start: SoftHSM2 knows no relative paths."""
    _write_softhsm_conf(directory / "softhsm2.conf", directory.absolute() / "tokens")


def _write_softhsm_conf(path: Path, tokens: Path) -> None:
    text = (
        f"directories.tokendir = {tokens}\nobjectstore.backend = file\nlog.level = ERROR\n"
        # Opening a session must not depend on whether a slot is removable.
        "slots.removable = false\n"
    )
    if not path.exists() or path.read_text() != text:
        new = path.with_suffix(".new")
        new.write_text(text)
        new.replace(path)


def _initialise(conf: Path, pin: str, so_pin: str) -> None:
    order = {"module": SOFTHSM2, "label": LABEL, "pin": pin, "so_pin": so_pin}
    done = subprocess.run(
        [sys.executable, "-I", str(Path(__file__).with_name("_initialise.py"))],
        input=json.dumps(order),
        env={**os.environ, "SOFTHSM2_CONF": str(conf)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if done.returncode:
        # Only the last line, which names the call: a traceback could carry more.
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ProviderError(f"the token cannot be initialised: {reason}")


@contextmanager
def _exclusive(lock: Path) -> Iterator[None]:
    """Hold `lock` against the other processes of this machine (freed when its holder dies)."""
    fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


class KeyToken:
    """One session with a token, opened when first used and again after it was lost.

    A process holds at most one at a time: SoftHSM2 knows one login per process.
    """

    _holder: KeyToken | None = None
    _initialised_with: Path | None = None

    def __init__(self, config: TokenConfig) -> None:
        self.config = config
        self._session: pkcs11.Session | None = None
        self._pin_refused = False
        self._lock = config.conf.with_suffix(".lock")
        self._is_alone = False

    def __enter__(self) -> KeyToken:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def is_open(self) -> bool:
        return self._session is not None

    @property
    def session(self) -> pkcs11.Session:
        """The open session. Raises ProviderError if the token does not let itself be opened."""
        if self._session is None:
            self._session = self._open()
            KeyToken._holder = self
        return self._session

    def close(self) -> None:
        """Close the session, which destroys its session objects. Never raises."""
        session, self._session = self._session, None
        if KeyToken._holder is self:
            KeyToken._holder = None
        if session is not None:
            # A session that is lost cannot be closed either: nothing is left to do about it.
            with suppress(PKCS11Error):
                session.close()

    def lose(self) -> None:
        """Close after a failure: the next use starts the module anew. Never raises."""
        self.close()
        KeyToken._initialised_with = None

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Make keys while no other process of this machine does (find-or-make is two steps). May
        be entered again inside."""
        # Opening takes the same lock.
        _ = self.session
        with nullcontext() if self._is_alone else _exclusive(self._lock):
            was, self._is_alone = self._is_alone, True
            try:
                yield
            finally:
                self._is_alone = was

    @contextmanager
    def changing(self) -> Iterator[None]:
        """`alone`, and `generation` is another one afterwards: for changes that the other
        processes must see."""
        with self.alone():
            try:
                yield
            finally:
                os.utime(self._lock)

    @property
    def generation(self) -> int:
        """Another number after any process of this machine was `changing` the token."""
        return self._lock.stat().st_mtime_ns

    def find(self, label: str, kind: ObjectClass = ObjectClass.SECRET_KEY) -> Any:
        """The key object `label`, or None. Raises ProviderError if there is more than one."""
        found = list(self.session.get_objects({Attribute.CLASS: kind, Attribute.LABEL: label}))
        if len(found) > 1:
            raise ProviderError(f"{len(found)} keys bear the label {label}") from (
                MultipleObjectsReturned()
            )
        return found[0] if found else None

    def _open(self) -> pkcs11.Session:
        if KeyToken._holder is not None:
            raise ProviderError("this process already holds a session with a token")
        if self._pin_refused:
            # A device locks after a few wrong PINs: one is enough.
            raise ProviderError("the token refused the PIN; correct the PIN file and start again")
        pin = _read_pin(self.config.pin_file)
        pause = _FIRST_PAUSE
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                # Not while a key is being written: the module would take the token for damaged.
                with _exclusive(self._lock):
                    return self._attempt(pin)
            except (PinIncorrect, PinInvalid, PinLocked) as e:
                self._pin_refused = True
                raise ProviderError(f"the token refused the PIN: {type(e).__name__}") from e
            except (PKCS11Error, RuntimeError) as e:
                _log.warning("token_open_failed", attempt=attempt, error=type(e).__name__)
                KeyToken._initialised_with = None
                if attempt == _ATTEMPTS:
                    raise ProviderError(f"the token does not open: {type(e).__name__}") from e
            # SoftHSM2 sees a token only when it is idle while the library starts, and tells
            # nobody when it is: there is no event to wait for.
            time.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, _LONGEST_PAUSE)
        raise AssertionError("unreachable")

    def _attempt(self, pin: str) -> pkcs11.Session:
        os.environ["SOFTHSM2_CONF"] = str(self.config.conf)
        library = pkcs11.lib(self.config.module)
        if KeyToken._initialised_with != self.config.conf:
            # The module reads its configuration and its tokens when it is initialised.
            library.reinitialize()
            KeyToken._initialised_with = self.config.conf
        token = library.get_token(token_label=self.config.label)
        return token.open(rw=True, user_pin=pin)


def _read_pin(path: Path) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as e:
        raise ProviderError(f"the PIN file cannot be read: {e.strerror}") from e
    with os.fdopen(fd) as f:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or stat.S_IMODE(status.st_mode) & 0o177:
            raise ProviderError("the PIN file must be a plain file with mode 0600")
        if status.st_uid != os.geteuid():
            raise ProviderError("the PIN file must belong to the user of this process")
        return f.read().rstrip("\n")
