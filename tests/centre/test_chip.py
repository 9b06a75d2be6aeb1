"""`centre chip`: what a chip is, and what is wrong with it, by reading alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from centre.chip import Chip, examine, known_profiles
from counterparts.bank_side import finished
from domain.codes import Code
from station_agents.virtual.pcscd import Pcscd
from tests.agent.floor import ROOT, AgentProcess, ScriptedCentre, tray_of
from tests.virtual.floor import EAK, IRK, MK, PROFILE, STK, card_line

HOLDER = {
    "social_card_number": "A87654321", "identity_number": "430102199003077777", "name": "欧阳修",
    "birth_date": "19900307",
}  # fmt: skip
MASKED = {
    "social_card_number": "*****4321", "identity_number": "**************7777", "name": "欧**",
    "birth_date": "1990****",
}  # fmt: skip
CARD_NUMBER = "6217001234564567"
READS = {0xA4, 0xB2, 0xCA}
"""SELECT, READ RECORD, GET DATA: none of them changes a chip."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pcscd]:
    with Pcscd(tmp_path_factory.mktemp("p"), 6) as service:
        yield service


def held_by(card: dict[str, Any], holder: dict[str, str]) -> dict[str, Any]:
    for name, text in holder.items():
        item = PROFILE.fields[name]
        file = card["social"]["records"].setdefault(f"{item.file:02X}", {})
        file[f"{item.tag:02X}"] = item.encode(text).hex()
    return card


def with_keys(card: dict[str, Any], **versions_and_tries: tuple[int, int]) -> dict[str, Any]:
    for usage, (version, tries) in versions_and_tries.items():
        key = next(k for k in card["social"]["keys"] if k["id"] == PROFILE.key(usage).key_id)
        key["version"], key["tries_left"] = version, tries
    return card


def chip(service: Pcscd, *lines: list[str]) -> list[tuple[int, str, str]]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.centre.chip_client"],
        input=json.dumps(lines),
        env={**os.environ, **service.environment, "PYTHONPATH": str(ROOT), "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        timeout=60,
        check=True,
        text=True,
    )
    return [(code, out, err) for code, out, err in json.loads(done.stdout)]


FORMAL = {slot.usage: (3, slot.tries) for slot in PROFILE.keys}


def test_a_chip_is_told_in_words(service: Pcscd, short_directory: Path) -> None:
    """Over a real PC/SC service: profile, identification code, keys with their state, holder
    masked; for each thing that is wrong its code and next step; exit code 0 or 1. No number or
    name of a holder is in any output. An empty reader, or one whose chip is so dead that the
    service sees no card, is 3; an unclear one 2."""
    bad_name = held_by(card_line(3), {"identity_number": HOLDER["identity_number"]})
    bad_name["social"]["records"]["06"]["09"] = "ff" * 30
    bad_name["social"]["pin"] = ["666666", 6, 0]
    banked: Any = SimpleNamespace(bank_card_number=CARD_NUMBER, identification_code="0" * 32)
    cards = [
        {**held_by(card_line(0), HOLDER), "financial": finished(banked)},
        with_keys(held_by(card_line(1), HOLDER), **FORMAL),
        with_keys(held_by(card_line(2), HOLDER), MK=(1, 5), EAK=(0, 0), IRK=(0, 1)),
        bad_name,
        card_line(4, silent=True),
    ]
    wrong = [
        [], [], [Code.KEY_BLOCKED, Code.KEY_COUNTER_LOW, Code.KEYS_MIXED],
        [Code.PIN_LOCKED, Code.BAD_CODING], [Code.READER_EMPTY], [Code.READER_EMPTY],
    ]  # fmt: skip
    lines = [["--reader", name, "--json"] for name in service.readers]
    with tray_of(service, short_directory, *cards) as tray:
        done = chip(service, ["--list", "--json"], *lines, lines[0][:2], [])
        assert tray.ask("status")["stacks"]["good"] == 0
    listed = {r["name"]: r["card"] for r in json.loads(done[0][1])}
    assert [listed[name] for name in service.readers] == [True] * 4 + [False] * 2
    found = [json.loads(out) for _, out, _ in done[1:7]]
    assert [code for code, _, _ in done] == [0, 0, 0, 1, 1, 3, 3, 0, 2]
    assert [[w["code"] for w in f["wrong"]] for f in found] == wrong
    assert all(w["next_step"] for f in found for w in f["wrong"])
    first, second = found[:2]
    assert (first["profile"], first["keys_are"], first["holder"]) == (
        PROFILE.id, "temporary", MASKED,
    )  # fmt: skip
    assert first["identification_code"] == "430100D1560000050000000000000000"
    assert (first["life_cycle"], first["pin_tries_left"]) == ("temporary_keys", 6)
    assert first["applications"] == [
        {"aid": "A000000333010101", "label": "UnionPay Debit", "blocked": False,
         "card_number": "************4567"}
    ]  # fmt: skip
    assert first["dfs"] == [df.name for df in PROFILE.dfs.values()]
    assert (second["keys_are"], second["key_version"]) == ("formal", 3)
    assert second["life_cycle"] == "personalized"
    page = done[7][1]
    assert all(text in page for text in ("临时", *MASKED.values()))
    for _, out, err in done:
        assert not any(text in out + err for text in [CARD_NUMBER, *HOLDER.values()])


