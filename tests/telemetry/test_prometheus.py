"""A real Prometheus watches a whole centre at work, through the death of one of its actors.

One demo and one Prometheus for all tests here: the demo's floor stays up until they are done.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from actors.metrics import REQUESTS
from domain.codes import Code
from domain.custody import CustodyLine
from domain.lines import ChipLine, InventoryLine, KeyCustodian, KeyProvider, SortingLine
from domain.places import (
    PACKED,
    PACKING,
    VAULT,
    Kind,
    Line,
    Standing,
    held,
    rejected,
    transit,
    work,
)
from ledger.queries import Queries
from ledger.summary import STAGES, summary
from tests.telemetry.observing import Prometheus, prometheus, until

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
RULES = DEPLOY / "prometheus" / "rules.yml"
CARDS = 60
LINES = {str(line) for line in Line}
CHIP_LINES = LINES - {"inventory", "sorting", "custody"}
STATIONS = {"station-1", "station-2"}
PROVIDERS = {"provider-0", "provider-1"}
INSTANCES = {"supervisor", "ledger", "gateway", *PROVIDERS, *LINES, *STATIONS}
KILLED = "inspection"
INSPECTED = 'sum(card_centre_cards_total{stage="inspection"})'


@dataclass(frozen=True)
class Watched:
    home: Path
    prometheus: Prometheus
    started_before: float
    """When the first process of the actor that was killed had started."""
    pages: dict[str, str]
    """What the endpoint of each instance said, when all work was done."""

    def families(self) -> Iterator[tuple[str, Metric]]:
        """What is ours and has samples: (instance, family)."""
        for instance, page in self.pages.items():
            for family in text_string_to_metric_families(page):
                if family.name.startswith("card_centre_") and family.samples:
                    yield instance, family


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A centre whose cards are all shipped or set apart and whose return was taken, with the
    Prometheus that saw all of it; the actor KILLED was killed on the way."""
    place = tmp_path_factory.mktemp("watched")
    home, go = place / "home", place / "go"
    with (place / "demo.out").open("wb") as out:
        demo = subprocess.Popen(
            [sys.executable, "-m", "tests.telemetry.observed_demo", *map(str, (home, CARDS, go))],
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, "XDG_STATE_HOME": str(place / "state")},
            start_new_session=True,
        )
    assert demo.stdin is not None
    configuration = home / "prometheus" / "prometheus.yml"
    try:
        until(lambda: configuration.exists() or demo.poll() is not None, "the centre starts")
        with prometheus(configuration, place / "data") as server:
            until(lambda: server.value("sum(up)") == len(INSTANCES), "all are seen")
            before = _started(server)
            go.touch()
            until(lambda: bool(server.value(INSPECTED)), "cards are inspected")
            _kill(home)
            until(lambda: _started(server) > before, "the new process is seen")
            until(lambda: _all_done(server), "all work is done")
            done = server.value("vector(time())") or 0.0
            until(lambda: (server.value("min(timestamp(up))") or 0.0) > done, "all are asked again")
            yield Watched(home, server, before, _pages(home))
        demo.stdin.close()
        assert demo.wait(60) == 0, (place / "demo.out").read_text()[-3000:]
    finally:
        if demo.poll() is None:
            os.killpg(demo.pid, signal.SIGKILL)
            demo.wait()
            demo.stdin.close()
    assert not list((home / "prometheus" / "targets").iterdir()), "an orderly end leaves targets"


def _started(server: Prometheus) -> float:
    return server.value(f'process_start_time_seconds{{instance="{KILLED}"}}') or 0.0


def _kill(home: Path) -> None:
    """SIGKILL to one actor's process, as the centre itself names it."""
    state = json.loads((home / "run" / "state.json").read_text(encoding="utf-8"))
    os.kill(state["actors"][KILLED]["pid"], signal.SIGKILL)


