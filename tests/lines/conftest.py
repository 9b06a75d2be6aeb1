"""Floors in one process. One token at a time can be open in a process, so a floor is made and
closed by the module that uses it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lines.small_floor import SmallFloor


@pytest.fixture(scope="module")
def floor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallFloor]:
    floor = SmallFloor.make(tmp_path_factory.mktemp("floor"))
    yield floor
    floor.close()
