"""SM4 masters in a GM/T 0018 (SDF) device: they rest wrapped under a key-encrypting key of the
device and are unwrapped inside it. City and chip keys, for which the standard has no handle, pass
through the provider's memory: *software-assisted*."""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pkcs11

from actors.hsm.sdf_device import SdfDevice
from actors.hsm.self_test import SM4_BLOCK
from actors.hsm.stored_masters import Encipher, StoredMasters
from actors.hsm.suites import CHECK_VALUE, SM4
from actors.hsm.token import KeyToken
from domain.codes import Code
from domain.provider import KeyRefused, Operation, ProviderError, Where


class SdfMasters(StoredMasters):
    """`Masters` under KEK `kek_index` of the device behind `library`. At rest a master is its
    check value ‖ the wrapped key, since the standard's wrapping tells no wrong KEK."""

    exportable = False
    """The device's own backup has them: GM/T 0018 lets none out under another key."""

    def __init__(self, token: KeyToken, library: Path, kek_index: int) -> None:
        self._device = SdfDevice(library, kek_index)
        block = SM4_BLOCK._replace(name="sdf-sm4-ecb", got=self._known_block)
        super().__init__(token, (block,))

    def forget(self) -> None:
        super().forget()
        self._device.close()

    def operations(self) -> list[Operation]:
        no_handle = "GM/T 0018 derives into memory only"
        joined = "a key from outside passes through memory once"
        return [
            Operation("derive_city_key", Where.SOFTWARE, no_handle),
            Operation("derive_chip_keys", Where.SOFTWARE, no_handle),
            Operation("take_sealed_key", Where.SOFTWARE, joined),
            Operation("join_components", Where.SOFTWARE, joined),
            Operation("check_value", Where.TOKEN),
        ]

    def _protect(self, label: str, key: bytes) -> bytes:
        return SM4.check_value(key) + self._device.wrap(key)

    def _value(self, label: str, protected: bytes) -> bytes:
        raise KeyRefused(Code.KEY_STAYS, f"{label}: it lies in an SDF device")

    @contextmanager
    def _master(self, label: str, protected: bytes) -> Iterator[Encipher]:
        value, wrapped = protected[:CHECK_VALUE], protected[CHECK_VALUE:]

        def encipher(blocks: bytes) -> bytes:
            handle = self._device.unwrapped(wrapped)
            # The check block goes along, so that every use proves the key.
            out = self._device.encipher(handle, SM4.check_block + blocks)
            if not hmac.compare_digest(out[:CHECK_VALUE], value):
                raise ProviderError(f"the master {label} rests under another KEK of the device")
            return out[SM4.block :]

        yield encipher

    @contextmanager
    def _key(self, key: bytes) -> Iterator[Encipher]:
        with self._device.loaded(key) as handle:
            yield partial(self._device.encipher, handle)

    def _known_block(self, _: pkcs11.Session) -> bytes:
        key = bytes.fromhex("0123456789ABCDEFFEDCBA9876543210")
        with self._device.loaded(key) as handle:
            return self._device.encipher(handle, key)