def _all_done(server: Prometheus) -> bool:
    """All as Prometheus sees it: nothing in work or owed, all cards out of the readers. In the
    vault lies what waits for its return: the demo leaves some."""
    empty = 'card_centre_readers{state="empty"}'
    return (
        server.value('sum(card_centre_bodies{result="in_work", place!="inventory/vault"})') == 0
        and server.value("card_centre_outbox_entries") == 0
        and server.value("sum(card_centre_part_ready)") == len(INSTANCES - STATIONS) - 1
        and server.value(f"sum({empty})") == server.value("sum(card_centre_readers)")
    )


def _pages(home: Path) -> dict[str, str]:
    pages = {}
    for file in (home / "prometheus" / "targets").iterdir():
        (group,) = json.loads(file.read_text(encoding="utf-8"))
        with urlopen(f"http://{group['targets'][0]}/metrics", timeout=10) as answer:
            pages[group["labels"]["instance"]] = answer.read().decode()
    return pages


@pytest.mark.timeout(240)
def test_every_process_is_seen_also_one_that_came_back_elsewhere(watched: Watched) -> None:
    """One scrape configuration finds the supervisor, all actors and all stations; the actor that
    was killed is the same instance, a later process, on whichever port it has now."""
    up = watched.prometheus.query('up{job="card_centre"} == 1')
    assert {labels["instance"] for labels, _ in up} == INSTANCES
    assert _started(watched.prometheus) > watched.started_before


def _expressions() -> list[str]:
    panels = json.loads((DEPLOY / "grafana" / "card-centre.json").read_text("utf-8"))["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", ())]


def test_every_query_of_the_dashboard_returns_data(watched: Watched) -> None:
    """No panel of the dashboard is empty over a centre that has worked."""
    expressions = _expressions()
    assert len(expressions) > 30
    assert [e for e in expressions if not watched.prometheus.query(e)] == []


_SELECTOR = r"\b(?:card_centre_\w+|up)\b(?:{[^}]*})?"
# Only where such a thing has happened.
RARE = {
    'card_centre_bodies{reason="FORMAL_KEYS_FOREIGN"}',
    'card_centre_bodies{reason="IN_DOUBT"}',
}


