"""A GM/T 0018 (SDF) device through its C library: the few functions that SM4 masters need.

GM/T 0018-2012: 6.2 (device and session), 6.3 (keys), 6.5 (symmetric operations); `SDR_*` and
`SGD_*` are its names. Handles are pointers, results `unsigned int`, 0 is SDR_OK.
"""

from __future__ import annotations

import ctypes
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import POINTER, byref, c_char_p, c_uint, c_void_p, create_string_buffer
from enum import IntEnum
from pathlib import Path
from typing import Any

from domain.provider import ProviderError

SGD_SM4_ECB = 0x00000401
"""Of the masters, and of the KEK under which they rest (6.3.17: keys are enciphered in ECB)."""
_LONGEST = 8 * 1024
"""Bytes of one SDF_Encrypt; devices have a limit, and tell it in no field that all makers fill."""

_KEPT = 64
"""Unwrapped keys held in the session; devices have room for some hundreds."""

_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "SDF_OpenDevice": (POINTER(c_void_p),),
    "SDF_CloseDevice": (c_void_p,),
    "SDF_OpenSession": (c_void_p, POINTER(c_void_p)),
    "SDF_CloseSession": (c_void_p,),
    "SDF_ImportKeyWithKEK": (c_void_p, c_uint, c_uint, c_char_p, c_uint, POINTER(c_void_p)),
    "SDF_ImportKey": (c_void_p, c_char_p, c_uint, POINTER(c_void_p)),
    "SDF_DestroyKey": (c_void_p, c_void_p),
    "SDF_Encrypt": (
        c_void_p, c_void_p, c_uint, c_char_p, c_char_p, c_uint, c_char_p, POINTER(c_uint)
    ),
    # In the headers of several makers, not in the standard of 2012.
    "SDF_GetSymmKeyHandle": (c_void_p, c_uint, POINTER(c_void_p)),
}  # fmt: skip


class Sdr(IntEnum):
    """GM/T 0018-2012, annex A: what a device answers when it does not do as asked."""

    SDR_UNKNOWERR = 0x01000001
    SDR_NOTSUPPORT = 0x01000002
    SDR_COMMFAIL = 0x01000003
    SDR_HARDFAIL = 0x01000004
    SDR_OPENDEVICE = 0x01000005
    SDR_OPENSESSION = 0x01000006
    SDR_KEYNOTEXIST = 0x01000008
    SDR_ALGNOTSUPPORT = 0x01000009
    SDR_ALGMODNOTSUPPORT = 0x0100000A
    SDR_SYMOPERR = 0x0100000F
    SDR_KEYTYPEERR = 0x01000014
    SDR_KEYERR = 0x01000015
    SDR_NOBUFFER = 0x0100001C
    SDR_INARGERR = 0x0100001D


class SdfDevice:
    """One session with a device, opened when first used. After any refusal the session is closed
    with all that it held, and the next use opens another."""

    def __init__(self, library: Path, kek_index: int) -> None:
        self._path, self._kek = library, kek_index
        self._library: ctypes.CDLL | None = None
        self._device, self._session = c_void_p(), c_void_p()
        self._kept: OrderedDict[bytes, c_void_p] = OrderedDict()

    def close(self) -> None:
        """Give up session and device; the keys in them are gone. Never raises."""
        library, session, device = self._library, self._session, self._device
        self._device, self._session = c_void_p(), c_void_p()
        self._kept.clear()
        if library is not None and session.value:
            library.SDF_CloseSession(session)
        if library is not None and device.value:
            library.SDF_CloseDevice(device)

    def wrap(self, key: bytes) -> bytes:
        """A key that came from outside, wrapped under the KEK. The standard of 2012 has no
        function for it; where the library has SDF_GetSymmKeyHandle, the KEK enciphers it."""
        handle = c_void_p()
        self._call("SDF_GetSymmKeyHandle", self._kek, byref(handle))
        try:
            return self.encipher(handle, key)
        finally:
            self.destroy(handle)

    def unwrapped(self, wrapped: bytes) -> c_void_p:
        """The handle of a wrapped key. Those used last are kept in the session."""
        handle = self._kept.pop(wrapped, None)
        if handle is None:
            if len(self._kept) >= _KEPT:
                self.destroy(self._kept.popitem(last=False)[1])
            handle = c_void_p()
            self._call(
                "SDF_ImportKeyWithKEK", SGD_SM4_ECB, self._kek, wrapped, len(wrapped), byref(handle)
            )
        self._kept[wrapped] = handle
        return handle

    @contextmanager
    def loaded(self, key: bytes) -> Iterator[c_void_p]:
        """The handle of a key that is in the memory of this process."""
        handle = c_void_p()
        self._call("SDF_ImportKey", key, len(key), byref(handle))
        try:
            yield handle
        finally:
            self.destroy(handle)

    def destroy(self, handle: c_void_p) -> None:
        """Take a key out of the session; of a session that was lost it is gone already."""
        if self._session.value:
            self._call("SDF_DestroyKey", handle)

    def encipher(self, handle: c_void_p, blocks: bytes) -> bytes:
        """SM4 in ECB over whole blocks."""
        parts = (blocks[at : at + _LONGEST] for at in range(0, len(blocks), _LONGEST))
        return b"".join(self._encrypt(handle, part) for part in parts)

    def _encrypt(self, handle: c_void_p, blocks: bytes) -> bytes:
        out, length = create_string_buffer(len(blocks)), c_uint(len(blocks))
        self._call(
            "SDF_Encrypt", handle, SGD_SM4_ECB, None, blocks, len(blocks), out, byref(length)
        )
        return out.raw[: length.value]

    def _call(self, function: str, *arguments: Any) -> None:
        if not self._session.value:
            self._ask("SDF_OpenDevice", byref(self._device))
            self._ask("SDF_OpenSession", self._device, byref(self._session))
        self._ask(function, self._session, *arguments)

    def _ask(self, function: str, *arguments: Any) -> None:
        if self._library is None:
            self._library = _load(self._path)
        try:
            asked = getattr(self._library, function)
        except AttributeError:
            raise ProviderError(f"the SDF library has no {function}") from None
        result = asked(*arguments)
        if result:
            self.close()
            name = Sdr(result).name if result in list(Sdr) else f"0x{result:08X}"
            raise ProviderError(f"the SDF device: {function} answers {name}")


def _load(path: Path) -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(str(path))
    except OSError as e:
        raise ProviderError(f"the SDF library does not load: {e}") from None
    for name, arguments in _SIGNATURES.items():
        function = getattr(library, name, None)
        if function is not None:
            function.argtypes, function.restype = arguments, c_uint
    return library
