"""Initialise a blank PKCS#11 token, in a process of its own (`token.create_token` starts it).

Standard input: one JSON object with module, label, so_pin, pin. So the PINs stand on no command
line, and the caller's process needs no second configuration of the module.
Standard library only, since it runs isolated (`python -I`).
"""

from __future__ import annotations

import ctypes
import json
import sys

_ULONG = ctypes.c_ulong
_CKF_RW_SERIAL = 0x2 | 0x4
_CKU_SO = 0


def _call(module: ctypes.CDLL, name: str, *arguments: object) -> None:
    function = getattr(module, name)
    function.restype = _ULONG
    result = function(*arguments)
    if result:
        raise SystemExit(f"{name} failed: CKR 0x{result:08X}")


def main() -> None:
    """PKCS#11 2.40, 5.5 and 5.6: C_InitToken by the security officer, then C_InitPIN."""
    order = json.load(sys.stdin)
    pin, so_pin = order["pin"].encode(), order["so_pin"].encode()
    module = ctypes.CDLL(order["module"])
    _call(module, "C_Initialize", None)
    slots, count = (_ULONG * 1)(), _ULONG(1)
    _call(module, "C_GetSlotList", ctypes.c_ubyte(0), slots, ctypes.byref(count))
    slot = _ULONG(slots[0])
    label = order["label"].encode().ljust(32)
    _call(module, "C_InitToken", slot, so_pin, _ULONG(len(so_pin)), label)
    # SoftHSM2 gives an initialised token a slot number of its own, known after a new start.
    _call(module, "C_Finalize", None)
    _call(module, "C_Initialize", None)
    slots, count = (_ULONG * 2)(), _ULONG(2)
    _call(module, "C_GetSlotList", ctypes.c_ubyte(1), slots, ctypes.byref(count))
    session = _ULONG()
    _call(
        module,
        "C_OpenSession",
        _ULONG(slots[0]),
        _ULONG(_CKF_RW_SERIAL),
        None,
        None,
        ctypes.byref(session),
    )
    _call(module, "C_Login", session, _ULONG(_CKU_SO), so_pin, _ULONG(len(so_pin)))
    _call(module, "C_InitPIN", session, pin, _ULONG(len(pin)))
    _call(module, "C_Finalize", None)


if __name__ == "__main__":
    main()