def test_every_series_that_a_rule_looks_at_exists(watched: Watched) -> None:
    """A rule over a name or a label that nobody shows would never fire: Prometheus has loaded all
    rules, and each selector in them finds series."""
    groups = watched.prometheus.ask("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) == RULES.read_text(encoding="utf-8").count("- alert:")
    selectors = {
        found
        for rule in rules
        for found in re.findall(r"\b(?:card_centre_\w+|up)\b(?:{[^}]*})?", rule["query"])
    }
    assert len(selectors) > len(rules)
    assert {s for s in selectors if not watched.prometheus.query(s)} <= RARE
    assert [rule["name"] for rule in rules if rule["health"] == "err"] == []


def test_gauges_and_counters_say_what_the_ledger_says(watched: Watched) -> None:
    """Bodies by result are the ledger's own sums, and the cards that were counted as they left a
    stage are those of the ledger's events: nothing is counted twice or beside a commit."""
    queries = Queries(watched.home / "ledger.db")
    told = summary(queries)
    withdrawn = len(queries.bodies("b.place like 'factory/%'"))
    queries.close()
    ask = watched.prometheus.query
    bodies = {labels["result"]: n for labels, n in ask("sum by (result) (card_centre_bodies)")}
    for result in ("shipped", "rejected", "held", "in_work"):
        assert bodies[result] == told[result], result
    cards = {labels["stage"]: n for labels, n in ask("sum by (stage) (card_centre_cards_total)")}
    expected = {stage: told["stages"][stage]["cards"] for stage in STAGES}
    # What a recount has withdrawn was received when it was counted.
    assert cards == {**expected, "receiving": expected["receiving"] + withdrawn}


def _documented() -> dict[str, tuple[str, ...]]:
    """The table of docs/metrics.md: type, labels, process and meaning by name."""
    rows = re.findall(
        r"^\| `(card_centre_\w+)` \| (\w+) \| (.*?) \| (.*?) \| (.*?) \|$",
        (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    return {name: tuple(rest) for name, *rest in rows}


def _exposed(watched: Watched) -> dict[str, tuple[str, ...]]:
    """The same of what the processes show."""
    seen: dict[str, tuple[Metric, set[str]]] = {}
    for instance, family in watched.families():
        seen.setdefault(family.name, (family, set()))[1].add(instance)
    words = {frozenset(LINES): "lines", frozenset(CHIP_LINES): "chip lines"}
    words[frozenset(STATIONS)] = "stations"
    words[frozenset(PROVIDERS)] = "providers"
    words[frozenset({"supervisor", "gateway", *LINES})] = "supervisor, gateway, lines"
    table: dict[str, tuple[str, ...]] = {}
    for name, (family, instances) in seen.items():
        labels = sorted({label for s in family.samples for label in s.labels} - {"le"})
        table[f"{name}_total" if family.type == "counter" else name] = (
            family.type,
            ", ".join(f"`{label}`" for label in labels),
            words.get(frozenset(instances), ", ".join(sorted(instances))),
            family.documentation,
        )
    return table


def test_the_documented_table_is_what_is_shown(watched: Watched) -> None:
    """docs/metrics.md names every metric, its type, labels, processes and meaning, and no other."""
    assert _documented() == _exposed(watched)


def asked_of(*protocols: type) -> set[str]:
    """The methods by which others reach a line or the provider."""
    return {name for protocol in protocols for name in vars(protocol) if name[0] != "_"}


PLACES = {
    VAULT, PACKING, PACKED, "courier",
    *(place(line) for place in (work, held, rejected) for line in Line),
    *(transit(a, b) for a in Line for b in Line),
}  # fmt: skip
CODES = {str(code) for code in Code}
WORDS: dict[str, set[str]] = {
    "answer": {"segment", "verdict", "wait", "restart"},
    "code": CODES,
    "error": {"Again", "CardRemoved", "ReaderError", "ReaderHung", "ReaderLost", "ServiceLost",
              "CardSilent", "EjectUnknown", "FeederRefused", "Untrusted"},
    "kind": {str(kind) for kind in Kind},
    "line": {str(line) for line in Line},
    "member": PROVIDERS,
    "method": asked_of(InventoryLine, ChipLine, SortingLine, CustodyLine),
    "operation": asked_of(KeyProvider, KeyCustodian) | set(REQUESTS.values()),
    "part": {"look_up", "prepare", "provider", "decide", "commit", "centre", "chip",
             *INSTANCES - STATIONS - {"supervisor"}},
    "place": PLACES,
    "reason": {"", *CODES},
    "result": {"good", *(str(s) for s in Standing), "committed", "repeated", "refused", "failed",
               "done", "differs"},
    "stage": set(STAGES),
    "state": {"empty", "working", "asking", "waiting", "failed", "quarantined"},
    "reader": {f"R{n:02d} 00 00" for n in range(8)},
    "failure": {"retry", "power_on", "broken", "hang", "quarantine"},
}  # fmt: skip


def test_no_label_holds_an_id(watched: Watched) -> None:
    """Every value of every label is a word of the floor that is known beforehand."""
    unknown = {
        (sample.name, label, value)
        for _, family in watched.families()
        for sample in family.samples
        for label, value in sample.labels.items()
        if label != "le" and value not in WORDS[label]
    }
    assert unknown == set()


def _promtool(*arguments: str, page: str = "") -> None:
    done = subprocess.run(
        ["promtool", *arguments], input=page, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_accepts_what_the_centre_writes_and_shows(watched: Watched) -> None:
    """The configuration with its rules; and names, types and units of every process' metrics
    after Prometheus' own practice."""
    _promtool("check", "config", str(watched.home / "prometheus" / "prometheus.yml"))
    for page in watched.pages.values():
        _promtool("check", "metrics", page=page)


def test_each_rule_fires_for_what_it_is_about() -> None:
    """promtool runs the rules over a floor in order (none fires), over one where everything goes
    wrong (all fire), and over one that has just gone wrong."""
    _promtool("check", "rules", str(RULES))
    tests = RULES.with_name("rules.test.yml")
    _promtool("test", "rules", str(tests))
    alerts = set(re.findall(r"- alert: (\w+)", RULES.read_text(encoding="utf-8")))
    assert alerts == set(re.findall(r'alertname="(\w+)"', tests.read_text(encoding="utf-8")))
