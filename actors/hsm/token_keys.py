"""Keys of banks, key encrypting keys and data keys: 3DES and AES keys that the token itself uses,
and from which no keys of chips are diversified in two levels."""

from __future__ import annotations

from typing import Any

import structlog
from pkcs11 import Attribute, KeyType, Mechanism, ObjectClass

from actors.hsm import labels
from actors.hsm.labels import Kind
from actors.hsm.suites import AES, TRIPLE_DES, Suite
from actors.hsm.token import EXPORTABLE, LOCKED_IN, KeyToken
from actors.hsm.transport import unwrapped_value

_KIND_AND_ECB = {
    TRIPLE_DES.name: (KeyType.DES2, Mechanism.DES3_ECB),
    AES.name: (KeyType.AES, Mechanism.AES_ECB),
}
_OURS = (Kind.BANK, Kind.KEK, Kind.DATA)
_USES = {
    # ENCRYPT for the check value, and for what a bank's own keys are diversified from.
    "kmc": (Attribute.ENCRYPT, Attribute.DERIVE),
    # Opens what a bank sends, into the token: with DECRYPT, too, that could be read.
    "transport": (Attribute.ENCRYPT, Attribute.UNWRAP),
    "kek": (Attribute.ENCRYPT, Attribute.WRAP, Attribute.UNWRAP),
}
_ALL_USES = (
    Attribute.ENCRYPT, Attribute.DECRYPT, Attribute.DERIVE, Attribute.WRAP, Attribute.UNWRAP,
    Attribute.SIGN, Attribute.VERIFY,
)  # fmt: skip
_log = structlog.get_logger(__name__)


class TokenKeys:
    """The keys of one suite. The state of a key is its CKA_ID. Not cached: acts are rare."""

    exportable = True

    def __init__(self, token: KeyToken, suite: Suite) -> None:
        self.suite = suite
        self._token = token
        self._type, self._ecb = _KIND_AND_ECB[suite.name]

    def labels(self) -> list[str]:
        wanted = {Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.KEY_TYPE: self._type}
        found = self._token.session.get_objects({**wanted, Attribute.TOKEN: True})
        named = [key[Attribute.LABEL] for key in list(found)]
        return sorted(label for label in named if labels.kind_of(label) in _OURS)

    def state(self, label: str) -> str:
        key = self._token.find(label)
        if key is None or key[Attribute.KEY_TYPE] != self._type:
            return ""
        state: str = key[Attribute.ID].decode()
        return state

    def check_block(self, label: str) -> bytes:
        block: bytes = self._key(label).encrypt(self.suite.check_block, mechanism=self._ecb)
        return block

    def create(self, label: str, key: bytes, state: str) -> None:
        with self._token.changing():
            if self._token.find(label) is not None:
                raise ValueError(f"there is a key {label}")
            self._token.session.create_object(
                {
                    Attribute.CLASS: ObjectClass.SECRET_KEY,
                    Attribute.KEY_TYPE: self._type,
                    Attribute.VALUE: key,
                    Attribute.TOKEN: True,
                    Attribute.LABEL: label,
                    Attribute.ID: state.encode(),
                    **_template(label),
                }
            )
        _log.info("key_created", label=label)

    def set_state(self, label: str, state: str) -> None:
        with self._token.changing():
            self._key(label)[Attribute.ID] = state.encode()
        _log.info("key_state", label=label, state=state)

    def destroy(self, label: str) -> None:
        with self._token.changing():
            key = self._token.find(label)
            if key is not None:
                key.destroy()
        _log.info("key_destroyed", label=label)

    def wrapped(self, label: str, kek: Any) -> bytes:
        blob: bytes = kek.wrap_key(self._key(label), mechanism=Mechanism.AES_KEY_WRAP)
        return blob

    def take_wrapped(self, label: str, blob: bytes, kek: Any, state: str) -> None:
        if self._type is KeyType.AES:
            # SoftHSM2 does not know how long an AES key is that it unwrapped, and won't be told.
            self.create(label, unwrapped_value(blob, kek), state)
            return
        with self._token.changing():
            kek.unwrap_key(
                ObjectClass.SECRET_KEY,
                self._type,
                blob,
                label=label,
                id=state.encode(),
                store=True,
                mechanism=Mechanism.AES_KEY_WRAP,
                template=_template(label),
            )
        _log.info("key_restored", label=label)

    def _key(self, label: str) -> Any:
        key = self._token.find(label)
        if key is None:
            raise KeyError(label)
        return key


def _template(label: str) -> dict[Attribute, Any]:
    """Every use said in full: a module may allow what is not said of a created key."""
    what = labels.meaning(label)
    uses = {use: use in _USES[what.usage] for use in _ALL_USES}
    return {**(LOCKED_IN if what.kind is Kind.KEK else EXPORTABLE), Attribute.PRIVATE: True, **uses}
