"""Keys under a KEK, as a file (docs/files.md, Key backup), and that nobody changed it.

The file is bound by HMAC-SHA-256 under a key that was made for it in the token and lies in it
wrapped: who has not the KEK can neither change the file nor write another one.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pkcs11 import KeyType, Mechanism, MechanismFlag, ObjectClass
from pkcs11.exceptions import PKCS11Error

from actors.hsm.token import EXPORTABLE, KeyToken
from domain.changes import canonical_json
from domain.codes import Code
from domain.custody import LARGEST_BLOCK
from domain.provider import KeyEntry, KeyRefused

FORMAT = 1
_MAC_BITS = 256


@dataclass(frozen=True)
class SavedKey:
    """A key as it stands in the file: `wrapped` under the KEK; `public` half of a pair (PEM)."""

    entry: KeyEntry
    wrapped: bytes
    public: str = ""


def sealed(token: KeyToken, kek: Any, version: int, keys: Sequence[SavedKey]) -> bytes:
    """The file that holds `keys`. Raises KeyRefused (FILE_TOO_LARGE) for more than come back."""
    binding = token.session.generate_key(
        KeyType.GENERIC_SECRET,
        _MAC_BITS,
        store=False,
        capabilities=MechanismFlag.SIGN,
        template=EXPORTABLE,
    )
    try:
        content = {
            "format": FORMAT,
            "kek_version": version,
            "binding": kek.wrap_key(binding, mechanism=Mechanism.AES_KEY_WRAP).hex(),
            "keys": [
                {**asdict(key.entry), "wrapped": key.wrapped.hex(), "public": key.public}
                for key in keys
            ],
        }
        blob = canonical_json({**content, "mac": _mac(binding, content)})
    finally:
        binding.destroy()
    if len(blob) > LARGEST_BLOCK:
        raise KeyRefused(Code.FILE_TOO_LARGE, f"{len(keys)} keys: no restore would take it")
    return blob


def kek_version(blob: bytes) -> int:
    """Under which KEK a file lies. Raises KeyRefused (KEY_BACKUP_BAD)."""
    version = _parsed(blob).get("kek_version")
    if not isinstance(version, int) or isinstance(version, bool):
        raise _bad("kek_version")
    return version


def opened(token: KeyToken, kek: Any, blob: bytes) -> list[SavedKey]:
    """The keys of a file that nobody changed. Raises KeyRefused (KEY_BACKUP_BAD)."""
    content = _parsed(blob)
    if _canonical(content) != blob:
        raise _bad("not as it was written")
    mac = content.pop("mac", "")
    try:
        binding = kek.unwrap_key(
            ObjectClass.SECRET_KEY,
            KeyType.GENERIC_SECRET,
            bytes.fromhex(content["binding"]),
            store=False,
            mechanism=Mechanism.AES_KEY_WRAP,
            capabilities=MechanismFlag.SIGN,
            template=EXPORTABLE,
        )
    except (KeyError, TypeError, ValueError):
        raise _bad("binding") from None
    except PKCS11Error:
        # SoftHSM2 answers a wrong KEK with GeneralError. If it is the session that is gone, this
        # raises, too, and the file is not to blame.
        token.session.generate_random(64)
        raise _bad("binding: changed, or sealed under another KEK") from None
    try:
        if not hmac.compare_digest(_mac(binding, content).encode(), str(mac).encode()):
            raise _bad("mac")
    finally:
        binding.destroy()
    return [_saved(item) for item in content["keys"]]


def _saved(item: dict[str, Any]) -> SavedKey:
    wrapped, public = bytes.fromhex(item.pop("wrapped")), item.pop("public")
    return SavedKey(KeyEntry(**item), wrapped, public)


def _mac(binding: Any, content: dict[str, Any]) -> str:
    value: bytes = binding.sign(canonical_json(content), mechanism=Mechanism.SHA256_HMAC)
    return value.hex()


def _parsed(blob: bytes) -> dict[str, Any]:
    if len(blob) > LARGEST_BLOCK:
        raise _bad(f"longer than {LARGEST_BLOCK} bytes")
    try:
        content = json.loads(blob)
    except (ValueError, RecursionError):
        raise _bad("not JSON in UTF-8: changed, or cut off") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise _bad(f"format: must be {FORMAT}")
    return content


def _canonical(content: dict[str, Any]) -> bytes:
    try:
        return canonical_json(content)
    except ValueError:
        # JSON that we never write: NaN, half a surrogate pair.
        raise _bad("not as it was written") from None


def _bad(reason: str) -> KeyRefused:
    return KeyRefused(Code.KEY_BACKUP_BAD, reason)
