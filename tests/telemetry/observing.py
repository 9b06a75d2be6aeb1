"""A real Prometheus over a running centre: what `docs/metrics.md` tells an operator to start."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

SECONDS = 90.0


def until(holds: Callable[[], bool], what: str) -> None:
    """Look again and again: another process's state, there is no event to wait for."""
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline, f"not within {SECONDS} s: {what}"
        time.sleep(0.2)


@dataclass(frozen=True)
class Prometheus:
    address: str

    def ask(self, path: str, **parameters: str) -> Any:
        """The `data` of an answer of Prometheus' http API."""
        url = f"http://{self.address}/api/v1/{path}?{urlencode(parameters)}"
        with urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"]

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Labels and value of each series of an instant query; those that are no number are no
        data either."""
        found = self.ask("query", query=expression)["result"]
        values = [(r["metric"], float(r["value"][1])) for r in found]
        return [(labels, value) for labels, value in values if value == value]

    def value(self, expression: str) -> float | None:
        """The one value of an expression that has one; None without data."""
        found = self.query(expression)
        return found[0][1] if found else None

    def ready(self) -> bool:
        try:
            with urlopen(f"http://{self.address}/-/ready", timeout=10) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


@contextmanager
def prometheus(configuration: Path, data: Path) -> Iterator[Prometheus]:
    """Prometheus with the configuration that `centre up` wrote, scraping each second."""
    every_second = configuration.with_name("each-second.yml")
    text = configuration.read_text(encoding="utf-8")
    assert "scrape_interval: 5s" in text
    every_second.write_text(
        text.replace("scrape_interval: 5s", "scrape_interval: 1s"), encoding="utf-8"
    )
    data.mkdir()
    with (data / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={every_second}",
                f"--storage.tsdb.path={data}",
                "--web.listen-address=127.0.0.1:0",
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        until(lambda: bool(_addresses(data / "log")), "Prometheus listens")
        found = Prometheus(_addresses(data / "log")[0])
        until(found.ready, "Prometheus is ready")
        yield found
    finally:
        process.kill()
        process.wait()


def _addresses(log: Path) -> list[str]:
    """Where Prometheus says that it listens, with the port that it was given."""
    return re.findall(r'msg="Listening on" address=(\S+)', log.read_text(encoding="utf-8"))
