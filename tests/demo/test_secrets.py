"""What a demo leaves in its logs and files: ids where they belong, and no secret anywhere else."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from tests.demo.memory_search import MAY_HOLD_KEYS
from tests.demo.running import CARDS, SEED
from tests.demo.secrets_search import files_of, found_in, secrets_of

# Whoever comes first waits for the demo.
pytestmark = pytest.mark.timeout(240)


def test_a_log_line_names_batch_carton_and_station(finished: Path) -> None:
    """Every line of a station names it, and every line about a chip its carton; every line of the
    doors about a file, a delivery or keys names the batch."""
    stations = [line for f in (finished / "log").glob("station-*.log") for line in _log(f)]
    assert {line["station"] for line in stations} == {"station-1", "station-2"}
    chips = [line for line in stations if line["event"].startswith("chip.")]
    assert len(chips) > CARDS
    assert all(line["carton_id"] and line["reader"] for line in chips)
    assert all(line["batch_id"] for line in chips if line["event"] == "chip.verdict")
    assert not [line for line in stations if line["event"] == "reader.unexpected"]
    doors = [
        line
        for line in _log(finished / "log" / "gateway.log")
        if line["event"].partition(".")[0] in ("factory_return", "delivery", "delivery_note",
                                                "outbox")
    ]  # fmt: skip
    assert len({line["event"] for line in doors}) >= 5
    # Beside the batch, the two of which one half never comes.
    assert {line["batch_id"] for line in doors} == {f"B{SEED + n:06d}" for n in range(3)}
    providers = [line for f in (finished / "log").glob("provider-*.log") for line in _log(f)]
    keys = [line for line in providers if line["event"] == "key_imported"]
    assert {line["batch_id"] for line in keys} == {f"B{SEED:06d}"}


def _log(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def test_no_name_number_key_or_pin_is_where_it_must_not_be(finished: Path, place: Path) -> None:
    """Everything that the demo contained, in every form that a careless line would give it, sought
    in all of its home but the places that hold it on purpose, in the logs of Ray, in the metrics
    of its processes, in what they said and on their command lines."""
    secrets = secrets_of(finished, [finished / "trays", place / "before" / "trays"])
    files = [
        *files_of(finished),
        *(p for p in (place / "before").rglob("*") if p.is_file() and p.parent.name != "trays"),
    ]
    names = {path.name for path in files}
    assert len(secrets) > 1_000
    assert {"ledger.db", "gateway.log", "station-1.log", "said", "commands", "raylet.out"} <= names
    assert {
        "gateway-metrics",
        "provider-0-metrics",
        "provider-1-metrics",
        "station-1-metrics",
    } <= names
    assert not (found := found_in(files, secrets)), found


def test_no_key_is_in_the_memory_of_another_process(finished: Path, place: Path) -> None:
    """While chips got their keys: neither the province's masters and the custodians' components,
    nor the factory's, nor the keys of chips stand in the memory of any process but the providers',
    the tray's and the custodians' own. That the search finds what is there the tray shows."""
    found: dict[str, list[str]] = json.loads((place / "memory.json").read_text("utf-8"))
    names = {name.partition(" ")[0] for name in found}
    assert {"gateway", "ledger", "key_replacement", "inspection", "custody", "raylet",
            "station_agents", "watched_demo", "centre"} <= names  # fmt: skip
    plastic = {what for name in found if name.startswith("tray") for what in found[name]}
    assert "a temporary key of a chip" in plastic
    assert not {n: w for n, w in found.items() if w and not n.startswith(MAY_HOLD_KEYS)}


@pytest.mark.parametrize("place_of", ["log", "journals", "run", "heads.jsonl"])
def test_the_search_bites(tmp_path: Path, place_of: str) -> None:
    """Each form of a secret is found wherever it stands in a line; what is found is named by its
    kind alone; the places that hold secrets on purpose are not looked at."""
    home = tmp_path / "home"
    for directory in ("sent", "keys", "trays", "people"):
        (home / directory).mkdir(parents=True)
    person = {
        "name": "\u9f98\u4e94\u516d",
        "identity_number": "110101194912310026",
        "bank_card_number": "6217000000000000000",
        "social_card_number": "H12345678",
    }
    record = json.dumps(person, ensure_ascii=False)
    (home / "sent" / "factory_return.jsonl").write_text(record + "\n", encoding="utf-8")
    key = {"social": {"keys": [{"value": bytes(range(200, 216)).hex().upper()}]}}
    (home / "trays" / "tray-1.jsonl").write_text("{}\n" + json.dumps(key) + "\n")
    (home / "people" / "passwords.json").write_text('{"ke": "password-of-this-test"}')
    for pin in ("pin", "so-pin", "owner"):
        (home / "keys" / pin).write_text(f"{pin}-of-this-test")
    secrets = secrets_of(home, [home / "trays"])
    target = home / place_of if "." in place_of else home / place_of / "file"
    target.parent.mkdir(exist_ok=True)
    assert not found_in(files_of(home), secrets)
    for raw in (person["name"].encode(), person["name"].encode("gb18030"),
                bytes(range(200, 216)), b"H12345678"):  # fmt: skip
        for text in (raw, raw.hex().encode(), repr(raw).encode(), raw.hex(" ").upper().encode(),
                     *(base64.b64encode(b"x" * n + raw + b"yz") for n in range(3))):  # fmt: skip
            target.write_bytes(b'{"event": "' + text + b'"}')
            (finding,) = found_in(files_of(home), secrets)
            assert finding.startswith(f"{target.name}: ")
    target.write_bytes(json.dumps(person["name"]).encode())
    assert found_in(files_of(home), secrets)