def test_what_keeps_a_chip_from_being_read_is_said(
    service: Pcscd, short_directory: Path, free_port: Callable[[], int]
) -> None:
    """A reader that a station agent has, one that hangs, and no PC/SC service: each with its own
    words, exit code 3."""
    with (
        tray_of(service, short_directory, card_line(0), card_line(1)) as tray,
        ScriptedCentre(free_port(), lambda turn: None) as centre,
        AgentProcess(service, tray.control, centre.address, short_directory) as agent,
    ):
        centre.until(lambda turns: turns)
        tray.ask("hang", reader=1, after=2)
        busy, hangs = chip(
            service,
            ["--json", "--reader", service.readers[0]],
            ["--json", "--reader", service.readers[1], "--seconds", "0.5"],
        )
        tray.ask("replug", reader=1)
        assert agent.stop() == 0
    (away,) = chip(service, ["--json", "--socket", str(short_directory / "nobody")])
    for (code, out, _), wanted in zip(
        (busy, hangs, away), (Code.READER_BUSY, Code.READER_AWAY, Code.PCSC_AWAY), strict=True
    ):
        assert (code, json.loads(out)["wrong"][0]["code"]) == (3, wanted)


def table_of(**answers: str) -> Callable[[bytes], tuple[bytes, int]]:
    known = {bytes.fromhex(k.strip("_")): bytes.fromhex(v) for k, v in answers.items()}

    def transmit(apdu: bytes) -> tuple[bytes, int]:
        answer = known.get(apdu, b"\x6a\x82")
        return answer[:-2], int.from_bytes(answer[-2:], "big")

    return transmit


def test_payment_applications_are_told_with_their_number_masked() -> None:
    """What the directory lists is selected; the number comes from a record, masked; a blocked
    application is said to be. A card without a social application says so."""
    debit, other = "A000000333010101", "A000000333010102"
    chip = examine(
        table_of(
            **{
                "00A404000E325041592E5359532E444446303100":
                    "6F25BF0C2261104F08" + debit + "500450424F43" + "610A4F08" + other + "9000",
                "00A4040008" + debit + "00": "6F0A8408" + debit + "9000",
                "00B2011400": "700A5A086217001234567891" + "9000",
                "00B2010C00": "70009000",
                "00A4040008" + other + "00": "6283",
            }
        ),
        known_profiles(),
    )  # fmt: skip
    assert [(a.aid, a.blocked, a.card_number) for a in chip.applications] == [
        (debit, False, "************7891"), (other, True, ""),
    ]  # fmt: skip
    assert [w.code for w in chip.wrong] == [Code.APPLICATION_MISSING, Code.APPLICATION_BLOCKED]


def test_a_mixed_set_is_one_that_key_replacement_does_not_leave() -> None:
    """Temporary keys beside formal ones of one version are an interrupted replacement while the
    loading key is temporary; else, or with two formal versions or a key missing, they are mixed."""
    assert keys_of({STK: 1}) == ("unfinished", [Code.KEYS_UNFINISHED])
    assert keys_of({MK: 1}) == ("mixed", [Code.KEYS_MIXED])
    assert keys_of({STK: 1, EAK: 2}) == ("mixed", [Code.KEYS_MIXED])
    assert keys_of({IRK: None}) == ("mixed", [Code.KEYS_MIXED])
    assert keys_of({slot.key_id: 2 for slot in PROFILE.keys}) == ("formal", [])


def keys_of(versions: dict[int, int | None]) -> tuple[str, list[str]]:
    items = ""
    for slot in PROFILE.keys:
        version = versions.get(slot.key_id, 0)
        if version is not None:
            items += f"C008{slot.key_id:02X}{version:02X}8010{slot.tries:02X}ABCDEF"
    select = f"00A40400{len(PROFILE.aid):02X}{PROFILE.aid.hex()}"
    chip = examine(
        table_of(**{select: "9000", "80CA00E000": f"E0{len(items) // 2:02X}{items}9000"}),
        known_profiles(),
    )
    return chip.keys_are, [w.code for w in chip.wrong if w.code.startswith("KEY")]


_answer = st.tuples(st.binary(max_size=258), st.sampled_from([0x9000, 0x9000, 0x6283, 0x6A82]))


@given(st.lists(_answer, max_size=60))
def test_any_answers_are_read_to_the_end_and_nothing_is_written(
    answers: list[tuple[bytes, int]],
) -> None:
    """Whatever a chip answers is told and never raises; only commands that read are sent."""
    coming, sent = iter(answers), set()

    def transmit(apdu: bytes) -> tuple[bytes, int]:
        sent.add(apdu[1])
        return next(coming, (b"", 0x6A82))

    assert isinstance(examine(transmit, known_profiles()), Chip)
    assert sent <= READS
