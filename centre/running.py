"""Which centre is up, what it says of itself, and the home that is meant when none is named.

Read by every command, so it imports nothing that takes long.
"""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any

STATE = ("at", "pid", "listen", "joining", "machines", "actors")
"""What a running centre says of itself: when, the supervisor's process, where its doors are, where
further machines join, the machines (address by name), and the health of each actor by name."""


class NotUp(Exception):
    """No centre is up in this home."""


def take_home(home: Path) -> int | None:
    """Hold the home against other centres until the descriptor is closed or its process ends;
    None if a centre is up there."""
    lock = os.open(home / "run" / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def state_of(home: Path) -> dict[str, Any] | None:
    """What the running centre of `home` last said of itself; None if none is up there. A state
    that a killed centre left behind is not believed: its lock is gone with it."""
    try:
        try:
            lock = take_home(home)
        except PermissionError:
            lock = None  # another OS account, as custodians have: it can only take their word
        if lock is not None:
            os.close(lock)
            return None
        state: dict[str, Any] = json.loads((home / "run" / "state.json").read_text("utf-8"))
        return {name: state[name] for name in STATE}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def door_of(home: Path) -> str:
    """Where the running centre of `home` listens. Raises NotUp."""
    state = state_of(home)
    if state is None:
        raise NotUp(f"no centre is up in {home}: `centre up --home {home}`")
    return str(state["listen"])


def remember(home: Path) -> None:
    """The last demo's home is the default of every command."""
    file = _last_home()
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, str(home.resolve()).encode("utf-8"))


def last_home() -> Path | None:
    file = _last_home()
    return Path(file.read_text(encoding="utf-8")) if file.exists() else None


def _last_home() -> Path:
    return state_directory() / "last-home"


def state_directory() -> Path:
    """Where the commands of this user keep what outlives them."""
    state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(state) / "card-centre"


def write_whole(file: Path, content: bytes, *, private: bool = False) -> None:
    """Write a file so that it is there whole or not at all, also after a power cut. `private`:
    only this account may read it (0600), whatever the umask."""
    new = file.with_name(f".{file.name}.new")
    with new.open("wb") as f:
        if private:
            os.fchmod(f.fileno(), 0o600)
        f.write(content)
        f.flush()
        os.fsync(f.fileno())
    new.replace(file)


def sync(path: Path) -> None:
    """What stands in a file, or which names stand in a folder, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
