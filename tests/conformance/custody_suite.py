"""What key custody must do, whatever suite the masters are of: `check_key_custody(make)`.

The suite plays custodians: it knows their components, and what the keys made of them must say, by
cryptography of its own. Every check begins with centres of its own, as `centre init` leaves them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import pytest
from Crypto.Cipher import AES, DES3, PKCS1_OAEP
from Crypto.Hash import SHA256
from Crypto.PublicKey import ECC, RSA
from Crypto.Signature import DSS

from actors.hsm.pkcs11_provider import Pkcs11Provider
from domain.card.profile import Profile
from domain.codes import Code
from domain.provider import Authenticate, Chip, KeyChange, KeyRefused, KeySet, KeyState
from tests.conformance.card_side import CARDS, CardCipher, Factory, identification_code
from tests.hsm.place import sealed_parts, stage_formal_keys

CHIP = Chip(identification_code(5), "B", "carton-20")
STAGED, ACTIVE, RETIRED = KeyState


@dataclass(frozen=True)
class Centre:
    """A centre's provider and the public halves of its own keys (PEM)."""

    provider: Pkcs11Provider
    profile: Profile
    transport: bytes
    head: bytes

    @property
    def card(self) -> CardCipher:
        return CARDS[self.profile.suite]

    def parts(self, label: str, *components: bytes) -> list[bytes]:
        return sealed_parts(self.transport, label, components)

    def bring(self, label: str, suite: str, key: bytes) -> None:
        """A key of this value, staged, from two components."""
        one = os.urandom(len(key))
        self.provider.combine(label, suite, self.parts(label, one, xor(one, key)))

    def active(self, version: int = 1) -> list[str]:
        """Random masters of the province, active; their labels."""
        staged = stage_formal_keys(self.provider, self.transport, self.profile, version)
        labels = [entry.label for entry in staged]
        self.provider.set_state(labels, ACTIVE)
        return labels

    def state(self, label: str) -> str:
        return {e.label: e.state for e in self.provider.inventory()}.get(label, "")


Make = Callable[[], AbstractContextManager[Centre]]
"""A new centre. Only one of them can be in use at a time (one session a process)."""


def check_key_custody(make: Make) -> None:
    """Run every check."""
    for check in CHECKS:
        check(make)


def xor(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=True))


@contextmanager
def refused(code: Code, place: str = "") -> Iterator[None]:
    with pytest.raises(KeyRefused) as caught:
        yield
    assert caught.value.code == code
    assert place in caught.value.reason


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
            assert [c.provider.part_value(suite, part) for part in parts] == values
            entry = c.provider.combine(label, suite, parts)
            assert (entry.label, entry.usage, entry.version) == (label, usage, 1)
            assert (entry.suite, entry.state) == (suite, STAGED)
            assert entry.check_value == c.card.check_value(key).hex().upper()
            assert c.provider.combine(label, suite, c.parts(label, *components)) == entry
            with refused(Code.KEY_EXISTS_DIFFERENT, label):
                c.provider.combine(label, suite, c.parts(label, os.urandom(16), os.urandom(16)))
            assert entry in c.provider.inventory()


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
        request = Authenticate(CHIP, KeySet.FORMAL, "MK", bytes(8))
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


def check_the_next_version(make: Make) -> None:
    """Activating version 2 retires version 1: what is written to chips is version 2 from then on,
    and version 1 never comes back. A version before the active one can't be activated."""
    with make() as c:
        p = c.provider
        factory = Factory.of("B", c.profile)
        p.import_temporary_keys(factory.sealed(c.transport))
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


