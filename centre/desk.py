"""The custody door as the command of one person uses it: their login session, and what they type
that nobody else may see.

A session's token stands in a 0600 file: one for each terminal session, unless `--session FILE` or
CENTRE_SESSION names another. Whoever sits at another terminal is logged in as somebody else.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import grpc

from centre.options import REFUSED
from centre.running import door_of, state_directory
from stubs.custody_pb2 import CustodyReply
from stubs.custody_pb2_grpc import CustodyStub

CALL_SECONDS = 60.0
LONGEST_LINE = 4_000
TOKEN = "session-token"

F = TypeVar("F", bound=Callable[..., Any])


def session_option(command: F) -> F:
    return click.option(
        "--session",
        type=click.Path(dir_okay=False, path_type=Path),
        envvar="CENTRE_SESSION",
        help="File of the login session (default: one for each terminal session).",
    )(command)


class Desk:
    """Asks the door in a session. What is refused ends the command with exit code 1."""

    def __init__(self, home: Path, session: Path | None) -> None:
        self._home = home
        self._file = session or _default_file(home)

    def ask(self, method: str, request: Any) -> CustodyReply:
        """While a part of the centre is away the same is asked again for a while: it takes effect
        once. Raises NotUp, grpc.RpcError."""
        deadline = time.monotonic() + CALL_SECONDS
        while True:
            try:
                reply = self._once(method, request)
                break
            except grpc.RpcError as e:
                away = hasattr(e, "code") and e.code() is grpc.StatusCode.UNAVAILABLE
                if not away or time.monotonic() > deadline:
                    raise
                time.sleep(0.3)  # as the door advises; the part starts by itself
        if not reply.receipt.accepted:
            r = reply.receipt
            click.echo(f"{r.code}: {r.reason}", err=True)
            if r.next_step:
                click.echo(f"下一步 next: {r.next_step}", err=True)
            sys.exit(REFUSED)
        return reply

    def _once(self, method: str, request: Any) -> CustodyReply:
        metadata = ((TOKEN, self._token()),)
        with grpc.insecure_channel(door_of(self._home)) as channel:
            reply: CustodyReply = getattr(CustodyStub(channel), method)(
                request, timeout=CALL_SECONDS, wait_for_ready=True, metadata=metadata
            )
        return reply

    def keep(self, token: str) -> None:
        """The session that this terminal is in from now on."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.unlink(missing_ok=True)
        with os.fdopen(os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as f:
            f.write(token)

    def forget(self) -> None:
        self._file.unlink(missing_ok=True)

    def _token(self) -> str:
        try:
            return self._file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            return ""


def _default_file(home: Path) -> Path:
    name = hashlib.sha256(os.fsencode(home.resolve())).hexdigest()[:12]
    return state_directory() / "sessions" / f"{name}-{os.getsid(0)}"


def terminal() -> str:
    """Where this person sits, for the audit stream: the OS account, and its terminal."""
    try:
        place = os.ttyname(sys.stdin.fileno())
    except (OSError, ValueError):
        place = f"no terminal, session {os.getsid(0)}"
    return f"uid {os.getuid()} {place}"


def ask_hidden(words: str, *, twice: bool = False) -> str:
    """One line that nobody sees: typed (twice if it is new), or read from a pipe. It never stands
    on a command line."""
    if sys.stdin.isatty():
        typed: str = click.prompt(
            words,
            hide_input=True,
            confirmation_prompt="再输一次 again" if twice else False,
            err=True,
        )
        return typed
    return sys.stdin.readline(LONGEST_LINE).rstrip("\r\n")
