"""What key custody must do, whatever suite the masters are of: `CHECKS`.

The suite plays custodians: it knows their components, and what the keys made of them must say, by
cryptography of its own. Every check begins with centres of its own, as `centre init` leaves them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from Crypto.Cipher import AES, DES3, PKCS1_OAEP
from Crypto.PublicKey import RSA

from domain.codes import Code
from domain.provider import Authenticate, KeyChange, KeySet, KnownKey, RecordUnsealable
from tests.conformance import custody_files
from tests.conformance.card_side import Factory, take_temporary_keys
from tests.conformance.custody_specimen import (
    ACTIVE,
    CHIP,
    RETIRED,
    STAGED,
    Make,
    refused,
    xor,
)
from tests.hsm.place import sealed_parts, stage_formal_keys


def check_components_make_the_key(make: Make) -> None:
    """Two and three custodians: check values of components and key are as computed here; the key
    is staged. The same components, sealed anew, get the same answer; others are refused."""
    with make() as c:
        suite = c.profile.suite
        for usage, count in (("MK", 2), ("EAK", 3)):
            label = f"formal:{usage}:v1"
            components = [os.urandom(16) for _ in range(count)]
            key = components[0]
            for component in components[1:]:
                key = xor(key, component)
            parts = c.parts(label, *components)
            values = [c.card.check_value(component).hex().upper() for component in components]
            given = [c.provider.part_value(label, suite, n + 1, p) for n, p in enumerate(parts)]
            assert given == values
            entry = c.provider.combine(label, suite, parts)
            assert (entry.label, entry.usage, entry.version) == (label, usage, 1)
            assert (entry.suite, entry.state) == (suite, STAGED)
            assert entry.check_value == c.card.check_value(key).hex().upper()
            assert c.provider.combine(label, suite, c.parts(label, *components)) == entry
            with refused(Code.KEY_EXISTS_DIFFERENT, label):
                c.provider.combine(label, suite, c.parts(label, os.urandom(16), os.urandom(16)))
            assert entry in c.provider.inventory()
            c.provider.destroy([label])  # lost
            with refused(Code.KEY_CHECK_VALUE_DIFFERS, label):
                c.provider.combine(label, suite, parts, KnownKey(RETIRED, "BADBAD"))
            assert entry not in c.provider.inventory()
            back = c.provider.combine(label, suite, parts, KnownKey(RETIRED, entry.check_value))
            assert back == replace(entry, state=RETIRED)


def check_components_are_good_for_one_place(make: Make) -> None:
    """A component of another key, of another centre, a missing or repeated one, one of another
    length and mere bytes are refused with their place, and no key is made."""
    with make() as c:
        suite, label = c.profile.suite, "formal:MK:v1"
        one, two = c.parts(label, os.urandom(16), os.urandom(16))
        other = c.parts("formal:EAK:v1", os.urandom(16), os.urandom(16))[1]
        short = c.parts(label, os.urandom(16), os.urandom(8))[1]
        stranger = RSA.generate(2048).public_key().export_key()
        foreign = sealed_parts(stranger, label, [os.urandom(16), os.urandom(16)])[1]
        bare = PKCS1_OAEP.new(RSA.import_key(c.transport)).encrypt(os.urandom(16))
        for of, number in (("formal:EAK:v1", 1), (label, 2)):
            with refused(Code.KEY_PART_BAD, f"component {number} of {of}"):
                c.provider.part_value(of, suite, number, one)
        before = c.provider.inventory()
        for parts, place in (
            ([one, other], "parts[1]: sealed for another key"),
            ([one, one], "each once"),
            ([one], "two components"),
            ([], "two components"),
            ([one, short], "parts[1]"),
            ([one, foreign], "parts[1]"),
            ([bare, two], "parts[0]"),
            ([one, b""], "parts[1]"),
        ):
            with refused(Code.KEY_PART_BAD, place):
                c.provider.combine(label, suite, parts)
        with refused(Code.KEY_LABEL_BAD):
            c.provider.combine("formal:XX:v1", suite, [one, two])
        with refused(Code.KEY_LABEL_BAD):
            c.provider.combine(label, "aes", [one, two])
        with refused(Code.KEY_LABEL_BAD):
            c.provider.combine("data:B", "aes", [one, two])
        assert c.provider.inventory() == before
        c.provider.combine(label, suite, [two, one])


def check_weak_keys(make: Make) -> None:
    """A key of equal bytes, equal components, one of zeros; of 3DES K1 = K2 and a half that DES
    calls weak or semi-weak, whatever the parity bits say."""
    with make() as c:
        label, suite, one = "formal:MK:v1", c.profile.suite, os.urandom(16)
        for parts in ((one, one), (bytes(16), one), (one, xor(one, b"\x5a" * 16))):
            with refused(Code.KEY_WEAK, label):
                c.provider.combine(label, suite, c.parts(label, *parts))
        half = os.urandom(8)
        for weak in (half + xor(half, b"\x01" * 8), half + bytes.fromhex("1EFF1FFE0EFF0EFF")):
            if suite == "3des":
                with refused(Code.KEY_WEAK, label):
                    c.provider.combine(label, suite, c.parts(label, one, xor(one, weak)))
        assert c.state(label) == ""


def check_states(make: Make) -> None:
    """A staged key serves no chip. Staged → active → retired, no shortcut and no way back; keys
    of a version together; an active key can't be destroyed."""
    with make() as c:
        p = c.provider
        staged = stage_formal_keys(p, c.transport, c.profile)
        first = [entry.label for entry in staged]
        request = Authenticate(CHIP, KeySet.FORMAL, "EAK", bytes(8))
        assert p.perform([request])[0].refused == Code.KEY_NOT_ACTIVE
        with refused(Code.KEY_STATE, first[0]):
            p.set_state(first, RETIRED)
        with refused(Code.KEY_SET_INCOMPLETE, "MK"):
            p.set_state([label for label in first if ":MK:" not in label], ACTIVE)
        with refused(Code.KEY_SET_INCOMPLETE):
            p.set_state([], ACTIVE)
        assert {c.state(label) for label in first} == {STAGED}
        for _ in range(2):
            assert {entry.state for entry in p.set_state(first, ACTIVE)} == {ACTIVE}
        assert not p.perform([request])[0].refused
        with refused(Code.KEY_STATE):
            p.set_state(first, STAGED)
        with refused(Code.KEY_STATE, "active"):
            p.destroy(first)
        p.set_state(first, RETIRED)
        with refused(Code.KEY_STATE):
            p.set_state(first, ACTIVE)
        p.destroy(first[:1])
        p.destroy(first)
        with refused(Code.KEY_UNKNOWN):
            p.set_state(first, ACTIVE)
        for label in ("index", "data:B", "wrap"):
            with refused(Code.KEY_STATE, label):
                p.destroy([label])


