"""What people type: sessions of their own, passwords and components that nobody sees."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
import structlog
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from centre import components, desk, logs, running
from centre.cli import main
from centre.components import Wanted
from centre.config import TEMPLATE
from tests.gateways.surroundings import open_hall
from tests.lines.custody import PROOF, password_of

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """The command, in the session file of whoever runs it, against open doors."""
    home = tmp_path / "home"
    (home / "keys").mkdir(parents=True)
    (home / "centre.toml").write_text(TEMPLATE, encoding="utf-8")
    (home / "keys" / "owner").write_text(PROOF)
    loop, stop = asyncio.new_event_loop(), asyncio.Event()
    opened: list[str] = []
    ready = threading.Event()

    async def serve() -> None:
        async with open_hall(home) as (hall, _):
            opened.append(hall.address)
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert ready.wait(20)
    logs.quiet()  # the doors are in this process, and would log among what a command says
    monkeypatch.setattr(desk, "door_of", lambda _home: opened[0])

    def command(who: str, *args: str, typed: str = "") -> Result:
        session = ("--session", str(tmp_path / f"{who}.session"))
        return CliRunner().invoke(main, [*args, "--home", str(home), *session], input=typed)

    yield command
    loop.call_soon_threadsafe(stop.set)
    thread.join()
    loop.close()
    structlog.reset_defaults()


def test_people_log_in_and_act_in_sessions_of_their_own(run: Run, tmp_path: Path) -> None:
    """Two supervisors by the owner, then a custodian by both of them; each session stands in its
    own 0600 file; what is refused ends with 1 and says what to do; no password comes back."""
    said = []

    def done(who: str, *args: str, typed: str = "", code: int = 0) -> str:
        result = run(who, *args, typed=typed)
        assert result.exit_code == code, result.output
        said.append(result.output)
        return result.output

    for name in ("sun", "su"):
        first = f"first password of {name}"
        done(name, "people", "add", name, "--role", "supervisor", typed=first + "\n")
        assert "centre people passwd" in done(name, "login", name, typed=first + "\n")
        done(name, "people", "passwd", typed=f"{first}\n{password_of(name)}\n")
        assert (tmp_path / f"{name}.session").stat().st_mode & 0o777 == 0o600
        assert name in done(name, "whoami")
    add = ("people", "add", "ke", "--role", "key_custodian")
    assert "NOT_LOGGED_IN" in done("ke", *add, typed=password_of("ke"), code=1)
    act = done("sun", *add, typed=password_of("ke")).split()[0]
    assert "SAME_PERSON" in done("sun", "act", "confirm", act, code=1)
    assert json.loads(done("su", "act", "list", "--json"))[0]["act_id"] == act
    assert ": done" in done("su", "act", "confirm", act)
    done("ke", "login", "ke", typed=password_of("ke"))
    new = "another password of ke"
    done("ke", "people", "passwd", typed=f"{password_of('ke')}\n{new}\n")
    done("ke", "logout")
    assert not (tmp_path / "ke.session").exists()
    assert "LOGIN_REFUSED" in done("ke", "login", "ke", typed=password_of("ke"), code=1)
    done("ke", "login", "ke", typed=new)
    people = {p["name"]: p for p in json.loads(done("sun", "people", "list", "--json"))}
    assert people["ke"]["roles"] == ["key_custodian"]
    for secret in (*map(password_of, ("sun", "su", "ke")), new):
        assert secret not in "".join(said)


def test_a_component_is_shown_once_or_written_for_its_owner(tmp_path: Path) -> None:
    """Made as long as its key, written into a new 0600 file and into no other, not shown where no
    terminal is, in no text that describes it; sealed it opens under the transport key alone."""
    wanted = [Wanted("formal:MK:v1", "MK", "3des", 1), Wanted("kek:v1", "kek", "aes", 1)]
    made = components.make(wanted)
    assert [len(c.value) for c in made] == [16, 32]
    assert all(c.value.hex() not in repr(c) and repr(c.value) not in repr(c) for c in made)
    with pytest.raises(click.UsageError, match="terminal"):
        components.hand_over(made, None)
    file = tmp_path / "envelope"
    components.hand_over(made, file)
    assert file.stat().st_mode & 0o777 == 0o600
    with pytest.raises(click.UsageError, match="already"):
        components.hand_over(made, file)
    again = components.read(wanted, file)
    assert [c.value for c in again] == [c.value for c in made]
    key = rsa.generate_private_key(65537, 2048)
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    first = components.sealed(made, pem)[0].sealed
    assert made[0].value not in first
    assert key.decrypt(first, OAEP(MGF1(SHA1()), SHA1(), None)).endswith(made[0].value)


SHOWN = """
from centre.components import Wanted, hand_over, make
hand_over(make([Wanted("formal:MK:v1", "MK", "3des", 1)]), None)
"""


def test_a_component_that_was_shown_is_not_left_to_scroll_back_to() -> None:
    """On a real terminal: after the key press the screen and what scrolled off it are cleared."""
    ours, theirs = os.openpty()
    environment = {**os.environ, "TERM": "xterm"}
    with subprocess.Popen(
        [sys.executable, "-c", SHOWN],
        stdin=theirs, stdout=theirs, stderr=theirs, env=environment,
    ) as process:  # fmt: skip
        os.close(theirs)
        said = b""
        while b"clears this" not in said:
            said += os.read(ours, 4096)
        after = b""
        with contextlib.suppress(OSError):  # the other end is closed
            while process.poll() is None or select.select([ours], [], [], 0)[0]:
                if select.select([ours], [], [], 0.05)[0]:
                    after += os.read(ours, 4096)
                else:
                    os.write(ours, b"x")  # a key pressed before the terminal is raw is lost
    os.close(ours)
    assert process.returncode == 0, said
    assert b"formal:MK:v1" in said
    # What a terminal may still echo are the keys pressed too often.
    assert after.rstrip(b"\r\nx").endswith(b"\x1b[3J")


def test_the_door_is_found_from_another_os_account(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Custodians are not the centre's own OS account: its lock is closed to them, and what the
    centre says of itself is enough; where it says nothing, none is up."""

    def closed(_home: Path) -> int:
        raise PermissionError

    monkeypatch.setattr(running, "take_home", closed)
    assert running.state_of(tmp_path) is None
    said = {**dict.fromkeys(running.STATE), "listen": "127.0.0.1:1"}
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "state.json").write_text(json.dumps(said))
    assert running.door_of(tmp_path) == "127.0.0.1:1"


def test_a_mistyped_component_is_named_and_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the wrong length, or no hex: the key is named, with the digits that are needed."""
    wanted = [Wanted("formal:MK:v1", "MK", "3des", 2)]
    for typed in ("0123456789", "no hex at all", ""):
        monkeypatch.setattr(components, "ask_hidden", lambda _words, t=typed: t)
        with pytest.raises(click.UsageError, match="32") as refused:
            components.read(wanted, None)
        assert not typed or typed not in refused.value.message
