"""One http endpoint a process, on loopback and a free port, and the file that tells where it is.

Prometheus watches the directory of these files (`file_sd_configs`), so a process that died and
listens elsewhere now is found again by itself. `instance` stays the same, and with it the series.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from urllib.parse import quote

import prometheus_client
import structlog

log = structlog.get_logger()

# The process itself (processor time, memory, start) is worth its series; Python's garbage is not.
prometheus_client.REGISTRY.unregister(prometheus_client.GC_COLLECTOR)
prometheus_client.REGISTRY.unregister(prometheus_client.PLATFORM_COLLECTOR)
# Would be one more series for each counter and histogram.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]


@cache
def open_endpoint(targets: Path, instance: str) -> None:
    """Show this process's metrics as `instance`, and say where in a file of `targets`; once in
    the life of a process. Never raises: work goes on without metrics, the log says so."""
    try:
        server, _ = prometheus_client.start_http_server(0, "127.0.0.1")
        group = {
            "targets": [f"127.0.0.1:{server.server_port}"],
            "labels": {"instance": instance},
        }
        targets.mkdir(parents=True, exist_ok=True)
        file = _file(targets, instance)
        new = file.with_name(f".{file.name}.new")
        new.write_text(json.dumps([group]), encoding="utf-8")
        new.replace(file)
    except (OSError, RuntimeError) as e:  # RuntimeError: no thread to be had
        log.error("metrics.unseen", error=type(e).__name__)


def withdraw(targets: Path, instance: str) -> None:
    """An orderly end: nobody needs to look for `instance`. One that was killed stays a target,
    which is how Prometheus knows that it is down. Never raises."""
    try:
        _file(targets, instance).unlink(missing_ok=True)
    except OSError as e:
        log.error("metrics.not_withdrawn", error=type(e).__name__)


def _file(targets: Path, instance: str) -> Path:
    return targets / f"{quote(instance, safe='')}.json"