def check_data_keys_are_destroyed(make: Make) -> None:
    """What a destroyed data key sealed opens nowhere any more; another batch's still does. Again
    it is no error, and a record sealed for that batch afterwards has another key."""
    with make() as c:
        p = c.provider
        old, other = p.seal("B1", [("O1", b"old")])[0], p.seal("B2", [("O2", b"other")])[0]
        for _ in range(2):
            p.destroy_data_keys(["B1", "never"])
            with pytest.raises(RecordUnsealable):
                p.unseal("B1", [("O1", old)])
        assert p.unseal("B2", [("O2", other)]) == [b"other"]
        p.seal("B1", [("O3", b"new")])
        with pytest.raises(RecordUnsealable):
            p.unseal("B1", [("O1", old)])


def check_the_next_version(make: Make) -> None:
    """Activating version 2 retires version 1: what is written to chips is version 2 from then on,
    and version 1 never comes back. A version before the active one can't be activated."""
    with make() as c:
        p = c.provider
        factory = Factory.of("B", c.profile)
        take_temporary_keys(p, factory.sealed(c.transport))
        change = KeyChange(CHIP, "MK", os.urandom(8))
        loading = factory.key(c.profile.loading_usage, CHIP.identification_code)

        def written() -> tuple[int, bytes]:
            (answer,) = p.perform([change])
            version, _, key = c.card.open_write_key(loading, change.challenge, answer.data)
            return version, key

        first = c.active()
        before = written()
        second = [e.label for e in stage_formal_keys(p, c.transport, c.profile, 2)]
        third = [e.label for e in stage_formal_keys(p, c.transport, c.profile, 3)]
        assert written() == before
        assert before[0] == 1
        p.set_state(third, ACTIVE)
        assert {c.state(label) for label in first} == {RETIRED}
        version, key = written()
        assert version == 3
        assert key != before[1]
        for labels in (first, second):
            with refused(Code.KEY_STATE):
                p.set_state(labels, ACTIVE)
        p.destroy([*first, *second])
        assert written() == (version, key)


