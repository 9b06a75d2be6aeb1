"""What an agent logs names its station, for machines and for people."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator

import pytest
import structlog

from station_agents.agent import configure_logs


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """The configuration is the process's: other tests have none."""
    yield
    structlog.reset_defaults()


def _line(style: str) -> str:
    """What a reader's thread says of a card of carton C1."""
    said = io.StringIO()
    configure_logs(said, style, "S1")

    def work() -> None:
        structlog.contextvars.bind_contextvars(carton_id="C1")
        structlog.get_logger().info("chip.verdict", code="OK")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return said.getvalue()


def test_lines_for_machines_are_json() -> None:
    """Station, carton, event, level and time are members."""
    line = json.loads(_line("json"))
    timestamp = line.pop("timestamp")
    assert timestamp.endswith("Z")
    assert line == {
        "station": "S1", "carton_id": "C1", "event": "chip.verdict", "code": "OK", "level": "info",
    }  # fmt: skip


def test_lines_for_people_say_the_same() -> None:
    """In words and without colours: logs are read in editors too."""
    line = _line("people")
    for part in ("chip.verdict", "station=S1", "carton_id=C1", "code=OK"):
        assert part in line
    assert "\x1b" not in line