def check_export_opens_under_the_kek_only(make: Make) -> None:
    """An exported key is the key itself under AES key wrap (RFC 3394), computed here; no other
    KEK opens it; what never leaves is refused, and so is a KEK that is not active."""
    with make() as c:
        p, suite = c.provider, c.profile.suite
        kek, master = os.urandom(32), os.urandom(16)
        c.bring("kek:v1", "aes", kek)
        c.bring("formal:MK:v1", suite, master)
        with refused(Code.KEY_NOT_ACTIVE, "kek:v1"):
            p.export(["formal:MK:v1"], 1)
        with refused(Code.KEY_UNKNOWN, "kek:v2"):
            p.export(["formal:MK:v1"], 2)
        p.set_state(["kek:v1"], ACTIVE)
        (key,) = json.loads(p.export(["formal:MK:v1"], 1))["keys"]
        wrapped = bytes.fromhex(key["wrapped"])
        opened = unwrapped(kek, wrapped)
        assert c.card.check_value(opened) == c.card.check_value(master)
        assert key["check_value"] == c.card.check_value(master).hex().upper()
        with pytest.raises(ValueError, match="KEK"):
            unwrapped(os.urandom(32), wrapped)
        p.seal("B", [("order", b"x")])
        p.import_temporary_keys(Factory.of("B", c.profile).sealed(c.transport))
        for label in ("data:B", "temporary:B:MK:v0", "kek:v1", "wrap"):
            with refused(Code.KEY_STAYS, label):
                p.export([label], 1)
        with refused(Code.KEY_UNKNOWN, "formal:EAK:v1"):
            p.export(["formal:EAK:v1"], 1)


def unwrapped(kek: bytes, blob: bytes) -> bytes:
    """AES key unwrap as RFC 3394, 2.2.2 draws it."""
    cipher, n = AES.new(kek, AES.MODE_ECB), len(blob) // 8 - 1
    a, r = blob[:8], [blob[at : at + 8] for at in range(8, len(blob), 8)]
    for j in range(5, -1, -1):
        for i in range(n, 0, -1):
            a = (int.from_bytes(a, "big") ^ (n * j + i)).to_bytes(8, "big")
            block = cipher.decrypt(a + r[i - 1])
            a, r[i - 1] = block[:8], block[8:]
    if a != b"\xa6" * 8:
        raise ValueError("not under this KEK")
    return b"".join(r)


def _backed_up(c: Centre, kek: bytes) -> bytes:
    """A centre with keys of every kind, in every state, and its backup."""
    c.bring("kek:v1", "aes", kek)
    c.provider.set_state(["kek:v1"], ACTIVE)
    c.active(1)
    c.active(2)
    stage_formal_keys(c.provider, c.transport, c.profile, 3)
    c.bring("bank:102:kmc:v1", "3des", os.urandom(16))
    c.bring("bank:103:transport:v1", "aes", os.urandom(32))
    c.provider.set_state(["bank:102:kmc:v1"], ACTIVE)
    c.provider.seal("B", [("order", b"x")])
    c.provider.import_temporary_keys(Factory.of("B", c.profile).sealed(c.transport))
    c.provider.sign([bytes(32)])
    return c.provider.backup(1)


def _asked(c: Centre) -> list[object]:
    """What lines ask that depends on keys of a backup."""
    request = Authenticate(CHIP, KeySet.FORMAL, "MK", bytes(range(8)))
    return [c.provider.perform([request]), c.provider.index(["430102199003072316"])]


def check_backup_and_restore(make: Make) -> None:
    """A new token with the same KEK, made of the same components, gets every key of the backup
    with its state and check value, and answers as the old one did. Data keys, temporary keys and
    KEKs are not in the file. Restoring again changes nothing."""
    kek = os.urandom(32)
    with make() as old:
        blob = _backed_up(old, kek)
        entries, answers, head = old.provider.inventory(), _asked(old), old.head
    stay = ("data:", "temporary:", "kek:", "wrap")
    saved = [entry for entry in entries if not entry.label.startswith(stay)]
    labels = {key["label"] for key in json.loads(blob)["keys"]}
    assert labels == {entry.label for entry in saved}
    with make() as new:
        assert new.head != head
        with refused(Code.KEY_UNKNOWN, "kek:v1"):
            new.provider.restore(blob)
        new.bring("kek:v1", "aes", kek)
        with refused(Code.KEY_NOT_ACTIVE, "kek:v1"):
            new.provider.restore(blob)
        new.provider.set_state(["kek:v1"], ACTIVE)
        for _ in range(2):
            restored = new.provider.restore(blob)
            assert sorted(restored, key=lambda e: e.label) == saved
        assert _asked(new) == answers
        (signature,) = new.provider.sign([SHA256.new(b"head").digest()])
        DSS.new(ECC.import_key(head), "fips-186-3").verify(SHA256.new(b"head"), signature)
        assert new.provider.restore(blob) == restored


