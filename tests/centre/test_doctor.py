"""The doctor finds what is amiss, names what mends it, and says no secret."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from centre import doctor_people, machine
from centre.config import Config
from centre.doctor import SYSTEM_FILES, Diagnosis, examine
from centre.doctor_people import differences
from centre.findings import State
from centre.home import initialise
from domain.provider import KeyEntry, KnownKey
from ledger.connection import connect, ledger_file

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A home as `centre init` makes it."""
    return initialise(tmp_path_factory.mktemp("home") / "centre")


def found(diagnosis: Diagnosis) -> dict[str, State]:
    return {f.part: f.state for f in diagnosis.findings}


def test_a_new_home_is_well_although_nothing_runs(config: Config) -> None:
    """Ledger and token open, the self test holds, every key is there; a centre that is down is
    named with the command that brings it up, and is no fault."""
    diagnosis = examine(config.home)
    parts = {f.part: f for f in diagnosis.findings}
    assert diagnosis.well, [f for f in diagnosis.findings if f.state is State.MEND]
    assert "FULL" in parts["ledger"].note
    assert parts["token"].software_assisted is True
    assert re.search(
        r"12/12.*head 1, index 1, transport 1, wrap 1; .*no formal keys", parts["token"].note
    )
    assert parts["centre"].state is State.DOWN
    assert parts["centre"].mend == f"centre up --home {config.home}"
    text = json.dumps(diagnosis.as_json())
    for pin in (config.pin_file, config.pin_file.with_name("so-pin")):
        assert pin.read_text() not in text


def test_a_token_that_is_not_what_the_ledger_says_is_found() -> None:
    """A key became another one, is in another state, is lost, or came past the centre; keys that
    no act is about, and destroyed ones, are no difference."""
    known = {
        "kek:v1": KnownKey("active", "AAAAAA"),
        "kek:v2": KnownKey("staged", "BBBBBB"),
        "bank:102:kmc:v1": KnownKey("retired", "CCCCCC"),
        "temporary:B:MK:v0": KnownKey("destroyed", "DDDDDD"),
        "head": KnownKey("staged", "EEEEEE"),
    }
    held = [("kek:v1", "active", "FFFFFF"), ("kek:v2", "active", "BBBBBB"),
            ("temporary:B:MK:v0", "staged", "DDDDDD"), ("data:B", "active", ""),
            ("head", "active", "EEEEEE")]  # fmt: skip
    entries = [KeyEntry(label, "", 0, "", state, value) for label, state, value in held]
    assert [which for _, which in differences(entries, known).items()] == [
        ["kek:v1"], ["kek:v2"], ["bank:102:kmc:v1"], ["temporary:B:MK:v0"],
    ]  # fmt: skip
    assert differences([], {}) == {}


def test_without_a_home_the_machine_is_looked_at(tmp_path: Path) -> None:
    """Before `centre init` and in a directory that is no home: parts of the machine, and what to
    do next; no exception."""
    assert examine(None).well
    diagnosis = examine(tmp_path)
    assert not diagnosis.well
    (configuration,) = [f for f in diagnosis.findings if f.part == "configuration"]
    assert configuration.state is State.MEND
    assert configuration.mend == f"centre init --home {tmp_path}"


def settings(config: Config, **changed: str) -> Diagnosis:
    """What the doctor finds with other settings in the file."""
    file = config.home / "centre.toml"
    before = file.read_text("utf-8")
    after = before
    for name, value in changed.items():
        after, found = re.subn(f"^{name} = .*$", f"{name} = {value}", after, flags=re.MULTILINE)
        assert found == 1, name
    file.write_text(after, "utf-8")
    try:
        return examine(config.home)
    finally:
        file.write_text(before, "utf-8")


def test_every_operation_is_listed_with_where_it_is_done(config: Config) -> None:
    """In the token, or in memory and why; forbidden, it names what would stop. SM4 masters are
    never said to be in the token."""
    (allowed,) = [f for f in examine(config.home).findings if f.part == "operations"]
    assert allowed.state is State.OK
    assert allowed.software_assisted is True
    where = {o.name: o.where for o in allowed.operations}
    assert where["derive_city_key"] == where["sign"] == "token"
    assert where["answer_chips"] == "software-assisted"
    forbidden_too = settings(config, software_assisted='"forbidden"', profile='"ssc-sm4"')
    (forbidden,) = [f for f in forbidden_too.findings if f.part == "operations"]
    assert forbidden.state is State.NOTICE
    assert all(name in forbidden.note for name in ("derive_city_key", "answer_chips"))
    assert "sign" not in forbidden.note
    listed = {p["part"]: p for p in forbidden_too.as_json()["parts"]}["operations"]["operations"]
    assert {"name": "sign", "where": "token", "note": ""} in listed
    json.dumps(listed)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("software_assisted", '"perhaps"', "allowed"),
        ("sm4_device", '"no/such/library.so"', "does not exist"),
        ("sdf_kek", "0", "index"),
    ],
)
def test_a_wrong_setting_of_keys_is_named(
    config: Config, name: str, value: str, words: str
) -> None:
    """Place, name and what to write instead."""
    parts = {f.part: f for f in settings(config, **{name: value}).findings}
    assert parts["configuration"].state is State.MEND
    assert name in parts["configuration"].note
    assert words in parts["configuration"].note


