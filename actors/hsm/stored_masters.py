"""SM4 masters, which a PKCS#11 token has no keys for, as data objects of the token.

A data object (CKO_DATA, private) bears the label of its master, its CKA_APPLICATION is the state,
its value the master as an implementation protects it. SoftHSM2 changes no attribute of a data
object, so that a new state is a new object; where an interruption leaves both, the later state
counts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import structlog
from pkcs11 import Attribute, ObjectClass

from actors.hsm.masters import MasterState, check_value
from actors.hsm.self_test import KnownAnswer
from actors.hsm.suites import SM4, factor_block
from actors.hsm.token import KeyToken
from actors.hsm.transport import unsealed, unwrapped_value, wrapped_value
from domain.provider import Operation, Where

KEY_LENGTH = 16
Encipher = Callable[[bytes], bytes]
"""ECB over whole blocks under one key."""

_LATER = [state.value for state in MasterState]
_log = structlog.get_logger(__name__)


class StoredMasters(ABC):
    """`Masters` of suite SM4 over data objects; how a master is protected and used is left to the
    implementation."""

    suite = SM4
    exportable = True

    def __init__(self, token: KeyToken, known_answers: Sequence[KnownAnswer]) -> None:
        self._token = token
        self.known_answers = known_answers
        self._stored: dict[str, tuple[str, bytes]] = {}

    @abstractmethod
    def _protect(self, label: str, key: bytes) -> bytes:
        """The master `key` as it may rest."""

    @abstractmethod
    def _value(self, label: str, protected: bytes) -> bytes:
        """A resting master in the memory of this process, to leave under a KEK. Raises KeyRefused
        (KEY_STAYS) where it never does."""

    @abstractmethod
    def _master(self, label: str, protected: bytes) -> AbstractContextManager[Encipher]:
        """A resting master, to be used."""

    @abstractmethod
    def _key(self, key: bytes) -> AbstractContextManager[Encipher]:
        """A key that is in the memory of this process, to be used."""

    def labels(self) -> list[str]:
        found = [o for o in self._objects() if o[Attribute.APPLICATION] in _LATER]
        return sorted({o[Attribute.LABEL] for o in found})

    def state(self, label: str) -> str:
        return self._find(label)[0]

    def chip_keys(self, label: str, city: bytes, chips: Sequence[bytes]) -> list[bytes]:
        with self._opened(label) as encipher:
            city_key = encipher(factor_block(city))
        with self._key(city_key) as encipher:
            raw = encipher(b"".join(map(factor_block, chips)))
        return [raw[at : at + KEY_LENGTH] for at in range(0, len(raw), KEY_LENGTH)]

    def check_block(self, label: str) -> bytes:
        with self._opened(label) as encipher:
            return encipher(SM4.check_block)

    def check_value(self, label: str) -> str:
        return check_value(self.check_block(label))

    def create(self, label: str, key: bytes, state: str) -> None:
        if len(key) != KEY_LENGTH:
            raise ValueError(f"a master has {KEY_LENGTH} bytes")
        self._make(label, state, lambda: self._protect(label, key))
        _log.info("key_created", label=label)

    def try_sealed(self, sealed: bytes) -> bytes:
        return SM4.encipher(unsealed(self._token, sealed, KEY_LENGTH), SM4.check_block)

    def take_sealed(self, label: str, sealed: bytes, state: str) -> None:
        key = unsealed(self._token, sealed, KEY_LENGTH)
        self._make(label, state, lambda: self._protect(label, key))
        _log.info("key_imported", label=label)

    def wrapped(self, label: str, kek: Any) -> bytes:
        return wrapped_value(self._token, self._value(label, self._find(label)[1]), kek)

    def take_wrapped(self, label: str, blob: bytes, kek: Any, state: str) -> None:
        key = unwrapped_value(blob, kek)
        self._make(label, state, lambda: self._protect(label, key))
        _log.info("key_restored", label=label)

    def set_state(self, label: str, state: str) -> None:
        with self._token.changing():
            before = self._objects(label)
            if not before:
                raise KeyError(label)
            protected = max(before, key=_lateness)[Attribute.VALUE]
            self._write(label, state, protected)
            for found in before:
                found.destroy()
            self._stored.pop(label, None)
        _log.info("key_state", label=label, state=state)

    def destroy(self, label: str) -> None:
        with self._token.changing():
            for found in self._objects(label):
                found.destroy()
            self._stored.pop(label, None)
        _log.info("key_destroyed", label=label)

    def forget(self) -> None:
        self._stored.clear()

    def operations(self) -> list[Operation]:
        note = "未认证 not certified: no SM4 in a PKCS#11 token"
        return [
            Operation("derive_city_key", Where.SOFTWARE, note),
            Operation("derive_chip_keys", Where.SOFTWARE, note),
            Operation("take_sealed_key", Where.SOFTWARE, note),
            Operation("join_components", Where.SOFTWARE, note),
            Operation("check_value", Where.SOFTWARE, note),
            Operation("back_up", Where.SOFTWARE, note),
        ]

    def _opened(self, label: str) -> AbstractContextManager[Encipher]:
        state, protected = self._find(label)
        if not state:
            raise KeyError(label)
        return self._master(label, protected)

    def _find(self, label: str) -> tuple[str, bytes]:
        """State and protected value; empty if it is not there."""
        if label not in self._stored:
            found = self._objects(label)
            if not found:
                return "", b""
            last = max(found, key=_lateness)
            self._stored[label] = (last[Attribute.APPLICATION], last[Attribute.VALUE])
        return self._stored[label]

    def _objects(self, label: str = "") -> list[Any]:
        named = {Attribute.LABEL: label} if label else {}
        wanted = {Attribute.CLASS: ObjectClass.DATA, Attribute.TOKEN: True, **named}
        return list(self._token.session.get_objects(wanted))

    def _make(self, label: str, state: str, protected: Callable[[], bytes]) -> None:
        with self._token.changing():
            if self._objects(label):
                raise ValueError(f"there is a master {label}")
            self._write(label, state, protected())

    def _write(self, label: str, state: str, protected: bytes) -> None:
        self._token.session.create_object(
            {
                Attribute.CLASS: ObjectClass.DATA,
                Attribute.TOKEN: True,
                Attribute.PRIVATE: True,
                Attribute.LABEL: label,
                Attribute.APPLICATION: MasterState(state).value,
                Attribute.VALUE: protected,
            }
        )


def _lateness(found: Any) -> int:
    return _LATER.index(found[Attribute.APPLICATION])
