"""A second machine of the centre under chaos: a node of Ray on which lines stand too.

It has a home of its own with what such a machine is given: the configuration and the head's secret.
"""

from __future__ import annotations

import re
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from centre.processes import Keeper, Kept
from centre.ray_runtime import token_file

SECOND = "second"


def name_the_head(home: Path) -> str:
    """Give the head a port that it keeps over its restarts; its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    file = home / "centre.toml"
    text, found = re.subn(
        r'(\[machines\][^[]*?\nlisten = )"127\.0\.0\.1:0"', rf'\1"{address}"',
        file.read_text("utf-8"),
    )  # fmt: skip
    assert found == 1
    file.write_text(text, "utf-8")
    return address


@contextmanager
def second_machine(head_home: Path, head: str) -> Iterator[Kept]:
    """`centre up --join`, kept running, once the head was up for the first time. It waits for a
    head that is away by itself."""
    home = head_home / SECOND
    for name in ("keys", "log", "run"):
        (home / name).mkdir(parents=True, exist_ok=True)
    shutil.copy(head_home / "centre.toml", home / "centre.toml")
    secret = token_file(home)
    shutil.copy(token_file(head_home), secret)
    secret.chmod(0o600)
    keeper = Keeper()
    command = [sys.executable, "-m", "centre", "up", "--home", str(home), "--join", head]
    kept = Kept(SECOND, command, home / "log" / "second.out")
    keeper.keep(kept)
    try:
        yield kept
    finally:
        keeper.stop()
