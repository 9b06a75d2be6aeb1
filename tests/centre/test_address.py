"""Where the doors of a centre listen."""

from __future__ import annotations

import socket
import threading
from dataclasses import replace
from pathlib import Path

from centre.config import load
from centre.floor import choose_address
from centre.home import initialise


def test_the_doors_keep_their_port_while_orphans_of_a_killed_centre_hold_it(tmp_path: Path) -> None:
    """Stations are told one address: after a kill the next centre waits until its orphans are
    gone, and does not move elsewhere."""
    initialise(tmp_path / "home")
    config = load(tmp_path / "home")
    first = choose_address(config)
    host, _, port = first.rpartition(":")
    for told in (config, replace(config, listen=first)):
        orphan = socket.create_server((host, int(port)))
        threading.Timer(0.5, orphan.close).start()
        assert choose_address(told) == first
        assert orphan.fileno() == -1, "the orphan was not waited for"