def check_a_changed_backup_is_refused(make: Make) -> None:
    """Cut off, one byte changed, a state or a check value made another one, made for another KEK:
    KEY_BACKUP_BAD, and nothing of it is taken."""
    with make() as old:
        blob = _backed_up(old, os.urandom(32))
    text = json.loads(blob)
    moved = json.loads(blob)
    moved["keys"][0]["state"] = ACTIVE if moved["keys"][0]["state"] != ACTIVE else STAGED
    spoilt: list[bytes] = [blob[:-1], blob[: len(blob) // 2], b"", b"[]", blob + b" "]
    spoilt += [json.dumps(moved, separators=(",", ":")).encode(), json.dumps(text).encode()]
    spoilt += [_with_byte(blob, at) for at in range(0, len(blob), len(blob) // 30)]
    with make() as new:
        kek = os.urandom(32)
        new.bring("kek:v1", "aes", kek)
        new.provider.set_state(["kek:v1"], ACTIVE)
        before = new.provider.inventory()
        for spoilt_blob in (*spoilt, blob):
            with refused(Code.KEY_BACKUP_BAD):
                new.provider.restore(spoilt_blob)
        assert new.provider.inventory() == before


def _with_byte(blob: bytes, at: int) -> bytes:
    return blob[:at] + bytes((blob[at] ^ 1,)) + blob[at + 1 :]


def check_restoring_gives_up_nothing(make: Make) -> None:
    """Another key under a label of the file stops the whole act; an own key on which something
    hangs stays; a key that is there keeps its state."""
    kek = os.urandom(32)
    with make() as old:
        blob = _backed_up(old, kek)
        own = {e.label: e for e in old.provider.inventory()}
    with make() as new:
        new.bring("kek:v1", "aes", kek)
        new.provider.set_state(["kek:v1"], ACTIVE)
        sealed = new.provider.seal("B2", [("order", b"x")])
        new.provider.sign([bytes(32)])
        kept = [e for e in new.provider.inventory() if e.label in ("index", "head")]
        label = "bank:103:transport:v1"
        new.bring(label, "aes", os.urandom(32))
        before = new.provider.inventory()
        with refused(Code.KEY_EXISTS_DIFFERENT, label):
            new.provider.restore(blob)
        assert new.provider.inventory() == before
        new.provider.destroy([label])
        new.provider.restore(blob)
        entries = new.provider.inventory()
        assert all(entry in entries for entry in kept)
        assert new.provider.unseal("B2", [("order", sealed[0])]) == [b"x"]
        assert {e.label: e for e in entries}[label] == own[label]
        new.provider.set_state(["bank:102:kmc:v1"], RETIRED)
        new.provider.restore(blob)
        assert new.state("bank:102:kmc:v1") == RETIRED


CHECKS: Sequence[Callable[[Make], None]] = (
    check_components_make_the_key,
    check_components_are_good_for_one_place,
    check_weak_keys,
    check_states,
    check_the_next_version,
    check_temporary_keys_wait,
    check_bank_keys_and_keks,
    check_export_opens_under_the_kek_only,
    check_backup_and_restore,
    check_a_changed_backup_is_refused,
    check_restoring_gives_up_nothing,
)
