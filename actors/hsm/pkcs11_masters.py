"""3DES masters in the PKCS#11 token: level 1 stays there, level 2 is one call for a whole chunk."""

from __future__ import annotations

import ctypes
import struct
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pkcs11
import structlog
from pkcs11 import Attribute, KeyType, Mechanism, MechanismFlag, ObjectClass
from pkcs11.exceptions import PKCS11Error

from actors.hsm.masters import MasterState, check_value
from actors.hsm.self_test import TWO_KEYS, KnownAnswer, throw_away
from actors.hsm.suites import TRIPLE_DES, factor_block
from actors.hsm.token import EXPORTABLE, LOCKED_IN, KeyToken
from actors.hsm.transport import blamed, unwrap
from domain.provider import Operation, Where

KEY_LENGTH = 16
CAPABILITIES = MechanismFlag.ENCRYPT | MechanismFlag.DERIVE
"""ENCRYPT for the check value. It gives nothing away that DERIVE would not."""

_CITY_KEYS = 512
"""City keys held as session objects; 6 usages of about 40 batches and cities at a time."""
DERIVES_ONLY = {
    Attribute.ENCRYPT: True,
    Attribute.DERIVE: True,
    Attribute.DECRYPT: False,
    Attribute.SIGN: False,
    Attribute.VERIFY: False,
    Attribute.WRAP: False,
    Attribute.UNWRAP: False,
}
"""Said in full: a module may allow what is not said of a created key."""
_log = structlog.get_logger(__name__)


def derive_in_token(master: Any, factor: bytes) -> Any:
    """The next level's key as a session object that cannot be read out.

    CKM_DES3_ECB_ENCRYPT_DATA (PKCS#11 2.40, 2.13.4): the parameter is pointer ‖ length.
    """
    block = factor_block(factor)
    buffer = ctypes.create_string_buffer(block, len(block))
    return master.derive_key(
        KeyType.DES2,
        8 * KEY_LENGTH,
        mechanism=Mechanism.DES3_ECB_ENCRYPT_DATA,
        mechanism_param=struct.pack("<QQ", ctypes.addressof(buffer), len(block)),
        template={
            # The length of a DES2 key is fixed, and the module refuses to be told.
            Attribute.VALUE_LEN: pkcs11.constants.DEFAULT,
            **LOCKED_IN,
            Attribute.ENCRYPT: True,
        },
    )


