"""Masters in the token, and sealed under a key of the token."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pkcs11 import Attribute, ObjectClass

from actors.hsm import ceremony
from actors.hsm.masters import Masters, MasterState
from actors.hsm.pkcs11_masters import Pkcs11Masters
from actors.hsm.stored_masters import StoredMasters
from actors.hsm.token import KeyToken
from actors.hsm.wrapped_masters import WrappedMasters
from domain.provider import ProviderError
from tests.conformance.masters_suite import MastersSpecimen, check_masters
from tests.hsm.place import Home, blank_token

KINDS: dict[str, Callable[[KeyToken], Masters]] = {
    "3des in the token": Pkcs11Masters,
    "sm4 wrapped": WrappedMasters,
}


@pytest.fixture
def token(home: Home) -> Iterator[KeyToken]:
    with KeyToken(home.config) as token:
        yield token


@pytest.mark.parametrize("kind", KINDS)
def test_conformance(home: Home, token: KeyToken, kind: str) -> None:
    """These masters do what all masters must."""

    @contextmanager
    def make() -> Iterator[MastersSpecimen]:
        masters = KINDS[kind](token)
        try:
            yield MastersSpecimen(masters, token, home.transport_public_key)
        finally:
            for label in masters.labels():
                if not label.startswith("formal:") or len(label) > len("formal:MK:v1") + 1:
                    masters.destroy(label)

    check_masters(make)


@pytest.fixture
def wrapped(token: KeyToken) -> Iterator[WrappedMasters]:
    masters = WrappedMasters(token)
    yield masters
    for label in masters.labels():
        masters.destroy(label)


def test_a_master_rests_sealed(token: KeyToken, wrapped: WrappedMasters) -> None:
    """The token's data object holds nothing of the key; moved under another label it does not
    open."""
    key = bytes(range(16))
    wrapped.create("formal:MK:v1", key, MasterState.ACTIVE)
    (resting,) = list(
        token.session.get_objects(
            {Attribute.CLASS: ObjectClass.DATA, Attribute.LABEL: "formal:MK:v1"}
        )
    )
    value = resting[Attribute.VALUE]
    assert key not in value
    assert len(value) == 1 + 12 + 16 + 16
    moved = {Attribute.LABEL: "formal:EAK:v1", Attribute.VALUE: value}
    fixed = {Attribute.APPLICATION: "active", Attribute.TOKEN: True, Attribute.PRIVATE: True}
    token.session.create_object({Attribute.CLASS: ObjectClass.DATA, **fixed, **moved})
    with pytest.raises(ProviderError, match="does not open"):
        wrapped.check_value("formal:EAK:v1")
    assert wrapped.check_value("formal:MK:v1")


def test_a_change_of_state_that_was_cut_off_counts(
    token: KeyToken, wrapped: WrappedMasters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the new object and the removal of the old one, the later state counts, and
    the next change leaves one object."""
    wrapped.create("formal:MK:v1", bytes(16), MasterState.STAGED)
    value = wrapped.check_value("formal:MK:v1")

    class Cut(BaseException):
        pass

    def write_and_die(self: StoredMasters, label: str, state: str, protected: bytes) -> None:
        write(self, label, state, protected)
        raise Cut

    write = StoredMasters._write
    with monkeypatch.context() as patch:
        patch.setattr(StoredMasters, "_write", write_and_die)
        with pytest.raises(Cut):
            wrapped.set_state("formal:MK:v1", MasterState.ACTIVE)
    wrapped.forget()
    assert wrapped.state("formal:MK:v1") == MasterState.ACTIVE
    assert wrapped.labels() == ["formal:MK:v1"]
    wrapped.set_state("formal:MK:v1", MasterState.RETIRED)
    assert len(wrapped._objects("formal:MK:v1")) == 1
    assert wrapped.check_value("formal:MK:v1") == value


def test_without_the_wrapping_key_nothing_is_made(tmp_path: Path) -> None:
    """A token without `wrap` says so."""
    with KeyToken(blank_token(tmp_path)) as token:
        with pytest.raises(ProviderError, match="wrap"):
            WrappedMasters(token).generate("formal:MK:v1", MasterState.ACTIVE)
        assert ceremony.inventory(token, WrappedMasters(token)) == []