@pytest.fixture
def loose_pin(config: Config) -> Iterator[None]:
    config.pin_file.chmod(0o644)
    yield
    config.pin_file.chmod(0o600)


@pytest.mark.usefixtures("loose_pin")
def test_a_pin_that_others_can_read_is_to_be_mended(config: Config) -> None:
    """The token is not opened with it; the command given closes it to others."""
    diagnosis = examine(config.home)
    (token,) = [f for f in diagnosis.findings if f.part == "token"]
    assert token.state is State.MEND
    assert token.mend == f"chmod 600 {config.pin_file}"
    assert not diagnosis.well


@pytest.fixture
def other_schema(config: Config) -> Iterator[None]:
    connection = connect(config.ledger, write=True)
    connection.execute("update ledger_version set version = version + 1").close()
    yield
    connection.execute("update ledger_version set version = version - 1").close()
    connection.close()


@pytest.mark.usefixtures("other_schema")
def test_a_ledger_of_another_schema_is_to_be_mended(config: Config) -> None:
    """It is told, and the rest is looked at all the same."""
    parts = found(examine(config.home))
    assert parts["ledger"] is State.MEND
    assert parts["token"] is State.OK


def test_custodians_who_share_an_os_account_are_named(config: Config) -> None:
    """With the centre's own account or with each other: then one account can bring both components
    together. With accounts of their own, there is nothing to say."""
    centre, connection = os.getuid(), connect(config.ledger, write=True)
    try:
        for name in ("ke", "kang"):
            connection.execute(
                "insert into person values (?, 'key_custodian', '', 'active', 0, '', 0)", name
            ).close()
        number = 0
        for one, other, shared in ((1, 2, ""), (1, 1, "kang, ke"), (0, 2, "ke"), (1, 2, "")):
            for name, uid in (("ke", centre + one), ("kang", centre + other)):
                number += 1
                connection.execute(
                    "insert into login values (?, ?, ?, '', '', ?)",
                    f"S{number:06d}", f"{number}", name, f"uid {uid} /dev/pts/{number}",
                ).close()  # fmt: skip
            finding = doctor_people.apart(config)
            assert finding.state is (State.NOTICE if shared else State.OK)
            assert not shared or f": {shared};" in finding.note
    finally:
        connection.execute("delete from person").close()
        connection.execute("delete from login").close()
        connection.close()


def test_a_missing_ledger_is_not_made_by_looking(config: Config) -> None:
    """The doctor changes nothing: what was away is away afterwards."""
    file = ledger_file(config.ledger)
    assert file is not None
    away = file.with_name("away.db")
    file.rename(away)
    try:
        assert found(examine(config.home))["ledger"] is State.MEND
        assert not file.exists()
    finally:
        away.rename(file)


def test_ports_that_others_reach_are_told_from_loopback() -> None:
    """Both families, as the kernel has them, of this process and its children."""
    with (
        socket.create_server(("127.0.0.1", 0)) as own,
        socket.create_server(("0.0.0.0", 0)) as every,
        socket.create_server(("::", 0), family=socket.AF_INET6) as every_6,
        socket.create_server(("::1", 0), family=socket.AF_INET6) as own_6,
    ):
        exposed = {p.port: p.exposed for p in machine.ports([os.getpid()])}
        expected = {own: False, every: True, every_6: True, own_6: False}
        for listening, is_exposed in expected.items():
            assert exposed[listening.getsockname()[1]] is is_exposed
    with subprocess.Popen(["sleep", "60"]) as child:
        assert child.pid in machine.descendants(os.getpid())
        assert child.pid in machine.named("sleep")
        child.kill()


def test_what_the_doctor_looks_for_is_what_setup_installs() -> None:
    """Same packages, same files: what is missing here is mended there."""
    setup = (ROOT / "deploy" / "setup").read_text("utf-8")
    listed = dict(re.findall(r'^    "(\S+) +(/\S+)"$', setup, re.MULTILINE))
    for part, _, path, package, _ in SYSTEM_FILES:
        assert package in listed, part
        assert Path(path).parent == Path(listed[package]).parent
