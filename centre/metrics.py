"""Metrics of the running centre: Prometheus' configuration, the endpoints of the centre's own
processes, and what the supervisor sees.

    prometheus --config.file=HOME/prometheus/prometheus.yml
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import prometheus_client as prometheus

from actors.shell import HOME, machine
from centre import logs
from centre.config import Config
from centre.running import write_whole
from ledger.metrics import LedgerGauges
from scheduler.clocks import CHINA
from telemetry.endpoint import open_endpoint, withdraw

SUPERVISOR = "supervisor"
RULES = Path(__file__).resolve().parents[1] / "deploy" / "prometheus" / "rules.yml"

CONFIGURATION = """\
# Written by `centre up` at each start; changes here are lost. Every process of the centre and
# every station says in targets/ where it listens: a process that was started again is found anew.
global:
  scrape_interval: 5s
  evaluation_interval: 15s
rule_files:
  - {rules}
scrape_configs:
  - job_name: card_centre
    file_sd_configs:
      - files: [targets/*.json]
"""

PART_READY = prometheus.Gauge(
    "card_centre_part_ready",
    "1 while a part of the centre is ready, 0 while it is loading or away",
    ["part"],
)


def configure(config: Config) -> None:
    """Write the scrape configuration and show the supervisor's own metrics."""
    configure_scraping(config)
    prometheus.REGISTRY.register(LedgerGauges(config.ledger, lambda: datetime.now(CHINA).date()))
    open_endpoint(config.targets, SUPERVISOR)


def configure_scraping(config: Config) -> None:
    """Tell a Prometheus on this machine where to look."""
    config.targets.mkdir(parents=True, exist_ok=True)
    file = config.targets.parent / "prometheus.yml"
    write_whole(file, CONFIGURATION.format(rules=json.dumps(str(RULES))).encode())


def prepare(config: Config, name: str) -> partial[None]:
    """What an actor's process does before it works: its log, its metrics."""
    return partial(_prepare, config, name)


def _prepare(config: Config, name: str) -> None:
    # The home of this machine, which may be another than that of the head.
    config = replace(config, home=Path(os.environ[HOME]))
    logs.configure(config.logs / f"{name}.log", config.log_format)
    open_endpoint(config.targets, name)


def see(config: Config, state: Mapping[str, Mapping[str, Any]]) -> None:
    """Show which parts answered that they are ready. What stands on another machine is no target
    of this one's Prometheus any more."""
    for name, health in state.items():
        PART_READY.labels(name).set(health["state"] == "ready")
        if health["machine"] not in ("", machine()):
            withdraw(config.targets, name)


def end(config: Config, parts: Iterable[str]) -> None:
    """The centre stops in order: its processes are no targets any more."""
    for name in (*parts, SUPERVISOR):
        withdraw(config.targets, name)
