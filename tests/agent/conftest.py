"""One PC/SC service for a file of tests; trays, centres and agents are each test's own."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from station_agents.virtual.pcscd import Pcscd


@pytest.fixture(scope="module")
def service() -> Iterator[Pcscd]:
    directory = Path(tempfile.mkdtemp(prefix="cc-", dir="/tmp"))
    try:
        with Pcscd(directory / "pcsc", 2) as service:
            yield service
    finally:
        shutil.rmtree(directory, ignore_errors=True)
