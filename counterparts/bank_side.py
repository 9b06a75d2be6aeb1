"""The financial side of a finished batch card: the bank had it personalized at the factory.

The keys are the bank's; the centre never learns them. Layout: docs/files.md, "Tray".
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

from counterparts.orders import Order

_MANAGER, _UNIONPAY = "A000000151000000", "A000000333010101"
_DIRECTORY: Final = b"1PAY.SYS.DDF01".hex().upper()
_SECURED, _PERSONALIZED = 0x0F, 0x0F
_KEY_VERSION: Final = 0x20
_TRIES: Final = 10
_CPLC: Final = bytes(42).hex()
_LABEL: Final = b"UnionPay Debit".hex().upper()
_EXPIRY: Final = "351231"


def _template(tag: str, content: str) -> str:
    """A BER-TLV object of less than 128 bytes, in hex."""
    return f"{tag}{len(content) // 2:02X}{content}"


_ENTRY: Final = _template("61", _template("4F", _UNIONPAY) + _template("50", _LABEL))
_ENTRIES: Final = {"0101": _template("70", _ENTRY), "9102": _template("A5", "880101")}


def finished(order: Order) -> dict[str, Any]:
    """The row of the card of `order`: card manager secured, directory and UnionPay application
    personalized, with keys that follow from the card number."""
    secret = hashlib.shake_256(f"bank/{order.bank_card_number}".encode()).hexdigest(104).upper()
    keys = [secret[at : at + 32] for at in (0, 32, 64)]
    number = order.bank_card_number + "F" * (len(order.bank_card_number) % 2)
    track = f"{order.bank_card_number}D{_EXPIRY[:4]}220"
    track += "F" * (len(track) % 2)
    application = {
        "0101": _template("70", _template("57", track)),
        "0201": _template("70", _template("5A", number) + _template("5F24", _EXPIRY)),
        "9102": _template("A5", _template("50", _LABEL)),
        "9104": "82027C00" + "9408" + "0801010010010100",
        "8000": secret[96:192],
        "8010": secret[192:],
        "9010": "0303",
    }
    return {
        "manager": _MANAGER,
        "state": _SECURED,
        "diversification": "0000" + order.identification_code[16:],
        "cplc": _CPLC,
        "tries": _TRIES,
        "tries_left": _TRIES,
        "key_sets": [[_KEY_VERSION, "3des", keys, 0]],
        "applications": {
            _DIRECTORY: {"state": _PERSONALIZED, "dgis": _ENTRIES},
            _UNIONPAY: {"state": _PERSONALIZED, "dgis": application},
        },
    }