def check_temporary_keys_wait(make: Make) -> None:
    """A factory's keys are staged and serve nobody until they are accepted; the check values are
    the factory's. Refused ones can be destroyed, and come again."""
    with make() as c:
        p, factory = c.provider, Factory.of("B", c.profile)
        block = factory.sealed(c.transport)
        given = [key["check_value"] for key in json.loads(block)["keys"]]
        request = Authenticate(CHIP, KeySet.TEMPORARY, "MK", bytes(8))
        for _ in range(2):
            staged = p.stage_temporary_keys(block)
            assert [entry.check_value for entry in staged] == given
            assert {entry.state for entry in staged} == {STAGED}
            assert p.perform([request])[0].refused == Code.KEY_NOT_ACTIVE
        labels = [entry.label for entry in staged]
        p.destroy(labels)
        assert p.perform([request])[0].refused == Code.KEY_UNKNOWN
        p.stage_temporary_keys(block)
        p.set_state(labels, ACTIVE)
        key = factory.key("MK", CHIP.identification_code)
        assert p.perform([request])[0].data == c.card.answer(key, bytes(8))
        assert {entry.state for entry in p.stage_temporary_keys(block)} == {ACTIVE}


def check_bank_keys_and_keks(make: Make) -> None:
    """Keys of banks in 3DES and AES, KEKs in AES-256: check values as computed here, one active
    version of each, and never two of one label in two suites."""
    with make() as c:
        p = c.provider
        des, aes, kek = os.urandom(16), os.urandom(24), os.urandom(32)
        c.bring("bank:102:kmc:v1", "3des", des)
        c.bring("bank:103:transport:v1", "aes", aes)
        c.bring("kek:v1", "aes", kek)
        entries = {e.label: e for e in p.inventory()}
        des_value = DES3.new(des, DES3.MODE_ECB).encrypt(bytes(8))[:3]
        assert entries["bank:102:kmc:v1"].check_value == des_value.hex().upper()
        for label, key in (("bank:103:transport:v1", aes), ("kek:v1", kek)):
            value = AES.new(key, AES.MODE_ECB).encrypt(b"\x01" * 16)[:3]
            assert entries[label].check_value == value.hex().upper()
            assert entries[label].suite == "aes"
        with refused(Code.KEY_EXISTS_DIFFERENT, "bank:102:kmc:v1"):
            c.bring("bank:102:kmc:v1", "aes", aes)
        with refused(Code.KEY_PART_BAD, "32 bytes"):
            c.bring("kek:v2", "aes", os.urandom(16))
        c.bring("bank:102:kmc:v2", "aes", aes)
        p.set_state(["bank:102:kmc:v1"], ACTIVE)
        p.set_state(["bank:102:kmc:v2"], ACTIVE)
        assert c.state("bank:102:kmc:v1") == RETIRED
        assert c.state("bank:103:transport:v1") == STAGED


CHECKS: Sequence[Callable[[Make], None]] = (
    check_components_make_the_key,
    check_components_are_good_for_one_place,
    check_weak_keys,
    check_states,
    check_data_keys_are_destroyed,
    check_the_next_version,
    check_temporary_keys_wait,
    check_bank_keys_and_keks,
    custody_files.check_export_opens_under_the_kek_only,
    custody_files.check_backup_and_restore,
    custody_files.check_a_changed_backup_is_refused,
    custody_files.check_restoring_gives_up_nothing,
    custody_files.check_a_restore_does_what_was_decided,
)
