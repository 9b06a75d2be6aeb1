"""What masters must do wherever they live: `check_masters(make)`.

The suite plays custodians and factory: it knows the values of keys that it brings, and computes
what is derived from them with cryptography of its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import pytest
from Crypto.Cipher import PKCS1_OAEP
from Crypto.PublicKey import RSA

from actors.hsm.masters import Masters, MasterState
from actors.hsm.self_test import run_self_test
from actors.hsm.token import KeyToken
from actors.hsm.transport import NotAKey
from tests.conformance.card_side import CARDS, CardCipher

CITY, OTHER_CITY = b"430100sx", b"430200sx"


@dataclass(frozen=True)
class MastersSpecimen:
    """Masters over an open token with a transport pair and a wrapping key, without masters.
    `reopen` closes the session; the next use opens another."""

    masters: Masters
    token: KeyToken
    transport_public_key: bytes

    @property
    def card(self) -> CardCipher:
        return CARDS[self.masters.suite.name]

    def sealed(self, key: bytes) -> bytes:
        return PKCS1_OAEP.new(RSA.import_key(self.transport_public_key)).encrypt(key)

    def reopen(self) -> None:
        self.token.close()
        self.masters.forget()


Make = Callable[[], AbstractContextManager[MastersSpecimen]]


def check_masters(make: Make) -> None:
    """Run every check over one specimen; each uses labels of its own."""
    with make() as specimen:
        for check in CHECKS:
            check(specimen)


def _chips(count: int) -> list[bytes]:
    return [os.urandom(8) for _ in range(count)]


def check_derives_as_the_chip_does(s: MastersSpecimen) -> None:
    """Two levels, many chips in one call, in their order, before and after a new session."""
    key, chips = os.urandom(16), _chips(300)
    s.masters.create("formal:derive:v1", key, MasterState.ACTIVE)
    for _ in range(2):
        for city in (CITY, OTHER_CITY):
            wanted = [s.card.diversify(key, city, chip) for chip in chips]
            got = s.masters.chip_keys("formal:derive:v1", city, chips)
            # Parity bits of DES keys say nothing: what they encipher counts.
            assert [s.card.check_value(k) for k in got] == [s.card.check_value(k) for k in wanted]
        s.reopen()


def check_check_values(s: MastersSpecimen) -> None:
    """A block of 00 under the master; its first three bytes in hex."""
    key = os.urandom(16)
    s.masters.create("formal:check:v1", key, MasterState.STAGED)
    block = s.card.encipher(key, bytes(s.card.block))
    assert s.masters.check_block("formal:check:v1") == block
    assert s.masters.check_value("formal:check:v1") == block[:3].hex().upper()


def check_takes_sealed_keys(s: MastersSpecimen) -> None:
    """A key under the transport key is tried without a trace, then taken; what is no key is
    refused and leaves nothing."""
    key = os.urandom(16)
    before = s.masters.labels()
    assert s.masters.try_sealed(s.sealed(key)) == s.card.encipher(key, bytes(s.card.block))
    for bad in (b"", os.urandom(384), s.sealed(os.urandom(8)), s.sealed(os.urandom(32))):
        with pytest.raises(NotAKey):
            s.masters.try_sealed(bad)
        with pytest.raises(NotAKey):
            s.masters.take_sealed("temporary:bad:MK:v0", bad, MasterState.ACTIVE)
    assert s.masters.labels() == before
    s.masters.take_sealed("temporary:good:MK:v0", s.sealed(key), MasterState.ACTIVE)
    assert s.masters.check_value("temporary:good:MK:v0") == s.card.check_value(key).hex().upper()


def check_states(s: MastersSpecimen) -> None:
    """A state stays as it was set, through new sessions; the key does not change with it."""
    label = "formal:states:v1"
    assert s.masters.state(label) == ""
    s.masters.create(label, os.urandom(16), MasterState.STAGED)
    value = s.masters.check_value(label)
    for state in MasterState:
        s.masters.set_state(label, state)
        assert s.masters.state(label) == state
        s.reopen()
        assert (s.masters.state(label), s.masters.check_value(label)) == (state, value)
    with pytest.raises(KeyError):
        s.masters.set_state("formal:none:v1", MasterState.ACTIVE)
    with pytest.raises(ValueError, match="nonsense"):
        s.masters.set_state(label, "nonsense")


def check_every_label_once(s: MastersSpecimen) -> None:
    """A label that is there is never overwritten, whichever way another key comes."""
    label, key = "formal:once:v1", os.urandom(16)
    s.masters.create(label, key, MasterState.ACTIVE)
    with pytest.raises(ValueError, match=label):
        s.masters.create(label, os.urandom(16), MasterState.ACTIVE)
    with pytest.raises(ValueError, match=label):
        s.masters.take_sealed(label, s.sealed(os.urandom(16)), MasterState.ACTIVE)
    assert s.masters.check_value(label) == s.card.check_value(key).hex().upper()
    assert s.masters.labels().count(label) == 1


def check_destroys(s: MastersSpecimen) -> None:
    """A destroyed master is gone with what was derived from it; another may take its label."""
    label, key = "formal:gone:v1", os.urandom(16)
    s.masters.create(label, os.urandom(16), MasterState.ACTIVE)
    s.masters.chip_keys(label, CITY, _chips(2))
    s.masters.destroy(label)
    s.masters.destroy(label)
    assert s.masters.state(label) == ""
    assert label not in s.masters.labels()
    with pytest.raises(KeyError):
        s.masters.chip_keys(label, CITY, _chips(2))
    with pytest.raises(KeyError):
        s.masters.check_value(label)
    s.masters.create(label, key, MasterState.ACTIVE)
    (chip,) = _chips(1)
    (derived,) = s.masters.chip_keys(label, CITY, [chip])
    wanted = s.card.diversify(key, CITY, chip)
    assert s.card.check_value(derived) == s.card.check_value(wanted)


def check_refuses_other_lengths(s: MastersSpecimen) -> None:
    """A master has 16 bytes."""
    for length in (0, 8, 15, 24, 32):
        with pytest.raises(ValueError, match="16 bytes"):
            s.masters.create("formal:length:v1", bytes(length), MasterState.STAGED)
    assert s.masters.state("formal:length:v1") == ""


def check_changes_are_seen_by_others(s: MastersSpecimen) -> None:
    """Whatever changes a master gives the token another generation; reading does not."""
    label = "formal:generation:v1"
    changes: tuple[Callable[[], None], ...] = (
        lambda: s.masters.create(label, os.urandom(16), MasterState.STAGED),
        lambda: s.masters.set_state(label, MasterState.ACTIVE),
        lambda: s.masters.destroy(label),
    )
    for change in changes:
        before = s.token.generation
        s.masters.labels()
        s.masters.state(label)
        assert s.token.generation == before
        change()
        assert s.token.generation != before


def check_known_answers(s: MastersSpecimen) -> None:
    """The device answers as published, and there is something that it must answer."""
    held = list(run_self_test(s.token.session, s.masters.known_answers))
    assert held
    assert len(held) == len(s.masters.known_answers)


def check_operations(s: MastersSpecimen) -> None:
    """Every operation is named once, and what is not in the token says why."""
    operations = s.masters.operations()
    names = [operation.name for operation in operations]
    assert len(set(names)) == len(names)
    assert all(operation.note for operation in operations if operation.where != "token")


CHECKS: tuple[Callable[[MastersSpecimen], None], ...] = (
    check_derives_as_the_chip_does,
    check_check_values,
    check_takes_sealed_keys,
    check_states,
    check_every_label_once,
    check_destroys,
    check_refuses_other_lengths,
    check_changes_are_seen_by_others,
    check_known_answers,
    check_operations,
)
