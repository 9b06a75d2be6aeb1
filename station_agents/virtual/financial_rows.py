"""The financial side of a chip as rows of a tray and its journal (docs/files.md).

Rows that cannot be right raise ValueError, KeyError or TypeError, without a value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from station_agents.virtual.financial_memory import (
    AES,
    DES,
    ChannelTries,
    DgisStored,
    FinancialChange,
    FinancialMemory,
    KeySet,
    KeySetWritten,
    LifeCycle,
    PaymentMemory,
    SequenceCounter,
)

_SUITES: Final = {DES: "3des", AES: "aes"}
_TYPES: Final = {suite: key_type for key_type, suite in _SUITES.items()}
_LENGTHS: Final = {DES: (16,), AES: (16, 24, 32)}


def memory_row(memory: FinancialMemory) -> dict[str, Any]:
    return {
        "manager": _hex(memory.manager),
        "state": memory.state,
        "diversification": _hex(memory.diversification),
        "cplc": _hex(memory.cplc),
        "tries": memory.tries,
        "tries_left": memory.tries_left,
        "key_sets": [_key_set_row(keys) for keys in memory.key_sets],
        "applications": {
            _hex(aid): {"state": application.state, "dgis": _dgis_row(application.dgis)}
            for aid, application in memory.applications.items()
        },
    }


def memory_from(row: Mapping[str, Any]) -> FinancialMemory:
    memory = FinancialMemory(
        manager=bytes.fromhex(row["manager"]),
        state=row["state"],
        diversification=bytes.fromhex(row["diversification"]),
        cplc=bytes.fromhex(row["cplc"]),
        key_sets=[_key_set_from(keys) for keys in row["key_sets"]],
        tries=row["tries"],
        tries_left=row["tries_left"],
        applications={
            bytes.fromhex(aid): PaymentMemory(entry["state"], _dgis_from(entry["dgis"]))
            for aid, entry in row["applications"].items()
        },
    )
    if len(memory.diversification) != 10 or len(memory.cplc) != 42 or memory.tries < 1:
        raise ValueError
    if not all(5 <= len(aid) <= 16 for aid in (memory.manager, *memory.applications)):
        raise ValueError
    return memory


def change_row(change: FinancialChange) -> dict[str, Any]:
    match change:
        case KeySetWritten(replaced, keys):
            return {"key_set": [replaced, _key_set_row(keys)]}
        case SequenceCounter(version, counter):
            return {"sequence": [version, counter]}
        case ChannelTries(left):
            return {"channel_tries": left}
        case DgisStored(aid, dgis, personalized):
            return {"dgis": [_hex(aid), _dgis_row(dgis), personalized]}
        case LifeCycle(aid, state):
            return {"life_cycle": [_hex(aid), state]}


def change_from(row: Mapping[str, Any]) -> FinancialChange:
    match row:
        case {"key_set": [replaced, keys]}:
            return KeySetWritten(replaced, _key_set_from(keys))
        case {"sequence": [version, counter]}:
            return SequenceCounter(version, counter)
        case {"channel_tries": left}:
            return ChannelTries(left)
        case {"dgis": [aid, dgis, personalized]}:
            return DgisStored(bytes.fromhex(aid), _dgis_from(dgis), personalized)
        case {"life_cycle": [aid, state]}:
            return LifeCycle(bytes.fromhex(aid), state)
    raise ValueError("not a change")


def _hex(data: bytes) -> str:
    return data.hex().upper()


def _dgis_row(dgis: Mapping[int, bytes]) -> dict[str, str]:
    return {f"{dgi:04X}": _hex(data) for dgi, data in dgis.items()}


def _dgis_from(row: Mapping[str, str]) -> dict[int, bytes]:
    return {int(dgi, 16): bytes.fromhex(data) for dgi, data in row.items()}


def _key_set_row(keys: KeySet) -> list[Any]:
    return [keys.version, _SUITES[keys.type], [_hex(key) for key in keys.keys], keys.counter]


def _key_set_from(row: Sequence[Any]) -> KeySet:
    version, suite, values, counter = row
    key_type = _TYPES[suite]
    enc, mac, dek = map(bytes.fromhex, values)
    if len({len(enc), len(mac), len(dek)}) != 1 or len(enc) not in _LENGTHS[key_type]:
        raise ValueError
    if not 1 <= version <= 0xFF or counter < 0:
        raise ValueError
    return KeySet(version, key_type, (enc, mac, dek), counter)