class Pkcs11Masters:
    """`Masters` in the token; the state of a key is its CKA_ID. The city keys used last are kept
    in the session (not in this process)."""

    suite = TRIPLE_DES
    exportable = True

    def __init__(self, token: KeyToken, city_keys: int = _CITY_KEYS) -> None:
        self._token = token
        self._capacity = city_keys
        self._masters: dict[str, Any] = {}
        self._states: dict[str, str] = {}
        self._cities: OrderedDict[tuple[str, bytes], Any] = OrderedDict()
        self.known_answers: Sequence[KnownAnswer] = KNOWN_ANSWERS

    def labels(self) -> list[str]:
        found = self._token.session.get_objects(
            {
                Attribute.CLASS: ObjectClass.SECRET_KEY,
                Attribute.KEY_TYPE: KeyType.DES2,
                Attribute.TOKEN: True,
            }
        )
        return sorted(key[Attribute.LABEL] for key in list(found))

    def state(self, label: str) -> str:
        if label not in self._states:
            key = self._find(label)
            if key is None:
                return ""
            self._states[label] = key[Attribute.ID].decode("ascii", "replace")
        return self._states[label]

    def chip_keys(self, label: str, city: bytes, chips: Sequence[bytes]) -> list[bytes]:
        key = self._city(label, city)
        blocks = b"".join(map(factor_block, chips))
        raw: bytes = key.encrypt(blocks, mechanism=Mechanism.DES3_ECB)
        return [raw[at : at + KEY_LENGTH] for at in range(0, len(raw), KEY_LENGTH)]

    def check_block(self, label: str) -> bytes:
        return _check_block(self._master(label))

    def check_value(self, label: str) -> str:
        return check_value(self.check_block(label))

    def create(self, label: str, key: bytes, state: str) -> None:
        if len(key) != KEY_LENGTH:
            raise ValueError(f"a master has {KEY_LENGTH} bytes")
        with self._making(label):
            self._token.session.create_object(
                {
                    Attribute.CLASS: ObjectClass.SECRET_KEY,
                    Attribute.KEY_TYPE: KeyType.DES2,
                    Attribute.VALUE: key,
                    Attribute.TOKEN: True,
                    Attribute.PRIVATE: True,
                    Attribute.LABEL: label,
                    Attribute.ID: _state(state),
                    **EXPORTABLE,
                    **DERIVES_ONLY,
                }
            )
        _log.info("key_created", label=label)

    def try_sealed(self, sealed: bytes) -> bytes:
        key = unwrap(self._token, KeyType.DES2, sealed, LOCKED_IN, CAPABILITIES)
        block = self._proven(key)
        key.destroy()
        return block

    def take_sealed(self, label: str, sealed: bytes, state: str) -> None:
        template = {**LOCKED_IN, Attribute.ID: _state(state)}
        with self._making(label):
            key = unwrap(self._token, KeyType.DES2, sealed, template, CAPABILITIES, label=label)
            self._proven(key)
        _log.info("key_imported", label=label)

    def wrapped(self, label: str, kek: Any) -> bytes:
        blob: bytes = kek.wrap_key(self._master(label), mechanism=Mechanism.AES_KEY_WRAP)
        return blob

    def take_wrapped(self, label: str, blob: bytes, kek: Any, state: str) -> None:
        with self._making(label):
            kek.unwrap_key(
                ObjectClass.SECRET_KEY,
                KeyType.DES2,
                blob,
                store=True,
                label=label,
                id=_state(state),
                mechanism=Mechanism.AES_KEY_WRAP,
                capabilities=CAPABILITIES,
                template={**EXPORTABLE, Attribute.PRIVATE: True},
            )
        _log.info("key_restored", label=label)

    def set_state(self, label: str, state: str) -> None:
        with self._token.changing():
            self._master(label)[Attribute.ID] = _state(state)
            self._states.pop(label, None)
        _log.info("key_state", label=label, state=state)

    def destroy(self, label: str) -> None:
        with self._token.changing():
            key = self._find(label)
            if key is None:
                return
            for at in [at for at in self._cities if at[0] == label]:
                self._cities.pop(at).destroy()
            key.destroy()
            del self._masters[label]
            self._states.pop(label, None)
        _log.info("key_destroyed", label=label)

    def forget(self) -> None:
        self._masters.clear()
        self._states.clear()
        self._cities.clear()

    def operations(self) -> list[Operation]:
        return [
            Operation("derive_city_key", Where.TOKEN),
            Operation(
                "derive_chip_keys", Where.SOFTWARE, "PKCS#11 has no retail MAC, no WRITE KEY"
            ),
            Operation("take_sealed_key", Where.TOKEN),
            Operation("join_components", Where.SOFTWARE, "PKCS#11 joins no keys"),
            Operation("check_value", Where.TOKEN),
            Operation("back_up", Where.TOKEN),
        ]

    def _proven(self, key: Any) -> bytes:
        """The check block under a key that was unwrapped: SoftHSM2 unwraps any number of bytes,
        and enciphers under none but 16. What is no key is destroyed."""
        try:
            return _check_block(key)
        except PKCS11Error:
            key.destroy()
            raise blamed(self._token) from None

    def _find(self, label: str) -> Any:
        if label not in self._masters:
            master = self._token.find(label)
            if master is None:
                return None
            self._masters[label] = master
        return self._masters[label]

    def _master(self, label: str) -> Any:
        master = self._find(label)
        if master is None:
            raise KeyError(label)
        return master

    def _city(self, label: str, city: bytes) -> Any:
        at = (label, city)
        key = self._cities.get(at)
        if key is None:
            if len(self._cities) >= self._capacity:
                self._cities.popitem(last=False)[1].destroy()
            key = self._cities[at] = derive_in_token(self._master(label), city)
        else:
            self._cities.move_to_end(at)
        return key

    @contextmanager
    def _making(self, label: str) -> Iterator[None]:
        with self._token.changing():
            if self._token.find(label) is not None:
                raise ValueError(f"there is a master {label}")
            yield


def _state(state: str) -> bytes:
    return MasterState(state).encode("ascii")


def _check_block(key: Any) -> bytes:
    block: bytes = key.encrypt(TRIPLE_DES.check_block, mechanism=Mechanism.DES3_ECB)
    return block


def _des_in_token(session: pkcs11.Session) -> bytes:
    key = throw_away(session, KeyType.DES2, TWO_KEYS)
    try:
        return _check_block(key)
    finally:
        key.destroy()


def _derived_in_token(session: pkcs11.Session) -> bytes:
    master = throw_away(session, KeyType.DES2, TWO_KEYS)
    derived = derive_in_token(master, bytes(8))
    try:
        return _check_block(derived)
    finally:
        derived.destroy()
        master.destroy()


KNOWN_ANSWERS = (
    KnownAnswer(
        "token-3des",
        "widely published check value of the ISO/IEC 9797-1 key pair (block of 00)",
        bytes.fromhex("08D7B4FB629D0885"),
        _des_in_token,
    ),
    KnownAnswer(
        "token-derive",
        "the same derivation by the cipher that the vectors of the suite prove",
        TRIPLE_DES.encipher(TRIPLE_DES.encipher(TWO_KEYS, factor_block(bytes(8))), bytes(8)),
        _derived_in_token,
    ),
)
