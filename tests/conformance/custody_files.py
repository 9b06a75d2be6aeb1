"""Checks of how keys leave a centre and come back: export, backup, restore."""

from __future__ import annotations

import json
import os

import pytest
from Crypto.Cipher import AES
from Crypto.Hash import SHA256
from Crypto.PublicKey import ECC
from Crypto.Signature import DSS
from pkcs11 import Attribute

from actors.hsm.labels import OWN
from domain.codes import Code
from domain.provider import Authenticate, KeyEntry, KeySet
from tests.conformance.card_side import Factory, take_temporary_keys
from tests.conformance.custody_specimen import (
    ACTIVE,
    CHIP,
    RETIRED,
    STAGED,
    Centre,
    Make,
    refused,
)
from tests.hsm.place import stage_formal_keys


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
        take_temporary_keys(p, Factory.of("B", c.profile).sealed(c.transport))
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
    take_temporary_keys(c.provider, Factory.of("B", c.profile).sealed(c.transport))
    c.provider.sign([bytes(32)])
    return c.provider.backup(1)


def restore(c: Centre, blob: bytes) -> list[KeyEntry]:
    """Everything, as it was."""
    entries = c.provider.read_backup(blob)
    wanted = {e.label: e.state for e in entries if e.label not in OWN}
    return c.provider.restore(blob, wanted)


def _asked(c: Centre) -> list[object]:
    """What lines ask that depends on keys of a backup."""
    request = Authenticate(CHIP, KeySet.FORMAL, "EAK", bytes(range(8)))
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
            restore(new, blob)
        new.bring("kek:v1", "aes", kek)
        with refused(Code.KEY_NOT_ACTIVE, "kek:v1"):
            restore(new, blob)
        new.provider.set_state(["kek:v1"], ACTIVE)
        for _ in range(2):
            restored = restore(new, blob)
            assert sorted(restored, key=lambda e: e.label) == saved
        assert _asked(new) == answers
        # A bank's channels ask the token for it.
        assert new.provider.token.find("bank:103:transport:v1")[Attribute.VALUE_LEN] == 32
        (signature,) = new.provider.sign([SHA256.new(b"head").digest()])
        DSS.new(ECC.import_key(head), "fips-186-3").verify(SHA256.new(b"head"), signature)
        assert restore(new, blob) == restored


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
                restore(new, spoilt_blob)
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
            restore(new, blob)
        assert new.provider.inventory() == before
        new.provider.destroy([label])
        restore(new, blob)
        entries = new.provider.inventory()
        assert all(entry in entries for entry in kept)
        assert new.provider.unseal("B2", [("order", sealed[0])]) == [b"x"]
        assert {e.label: e for e in entries}[label] == own[label]
        new.provider.set_state(["bank:102:kmc:v1"], RETIRED)
        with refused(Code.KEY_STATE, "bank:102:kmc:v1"):
            restore(new, blob)
        assert new.state("bank:102:kmc:v1") == RETIRED


def check_a_restore_does_what_was_decided(make: Make) -> None:
    """Which keys come back, and in which states, is said with the act: what is not said stays out,
    what the file does not hold is refused, and an older version never stands active beside its
    successor, whatever the file says."""
    with make() as c:
        p = c.provider
        c.bring("kek:v1", "aes", os.urandom(32))
        p.set_state(["kek:v1"], ACTIVE)
        first, second = "bank:102:kmc:v1", "bank:102:kmc:v2"
        c.bring(first, "3des", os.urandom(16))
        p.set_state([first], ACTIVE)
        blob = p.backup(1)
        c.bring(second, "3des", os.urandom(16))
        p.set_state([second], ACTIVE)
        p.destroy([first])
        before = p.inventory()
        assert {e.label: e.state for e in p.read_backup(blob)}[first] == ACTIVE
        with refused(Code.KEY_STATE, first):
            p.restore(blob, {first: ACTIVE})
        with refused(Code.KEY_BACKUP_BAD, second):
            p.restore(blob, {second: ACTIVE})
        p.restore(blob, {})
        assert p.inventory() == before
        p.restore(blob, {first: RETIRED})
        assert (c.state(first), c.state(second)) == (RETIRED, ACTIVE)
