"""Masters in the token, sealed under a key of the token, and in an SDF device."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from pkcs11 import Attribute, ObjectClass

from actors.hsm.masters import MasterState
from actors.hsm.sdf_masters import SdfMasters
from actors.hsm.self_test import SelfTestFailed, run_self_test
from actors.hsm.stored_masters import StoredMasters
from actors.hsm.token import KeyToken
from actors.hsm.wrapped_masters import WrappedMasters
from domain.provider import ProviderError
from tests.conformance.card_side import SM4_CARD
from tests.conformance.masters_suite import MastersSpecimen, check_masters
from tests.hsm.place import KEK, KINDS, Home, blank_token, compile_double, make_masters


@pytest.fixture
def token(home: Home) -> Iterator[KeyToken]:
    with KeyToken(home.config) as token:
        yield token


@pytest.mark.parametrize("kind", KINDS)
def test_conformance(home: Home, token: KeyToken, sdf_library: Path, kind: str) -> None:
    """These masters do what all masters must."""

    @contextmanager
    def make() -> Iterator[MastersSpecimen]:
        masters = make_masters(kind, token, sdf_library)
        standing = masters.labels()
        try:
            yield MastersSpecimen(masters, token, home.transport_public_key)
        finally:
            for label in masters.labels():
                if label not in standing:
                    masters.destroy(label)
            masters.forget()

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
            WrappedMasters(token).create("formal:MK:v1", bytes(16), MasterState.ACTIVE)
        assert WrappedMasters(token).labels() == []


@dataclass(frozen=True)
class Sdf:
    """Masters in a device, with one master, and what commands the device."""

    masters: SdfMasters
    device: ctypes.CDLL
    key: bytes
    token: KeyToken
    library: Path

    def check(self) -> None:
        wanted = SM4_CARD.check_value(self.key).hex().upper()
        assert self.masters.check_value("formal:MK:v1") == wanted


@pytest.fixture
def sdf(token: KeyToken, sdf_library: Path) -> Iterator[Sdf]:
    masters = SdfMasters(token, sdf_library, KEK)
    key = os.urandom(16)
    masters.create("formal:MK:v1", key, MasterState.ACTIVE)
    yield Sdf(masters, ctypes.CDLL(str(sdf_library)), key, token, sdf_library)
    for label in masters.labels():
        masters.destroy(label)
    masters.forget()


def test_a_lost_session_is_reported_once_and_opened_again(sdf: Sdf) -> None:
    """The device drops its sessions: one call fails and names the device's answer, the next one
    is served, with handles of the new session."""
    sdf.check()
    sdf.device.double_lose_sessions()
    with pytest.raises(ProviderError, match="SDF_Encrypt answers SDR_COMMFAIL"):
        sdf.masters.check_value("formal:MK:v1")
    sdf.check()


def test_a_wrong_kek_is_refused(sdf: Sdf) -> None:
    """A KEK index that the device does not have is the device's refusal; a master that rests under
    another KEK than the device's is known by its check value, and not used."""
    sdf.masters.forget()
    other = SdfMasters(sdf.token, sdf.library, KEK + 1)
    for ask in (
        lambda: other.check_value("formal:MK:v1"),
        lambda: other.create("formal:EAK:v1", bytes(16), MasterState.ACTIVE),
    ):
        with pytest.raises(ProviderError, match="SDR_KEYNOTEXIST"):
            ask()
    other.forget()
    value = os.urandom(3 + 16)
    resting = {Attribute.LABEL: "formal:IRK:v1", Attribute.VALUE: value}
    fixed = {Attribute.APPLICATION: "active", Attribute.TOKEN: True, Attribute.PRIVATE: True}
    sdf.token.session.create_object({Attribute.CLASS: ObjectClass.DATA, **fixed, **resting})
    with pytest.raises(ProviderError, match="another KEK"):
        sdf.masters.chip_keys("formal:IRK:v1", b"430100sx", [bytes(8)])


def test_keys_leave_the_device_with_their_use(sdf: Sdf) -> None:
    """A chunk leaves nothing in the device but the master; a closed session nothing at all."""
    for _ in range(3):
        sdf.masters.chip_keys("formal:MK:v1", b"430100sx", [bytes(8)] * 600)
        assert sdf.device.double_keys_held() == 1
    sdf.masters.forget()
    assert sdf.device.double_keys_held() == 0


def test_a_device_that_computes_wrongly_fails_its_self_test(sdf: Sdf) -> None:
    """One wrong bit: the known answer does not hold, and a master does not prove itself."""
    sdf.device.double_compute_wrongly(1)
    try:
        with pytest.raises(SelfTestFailed, match="sdf-sm4-ecb"):
            list(run_self_test(sdf.token.session, sdf.masters.known_answers))
        with pytest.raises(ProviderError, match="KEK"):
            sdf.masters.check_value("formal:MK:v1")
    finally:
        sdf.device.double_compute_wrongly(0)
    sdf.check()


def test_a_library_that_is_none(token: KeyToken, tmp_path: Path) -> None:
    """A path without library, and a library without the functions: said, not a crash."""
    for path, words in ((tmp_path / "none.so", "does not load"), (Path("libm.so.6"), "no SDF_")):
        with pytest.raises(ProviderError, match=words):
            SdfMasters(token, path, KEK).create("formal:MK:v1", bytes(16), MasterState.ACTIVE)


def test_a_device_with_the_standard_s_functions_only(token: KeyToken, tmp_path: Path) -> None:
    """Without the makers' function nothing comes in from outside, and that is said."""
    library = compile_double(tmp_path / "standard.so", "-DSTANDARD_ONLY")
    masters = SdfMasters(token, library, KEK)
    with pytest.raises(ProviderError, match="no SDF_GetSymmKeyHandle"):
        masters.create("formal:MK:v1", bytes(16), MasterState.ACTIVE)
    assert masters.labels() == []
    masters.forget()
