"""SM4 masters that rest sealed under a key of the token. *Software-assisted, not certified*: a
master is in the memory of the provider while one chunk is derived from it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from actors.hsm import labels, sealing
from actors.hsm.self_test import SM4_BLOCK
from actors.hsm.stored_masters import Encipher, StoredMasters
from actors.hsm.suites import SM4
from actors.hsm.token import KeyToken
from domain.provider import ProviderError, RecordUnsealable


class WrappedMasters(StoredMasters):
    """`Masters` under the key `wrap` (AES-256-GCM, the label as additional data: a master that is
    moved under another label does not open)."""

    def __init__(self, token: KeyToken) -> None:
        super().__init__(token, (SM4_BLOCK,))
        self._wrap: Any = None

    def forget(self) -> None:
        super().forget()
        self._wrap = None

    def _protect(self, label: str, key: bytes) -> bytes:
        return sealing.seal(self._wrapping_key(), label, key)

    def _value(self, label: str, protected: bytes) -> bytes:
        try:
            return sealing.unseal(self._wrapping_key(), label, protected)
        except RecordUnsealable:
            raise ProviderError(f"the master {label} does not open under the key wrap") from None

    @contextmanager
    def _master(self, label: str, protected: bytes) -> Iterator[Encipher]:
        yield SM4.encipherer(self._value(label, protected))

    @contextmanager
    def _key(self, key: bytes) -> Iterator[Encipher]:
        yield SM4.encipherer(key)

    def _wrapping_key(self) -> Any:
        if self._wrap is None:
            self._wrap = self._token.find(labels.WRAP)
            if self._wrap is None:
                raise ProviderError("the token has no key wrap: generate the keys first")
        return self._wrap
