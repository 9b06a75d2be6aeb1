"""The commands that look, on a finished demo and on a centre that is up."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from centre.demo_terminal import Said, Terminal
from proof.evidence import Evidence
from tests.demo.running import centre, environment

# Whoever comes first waits for the demo.
pytestmark = pytest.mark.timeout(240)


def test_an_order_is_found_by_its_number(finished: Path, place: Path) -> None:
    """While the centre is down `centre find` opens the token itself: a number that is piped in
    leads to its order and the history of its card; one that nobody has ends with 1, one with a
    wrong check digit with 2. No number is repeated."""
    e = Evidence.read(finished)
    shipped = {r.get("order_id") for r in e.lines if r["result"] == "shipped"}
    record = next(r for r in e.records if r["order_id"] in shipped)
    for number in (f" {record['bank_card_number'][:4]} {record['bank_card_number'][4:]}\n",
                   record["social_card_number"].lower()):  # fmt: skip
        found = centre(place, "find", typed=number)
        assert found.returncode == 0, found.stderr
        assert record["order_id"] in found.stdout
        assert "handed to the courier" in found.stdout
        assert "".join(number.split()).upper() not in (found.stdout + found.stderr).upper()
    # The example of GB 11643 itself, and the same with another check digit.
    nobody = centre(place, "find", typed="11010519491231002X\n")
    assert (nobody.returncode, nobody.stdout) == (1, "")
    wrong = centre(place, "find", typed="110105194912310021\n")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "GB 11643" in wrong.stderr
    assert "110105194912310021" not in wrong.stderr


def test_a_centre_goes_up_and_down_by_itself(finished: Path, place: Path) -> None:
    """`centre up` from a plain shell, on a home that was moved: `status` says so, SIGINT stops it
    cleanly; after a SIGKILL `status` does not believe what was left behind."""
    home = place / "moved"
    shutil.copytree(finished, home)
    for end in (signal.SIGINT, signal.SIGKILL):
        process = subprocess.Popen(
            [sys.executable, "-m", "centre", "up", "--home", str(home)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={k: v for k, v in environment(place).items() if not k.startswith("RAY_")},
            start_new_session=True,
        )
        assert process.stdout is not None
        with _ended(process), process.stdout:
            assert any("ready" in line for line in process.stdout)
            assert centre(place, "status", "--home", str(home)).returncode == 0
            if end == signal.SIGINT:
                look_at_a_running_centre(home, place)
            assert centre(place, "up", "--home", str(home)).returncode == 1
            process.send_signal(end)
            assert process.wait(30) == (0 if end == signal.SIGINT else -signal.SIGKILL)
        assert centre(place, "status", "--home", str(home)).returncode == 3
        assert centre(place, "sign-for", "D1", "C1=1", "--home", str(home)).returncode == 3
    assert centre(place, "verify", "--home", str(home)).returncode == 0


@contextmanager
def _ended(process: subprocess.Popen[str]) -> Iterator[None]:
    """Whatever fails, no centre stays behind."""
    try:
        yield
    finally:
        process.kill()
        process.wait()


def look_at_a_running_centre(home: Path, place: Path) -> None:
    """The commands that ask the running centre: what it says of itself is what is."""
    status = json.loads(centre(place, "status", "--json", "--home", str(home)).stdout)
    assert status["ready"] is True
    assert {p["name"] for p in status["parts"]} >= {"ledger", "provider-0", "gateway", "sorting"}
    # In the vault lie the cards whose return never comes.
    bodies = sum(p["bodies"] for p in status["places"] if p["place"] != "inventory/vault")
    assert bodies == Evidence.read(home).summary["received"]
    watched = centre(place, "watch", "--once", "--home", str(home))
    assert watched.returncode == 0
    # The bad wafer's lot waits for two inspectors; open lines of returns, for others.
    assert "what stands still: 1" in watched.stdout, watched.stdout
    assert "LOT_REFUSED" in watched.stdout
    assert "open lines of returns" in watched.stdout
    examined = centre(place, "doctor", "--json", "--home", str(home))
    assert examined.returncode == 0, examined.stdout
    diagnosis = json.loads(examined.stdout)
    parts = {p["part"]: p for p in diagnosis["parts"]}
    assert parts["doors"]["reachable"] is True
    assert parts["ray_token"]["configured"] is True
    assert parts["actor_sorting"]["state"] == "ok"
    # Ray opens ports on every interface: each of them is one to close. The doors' is not.
    close = {p["port"] for p in diagnosis["ports"] if p["close"]}
    assert len({p["process"] for p in diagnosis["ports"] if p["close"]} & RAY_PROCESSES) >= 2
    assert int(status["listen"].rpartition(":")[2]) not in close
    record = Evidence.read(home).records[0]
    found = centre(place, "find", "--home", str(home), typed=record["identity_number"])
    assert record["order_id"] in found.stdout
    # A closed package is compared all the same: nothing was scanned, so it differs.
    package = next(r["package"] for r in Evidence.read(home).lines if r["package"])
    scanned = centre(place, "scan", package, "--home", str(home))
    assert json.loads(scanned.stdout.splitlines()[-1])["code"] == "PACKAGE_DIFFERS"
    keep_keys(home)


def keep_keys(home: Path) -> None:
    """Two custodians of the demo at their terminals: a KEK, a backup under it, the next version of
    the province's keys; the first one stays while cards on hold carry it."""
    passwords = json.loads((home / "people" / "passwords.json").read_text("ascii"))
    one, other = (
        Terminal(home, home / "people" / f"{name}.session", home / "log" / "people.out")
        for name in ("custodian-1", "custodian-2")
    )
    with closing(one), closing(other):
        for name, terminal in (("custodian-1", one), ("custodian-2", other)):
            assert terminal.run(("login", name), passwords[name]).code == 0
            assert name in terminal.run(("whoami",)).said

        def both(*command: str) -> Said:
            """By component files where components are made."""
            files = (home / "people" / n for n in ("first.component", "second.component"))
            parts = [("--component-file", str(f)) if command[1] in ("generate", "rotate") else ()
                     for f in files]  # fmt: skip
            proposed = one.run((*command, *parts[0]))
            assert proposed.code == 0, proposed.said
            done = other.run(("act", "confirm", proposed.said.split()[0], *parts[1]))
            for part in filter(None, parts):
                Path(part[1]).unlink()
            return done

        for command in (
            ("key", "generate", "kek"),
            ("key", "activate", "kek", "--version", "1"),
            ("key", "backup"),
            ("key", "rotate", "formal"),
            ("key", "activate", "formal", "--version", "2"),
        ):
            assert ": done" in both(*command).said
        (backup,) = (home / "exchange").glob("backup-A*.json")
        assert backup.stat().st_mode & 0o077 == 0
        in_use = one.run(("key", "destroy", "formal", "--version", "1"))
        assert (in_use.code, in_use.said.partition(":")[0]) == (1, "KEY_IN_USE")
        keys = json.loads(one.run(("key", "inventory", "--json")).said)
        states = {(k["label"].partition(":")[0], k["version"]): k["state"] for k in keys}
        assert states["formal", 1] == "retired"
        assert states["formal", 2] == "active"
        assert states["kek", 1] == "active"


RAY_PROCESSES = {"gcs_server", "raylet"}
