"""Every name, number, key and PIN of a demo, in the forms that a careless line would write it in,
and where they are found.

`INTENDED` are the places that hold them on purpose, by name. Everything else in a home, and all
that its processes said, must be free of them.
"""

from __future__ import annotations

import base64
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes

NUMBERS = ("identity_number", "bank_card_number", "social_card_number")
INTENDED = {
    "return": "the centre return: numbers of its cards",
    "lists": "sorting and packing lists: names and numbers of holders",
    "inbox": "factory returns and corrections as they came",
    "sent": "what card management and the factory hold",
    "trays": "the plastic: what stands on its chips, keys too",
    "keys": "the token and its PIN files",
    "people": "what the people of the demo know: passwords, tokens of sessions",
}
SHORTEST_IN_A_DATABASE = 6
"""Bytes. Pages of a database hold every pair of bytes: a name of two characters in GB 18030 would
be found by chance."""
SHORTEST_ENCODED = 6
"""Bytes. Logs and databases are full of hex digits (ids, digests): a name of two characters in GB
18030 has 8 of them, or 4 of base64, and is met by chance. In UTF-8 it has 6 bytes."""
_CHUNK = 1 << 18


def secrets_of(home: Path, trays: Iterable[Path]) -> dict[bytes, str]:
    """What to look for, and what each is. `trays`: directories with plastic, as it was made and
    as it is in the end."""
    found: dict[bytes, str] = {}
    for source in sorted((home / "sent").glob("factory_return*.jsonl")):
        for line in source.read_text("utf-8").splitlines():
            record = json.loads(line)
            found |= dict.fromkeys(_forms_of_text(record["name"]), "a name")
            for name in NUMBERS:
                found |= dict.fromkeys(_forms_of_text(record[name]), name)
    for directory in trays:
        for tray in directory.glob("tray-*.jsonl"):
            for line in tray.read_text("utf-8").splitlines()[1:]:
                for key in _keys_of(json.loads(line)):
                    found |= dict.fromkeys(_forms(bytes.fromhex(key)), "a key of a chip")
    for pin in ("pin", "so-pin", "owner"):
        found |= dict.fromkeys(_forms((home / "keys" / pin).read_bytes()), f"keys/{pin}")
    for file in (home / "people").glob("*.session"):
        found |= dict.fromkeys(_forms(file.read_bytes()), "a session's token")
    for password in json.loads((home / "people" / "passwords.json").read_text("ascii")).values():
        found |= dict.fromkeys(_forms(password.encode()), "a password")
    return found


def _keys_of(card: dict[str, Any]) -> Iterator[str]:
    """Of both sides of a chip, in hex."""
    yield from (key["value"] for key in card["social"]["keys"])
    for _, _, keys, _ in card.get("financial", {}).get("key_sets", ()):
        yield from keys


def _forms_of_text(text: str) -> Iterator[bytes]:
    yield from _forms(text.encode("utf-8"))
    yield from _forms(text.encode("gb18030"))
    if not text.isascii():
        escaped = json.dumps(text)[1:-1]
        yield escaped.encode("ascii")
        yield escaped.upper().replace("\\U", "\\u").encode("ascii")


def _forms(raw: bytes) -> Iterator[bytes]:
    """As it is, in hex, in base64 wherever it begins in a longer text, as `repr` and in a URL."""
    yield raw
    yield raw.hex(" ").upper().encode("ascii")
    if len(raw) >= SHORTEST_ENCODED:
        yield raw.hex().encode("ascii")
        yield raw.hex().upper().encode("ascii")
        yield from _within_base64(raw)
    if not raw.isascii():
        yield repr(raw)[2:-1].encode("ascii")
        yield quote_from_bytes(raw).encode("ascii")


def _within_base64(raw: bytes) -> Iterator[bytes]:
    """The digits that depend on `raw` alone, for each of the three ways it can lie."""
    for before in range(3):
        text = base64.b64encode(bytes(before) + raw)
        first = (before * 8 + 5) // 6
        last = (before + len(raw)) * 8 // 6
        yield text[first:last]


def files_of(home: Path) -> Iterator[Path]:
    """Everything in a home that is not there on purpose."""
    for path in sorted(home.rglob("*")):
        if path.is_file() and path.relative_to(home).parts[0] not in INTENDED:
            yield path


def found_in(files: Iterable[Path], secrets: dict[bytes, str]) -> list[str]:
    """`file: what` for everything that is where it must not be, never the secret itself."""
    by_head: dict[int, dict[bytes, list[bytes]]] = {4: defaultdict(list), 8: defaultdict(list)}
    for secret in secrets:
        size = 8 if len(secret) >= 8 else 4
        by_head[size][secret[:size]].append(secret)
    findings = set()
    for path in files:
        content = path.read_bytes()
        shortest = SHORTEST_IN_A_DATABASE if path.name.startswith("ledger.db") else 4
        for size, heads in by_head.items():
            for head in heads.keys() & _grams(content, size, heads.keys()):
                findings |= {
                    f"{path.name}: {secrets[s]}"
                    for s in heads[head]
                    if len(s) >= shortest and s in content
                }
    return sorted(findings)


def _grams(content: bytes, size: int, wanted: Iterable[bytes]) -> set[bytes]:
    """Those of `wanted` (pieces of `size` bytes) that stand anywhere in `content`: a million
    places against thousands of secrets, in one walk."""
    wanted = set(wanted)
    seen: set[bytes] = set()
    for start in range(0, len(content), _CHUNK):
        part = content[start : start + _CHUNK + size - 1]
        seen |= wanted & {part[i : i + size] for i in range(len(part) - size + 1)}
    return seen
