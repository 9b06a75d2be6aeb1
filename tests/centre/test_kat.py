"""`centre kat`: the known answers of others hold, and nothing but a right answer is called one."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from centre.cli import main
from centre.kat import DIFFERS, OK, REFUSED, Outcome, read, run
from centre.kat_operations import OPERATIONS, Bench, bench

VECTORS = sorted(Path(__file__).parents[1].joinpath("hsm", "vectors").glob("*.json"))
CASES = [case for file in VECTORS for case in read(file)]
SM3 = {"id": "one", "op": "sm3", "in": {"data": "616263"}}
SM3_ABC = "66c7f0f462eeedd9d1f2d46bdc10e4e24167c4875cf2f7a2297da02b8f4ba8e0"


@pytest.fixture(scope="module")
def place() -> Iterator[Bench]:
    with bench(None) as made:
        yield made


@pytest.fixture(autouse=True)
def no_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No demo was run before: a temporary token serves."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


def _kat(tmp_path: Path, content: object, *options: str) -> Result:
    file = tmp_path / "kat.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return CliRunner().invoke(main, ["kat", str(file), *options])


def test_every_known_answer_holds(place: Bench) -> None:
    """Published vectors and sessions recorded from other implementations: the source of each
    stands in its file. Every operation has some."""
    failed = [str(outcome) for outcome in run(CASES, place) if outcome.result != OK]
    assert failed == []
    assert {case["op"] for case in CASES} == set(OPERATIONS)
    assert all(case["source"] for case in CASES)


@given(st.sampled_from(CASES), st.data())
def test_another_answer_differs(place: Bench, case: dict[str, Any], data: st.DataObject) -> None:
    """Any byte of any expected answer changed: the case differs in that answer, and no other."""
    changed = copy.deepcopy(case)
    out = changed["out"]
    name = data.draw(st.sampled_from(sorted(out)))
    if name == "error":
        out[name] = "response_mac"
    else:
        holder, key = (out, name) if isinstance(out[name], str) else (out[name], 0)
        if not holder:
            return
        value = bytearray.fromhex(holder[key])
        value[data.draw(st.integers(0, len(value) - 1))] ^= data.draw(st.integers(1, 255))
        holder[key] = value.hex()
    (outcome,) = run([changed], place)
    assert outcome.result == DIFFERS
    assert [d.name for d in outcome.differences] == [name]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from(["", "00" * 16, "zz"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(CASES), JSON, st.data())
def test_a_malformed_case_is_refused_alone(
    place: Bench, case: dict[str, Any], value: object, data: st.DataObject
) -> None:
    """Anything in the place of anything: an outcome, one line, never an exception, and the case
    after it is looked at."""
    changed = copy.deepcopy(case)
    holder = data.draw(st.sampled_from([changed, changed["in"], changed["out"]]))
    name = data.draw(st.sampled_from(sorted(holder)))
    if data.draw(st.booleans()):
        holder[name] = value
    else:
        del holder[name]
    outcomes = list(run([changed, value, case], place))
    assert outcomes[2].result == OK
    assert outcomes[1].result == REFUSED
    for outcome in outcomes:
        assert isinstance(outcome, Outcome)
        assert len(str(outcome).splitlines()) == 1


def test_lines_and_exit_codes(tmp_path: Path) -> None:
    """One line a case, hex in either case, then the totals; 0 only if all held."""
    held = {**SM3, "out": {"digest": SM3_ABC}}
    differs = {**SM3, "id": "two", "out": {"digest": "00", "mac": "01"}}
    refused = {"id": "three", "op": "sm3", "in": {}, "out": {"digest": "00"}}
    unknown = {"id": "four", "op": "rot13", "in": {}, "out": {}}
    empty = {**SM3, "id": "five", "out": {}}
    result = _kat(tmp_path, {"format": 1, "cases": [held, differs, refused, unknown, empty]})
    assert result.output.splitlines() == [
        "one ok",
        f"two differs digest expected 00 got {SM3_ABC.upper()}; mac expected 01 got -",
        "three refused data is missing",
        "four unknown op",
        "five refused out names nothing to compare",
        "1 held, 1 differ, 2 refused, 1 unknown",
    ]
    assert result.exit_code == 1
    upper = {**SM3, "out": {"digest": SM3_ABC.upper()}}
    assert _kat(tmp_path, {"format": 1, "cases": [held, upper]}).exit_code == 0
    assert _kat(tmp_path, {"format": 1, "cases": [held, unknown]}).exit_code == 1


def test_for_programs(tmp_path: Path) -> None:
    """--json: the same, with each difference by name."""
    case = {**SM3, "out": {"digest": "00"}}
    result = _kat(tmp_path, {"format": 1, "cases": [case]}, "--json")
    facts = json.loads(result.output)
    assert (facts["held"], facts["differ"], result.exit_code) == (0, 1, 1)
    assert facts["cases"][0]["differences"] == [
        {"name": "digest", "expected": "00", "got": SM3_ABC.upper()}
    ]


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"format": 2, "cases": []}', '{"format": 1}', "[" * 100_000]
)
def test_a_malformed_file_is_told(tmp_path: Path, content: str) -> None:
    """No JSON, another format, no cases: one line that names the file, exit code 2."""
    result = _kat(tmp_path, content)
    assert result.exit_code == 2
    assert "kat.json" in result.output
    assert len(result.output.splitlines()) == 1


def test_a_wrong_cryptogram_is_an_answer(place: Bench) -> None:
    """A chip with other keys is the answer `error`, not a refusal; what was expected of the
    channel differs."""
    case = next(case for case in CASES if case["id"] == "pysim-scp02-wrong-cryptogram")
    expecting = {**case, "out": {"wrapped": []}}
    (outcome,) = run([expecting], place)
    assert str(outcome) == f"{case['id']} differs wrapped expected [] got error card_cryptogram"


def test_the_token_of_a_home_serves(place: Bench, tmp_path: Path) -> None:
    """With a home its own token holds the keys, which leave nothing there. A home that is named
    and has no token is told; nothing takes its place."""
    place.close()
    home = tmp_path / "home"
    assert CliRunner().invoke(main, ["init", "--home", str(home)]).exit_code == 0
    tokens = sorted(str(file) for file in (home / "keys").rglob("*.object"))
    assert tokens
    case = next(case for case in CASES if case["op"] == "diversify" and "3des" in case["id"])
    content = {"format": 1, "cases": [case]}
    result = _kat(tmp_path, content, "--home", str(home), "--json")
    assert json.loads(result.output)["token"] == "home"
    assert result.exit_code == 0
    assert sorted(str(file) for file in (home / "keys").rglob("*.object")) == tokens
    assert _kat(tmp_path, content, "--home", str(tmp_path / "none")).exit_code == 2
