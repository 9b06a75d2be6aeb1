"""Checks of what keys are refused for: usages, states of versions, formal keys on the chip."""

from __future__ import annotations

import os

from actors.hsm import labels
from actors.hsm.masters import MasterState
from domain.card.profile import Proof
from domain.codes import Code
from domain.provider import (
    Answer,
    Authenticate,
    FormalVersion,
    KeyChange,
    KeySet,
    KeyStanding,
    Prove,
    ProveCheckValue,
    Request,
    Where,
)
from tests.conformance.provider_specimen import Specimen, chip_of, take_keys


def check_usages(s: Specimen) -> None:
    """A key does what its usage says: only the temporary loading key authenticates, of the formal
    ones those that the chip checks; only keys of INTERNAL AUTHENTICATE are proven by it."""
    take_keys(s, "usages")
    chip, data = chip_of("usages", 1), os.urandom(8)
    refused: dict[str, set[str]] = {"temporary": set(), "formal": set(), "prove": set()}
    for slot in s.profile.keys:
        usage = slot.usage
        temporary, formal, prove = s.provider.perform(
            [
                Authenticate(chip, KeySet.TEMPORARY, usage, data),
                Authenticate(chip, KeySet.FORMAL, usage, data),
                Prove(chip, KeySet.FORMAL, usage, bytes(s.card.block), bytes(s.card.block)),
            ]
        )
        for name, answer in (("temporary", temporary), ("formal", formal), ("prove", prove)):
            assert answer.refused in ("", Code.KEY_USAGE_REFUSED)
            if answer.refused:
                assert answer == Answer(refused=answer.refused)
                refused[name].add(usage)
    slots = s.profile.keys
    checked = {k.usage for k in slots if k.proof is Proof.EXTERNAL} | {s.profile.external_usage}
    proving = {k.usage for k in slots if k.proof is Proof.INTERNAL} | {s.profile.internal_usage}
    usages = {k.usage for k in slots}
    assert refused["temporary"] == usages - {s.profile.loading_usage}
    assert refused["formal"] == usages - checked
    assert refused["prove"] == usages - proving


def check_no_temporary_key_after_formal_ones(s: Specimen) -> None:
    """A chip that the ledger knows to carry formal keys is refused every temporary one; the ledger
    is asked once a chunk. Its formal keys go on serving."""
    take_keys(s, "done")
    done, other = chip_of("done", 1), chip_of("done", 2)
    s.records.standings[done.identification_code] = KeyStanding(begun=True, replaced=True)
    value, block = bytes(3), bytes(s.card.block)
    s.records.asked.clear()
    answers = s.provider.perform(
        [
            request
            for chip in (done, other)
            for request in (
                Authenticate(chip, KeySet.TEMPORARY, "MK", bytes(8)),
                KeyChange(chip, "IRK", bytes(8)),
                Prove(chip, KeySet.TEMPORARY, "IRK", block, block),
                ProveCheckValue(chip, "MK", 0, value, KeySet.TEMPORARY),
                ProveCheckValue(chip, "MK", 0, value),
            )
        ]
    )
    del s.records.standings[done.identification_code]
    wanted = [Code.KEY_TEMPORARY_REFUSED] * 4 + [""] * 6
    assert [a.refused for a in answers] == wanted
    assert len(s.records.asked) == 1


def check_operations(s: Specimen) -> None:
    """Each is named once; what is not in the token says why."""
    operations = s.provider.operations()
    assert len({o.name for o in operations}) == len(operations)
    assert all(bool(o.note) == (o.where is Where.SOFTWARE) for o in operations)


def check_versions(s: Specimen) -> None:
    """A staged set serves nobody; the active one serves; the retired one only chips that carry it
    already or were begun with it. Activation shows with the last usage."""
    take_keys(s, "versions")
    fresh, begun = chip_of("versions", 1), chip_of("versions", 2)
    s.records.standings[begun.identification_code] = KeyStanding(begun=True)
    usages = [slot.usage for slot in s.profile.keys]

    def ask(version: int) -> list[Answer]:
        return s.provider.perform(
            [
                KeyChange(fresh, "EAK", bytes(8), version),
                KeyChange(begun, "EAK", bytes(8), version),
                Authenticate(fresh, KeySet.FORMAL, "EAK", bytes(8), version),
                ProveCheckValue(fresh, "EAK", version, bytes(3)),
                FormalVersion(),
            ]
        )

    first = ask(0)
    assert [a.version for a in first] == [1] * 5
    assert ask(1) == first
    assert [a.refused for a in ask(2)] == [Code.KEY_UNKNOWN] * 4 + [""]
    for usage in usages:
        s.masters.create(labels.formal(usage, 2), os.urandom(16), MasterState.STAGED)
    assert [a.refused for a in ask(2)] == [Code.KEY_NOT_ACTIVE] * 4 + [""]
    for usage in usages[:-1]:
        s.masters.set_state(labels.formal(usage, 2), MasterState.ACTIVE)
    assert ask(0) == first
    s.masters.set_state(labels.formal(usages[-1], 2), MasterState.ACTIVE)
    second = ask(0)
    assert ask(2) == second
    assert [a.version for a in second] == [2] * 5
    assert all(a.data != b.data for a, b in zip(first[:3], second[:3], strict=True))
    # Whether the first was retired yet or not, it serves as a retired one.
    for _ in range(2):
        again = ask(1)
        assert [a.refused for a in again] == [Code.KEY_NOT_ACTIVE, "", "", "", ""]
        assert again[1:4] == first[1:4]
        for usage in usages:
            s.masters.set_state(labels.formal(usage, 1), MasterState.RETIRED)
    for usage in usages:
        s.masters.destroy(labels.formal(usage, 1))
    assert [a.refused for a in ask(1)] == [Code.KEY_UNKNOWN] * 4 + [""]
    del s.records.standings[begun.identification_code]


def check_without_active_set(s: Specimen) -> None:
    """While no version is active, formal keys serve nobody, and it is said; runs last."""
    take_keys(s, "inactive")
    usage = s.profile.loading_usage
    (label,) = [x for x in s.masters.labels() if x.startswith(f"formal:{usage}:")]
    s.masters.destroy(label)
    s.masters.create(label, os.urandom(16), MasterState.STAGED)
    chip = chip_of("inactive", 1)
    requests: list[Request] = [
        FormalVersion(),
        KeyChange(chip, "IRK", bytes(8)),
        Authenticate(chip, KeySet.FORMAL, "EAK", bytes(8)),
        Authenticate(chip, KeySet.TEMPORARY, usage, bytes(8)),
    ]
    answers = s.provider.perform(requests)
    assert [a.refused for a in answers] == [Code.KEY_NOT_ACTIVE] * 3 + [""]
