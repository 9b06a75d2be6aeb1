"""The factory's key block: whatever is wrong with it is refused with its place and leaves nothing
in the token."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import pytest
from Crypto.Cipher import PKCS1_OAEP
from Crypto.PublicKey import RSA

from actors.hsm import labels
from actors.hsm.pkcs11_provider import Pkcs11Provider
from domain.codes import Code
from domain.provider import KeyBlockRefused
from tests.conformance.card_side import Factory, take_temporary_keys
from tests.hsm.place import Home

Spoil = Callable[[dict[str, Any]], None]

SPOILED: dict[str, tuple[Spoil, str]] = {
    "format": (lambda b: b.update(format=2), "format"),
    "format true": (lambda b: b.update(format=True), "format"),
    "suite": (lambda b: b.update(suite="sm4"), "suite"),
    "no batch": (lambda b: b.pop("batch_id"), "batch_id"),
    "batch too long": (lambda b: b.update(batch_id="x" * 65), "batch_id"),
    "batch unprintable": (lambda b: b.update(batch_id="a\nb"), "batch_id"),
    "no factory": (lambda b: b.update(factory_id=7), "factory_id"),
    "no keys": (lambda b: b.update(keys={}), "keys"),
    "key missing": (lambda b: b["keys"].pop(), "keys"),
    "key twice": (lambda b: b["keys"].append(b["keys"][0]), "keys"),
    "key no object": (lambda b: b["keys"].__setitem__(1, 5), "keys[1]"),
    "usage unknown": (lambda b: b["keys"][1].update(usage="XX"), "keys[1].usage"),
    "version": (lambda b: b["keys"][1].update(version=1), "keys[1].version"),
    "version false": (lambda b: b["keys"][1].update(version=False), "keys[1].version"),
    "wrapped no hex": (lambda b: b["keys"][2].update(wrapped="zz"), "keys[2].wrapped"),
    "wrapped missing": (lambda b: b["keys"][2].pop("wrapped"), "keys[2].wrapped"),
    "wrapped short": (lambda b: b["keys"][2].update(wrapped="0102"), "keys[2].wrapped"),
    "wrapped garbage": (
        lambda b: b["keys"][2].update(wrapped=os.urandom(384).hex()),
        "keys[2].wrapped",
    ),
    "check value short": (lambda b: b["keys"][3].update(check_value="00"), "keys[3].check_value"),
}


def _of_batch(provider: Pkcs11Provider, batch_id: str) -> list[str]:
    provider.self_test()
    prefix = f"temporary:{batch_id}:"
    return [e.label for e in provider.inventory() if e.label.startswith(prefix)]


@pytest.mark.parametrize("what", SPOILED)
def test_a_spoiled_block_names_its_field_and_leaves_nothing(
    home: Home, provider: Pkcs11Provider, what: str
) -> None:
    """KEY_BLOCK_BAD with the field at fault; no key of the block is in the token."""
    spoil, field = SPOILED[what]
    block = Factory.of("spoiled", home.profile).block(home.transport_public_key)
    spoil(block)
    with pytest.raises(KeyBlockRefused) as refused:
        take_temporary_keys(provider, json.dumps(block).encode())
    assert refused.value.code == Code.KEY_BLOCK_BAD
    assert refused.value.reason.startswith(f"{field}: ")
    assert _of_batch(provider, "spoiled") == []


@pytest.mark.parametrize(
    "block", [b"", b"\xff\xfe", b"{", b"[]", b"null", b"[" * 60_000, b" " * 70_000]
)
def test_garbage_is_refused(provider: Pkcs11Provider, block: bytes) -> None:
    """No bytes at all make it fall over."""
    with pytest.raises(KeyBlockRefused, match="KEY_BLOCK_BAD: block"):
        take_temporary_keys(provider, block)


@pytest.mark.parametrize("length", [8, 32])
def test_a_wrapped_key_of_another_length_is_refused(
    home: Home, provider: Pkcs11Provider, length: int
) -> None:
    """Rightly wrapped, but no 16 bytes."""
    block: dict[str, Any] = Factory.of("length", home.profile).block(home.transport_public_key)
    seal = PKCS1_OAEP.new(RSA.import_key(home.transport_public_key))
    block["keys"][0]["wrapped"] = seal.encrypt(os.urandom(length)).hex()
    with pytest.raises(KeyBlockRefused):
        take_temporary_keys(provider, json.dumps(block).encode())
    assert _of_batch(provider, "length") == []


def test_another_transport_key_is_refused(home: Home, provider: Pkcs11Provider) -> None:
    """A block that was sealed for another centre."""
    other = RSA.generate(2048).public_key().export_key()
    with pytest.raises(KeyBlockRefused, match=r"KEY_BLOCK_BAD: keys\[0\].wrapped"):
        take_temporary_keys(provider, Factory.of("elsewhere", home.profile).sealed(other))


def test_an_import_that_was_cut_off_is_completed_by_the_same_block(
    home: Home, provider: Pkcs11Provider
) -> None:
    """Some keys of the block are there, as after a kill in the middle: the same block adds the
    rest; a block with other keys is refused and changes nothing."""
    factory = Factory.of("cut-off", home.profile)
    block = factory.sealed(home.transport_public_key)
    whole = take_temporary_keys(provider, block)
    for usage in ("IRK", "MK"):
        label = labels.temporary("cut-off", usage, home.profile.temporary_version)
        provider.token.find(label).destroy()
    with pytest.raises(KeyBlockRefused, match="KEY_BLOCK_REPEATED_DIFFERENT"):
        take_temporary_keys(
            provider, Factory.of("cut-off", home.profile).sealed(home.transport_public_key)
        )
    assert len(_of_batch(provider, "cut-off")) == len(whole) - 2
    assert take_temporary_keys(provider, block) == whole
    assert len(_of_batch(provider, "cut-off")) == len(whole)
