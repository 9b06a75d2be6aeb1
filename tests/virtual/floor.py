"""A small floor for the tests: trays of known chips, a terminal that knows their keys.

The terminal's cryptography is pyca/cryptography, not the chip's pycryptodome.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from domain.card.profile import load_profile
from tests.conformance.chip_terminal import ecb, mac, pad

PROFILE = load_profile("ssc-3des")
SELECT = bytes((0x00, 0xA4, 0x04, 0x00, len(PROFILE.aid))) + PROFILE.aid
GET_CHALLENGE = bytes.fromhex("0084000008")
GET_KEYS = bytes.fromhex("80CA00E000")
READ_NAME = bytes.fromhex("00B2093420")
MK = PROFILE.key("MK").key_id
IRK = PROFILE.key("IRK").key_id
EAK = PROFILE.key("EAK").key_id
STK = PROFILE.key("STK").key_id


def external_authenticate(key_id: int, key: bytes, challenge: bytes) -> bytes:
    return bytes((0x00, 0x82, 0x00, key_id, 8)) + ecb("3des", key, challenge)


def write_key(key_id: int, version: int, loading: bytes, new: bytes, challenge: bytes) -> bytes:
    body = ecb("3des", loading, pad(b"\x10" + new, 8))
    header = bytes((0x84, 0xD4, version, key_id, len(body) + 4))
    return header + body + mac("3des", loading, challenge, header + body)[:4]


def card_line(number: int, *, carton: str = "C1", silent: bool = False) -> dict[str, Any]:
    """A chip whose every byte follows from its number."""
    rng = random.Random(number)
    return {
        "card": f"{number:05d}",
        "carton_id": carton,
        "face_number": f"A{number:08d}",
        "atr": "3B6D00000080318065" + f"{number:016X}"[-14:],
        "silent": silent,
        "social": {
            "records": {
                "05": {"01": "430100D156000005" + f"{number:016X}", "02": "31"},
                "06": {"09": rng.randbytes(30).hex()},
            },
            "keys": [
                {"id": slot.key_id, "version": 0, "value": rng.randbytes(16).hex(),
                 "tries": slot.tries, "tries_left": slot.tries}
                for slot in PROFILE.keys
            ],
            "pin": ["666666", 6, 6],
        },
    }  # fmt: skip


def write_tray(path: Path, cards: list[dict[str, Any]], tray_id: str = "tray-1") -> Path:
    header = {"format": "tray/2", "tray_id": tray_id, "profile": "ssc-3des"}
    path.write_text("".join(json.dumps(row) + "\n" for row in [header, *cards]))
    return path


def key_of(line: Mapping[str, Any], key_id: int) -> bytes:
    return bytes.fromhex(next(k["value"] for k in line["social"]["keys"] if k["id"] == key_id))


class Terminal:
    """`pcsc_client` as a child, and what a terminal does with a chip through it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        root = Path(__file__).parents[2]
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("pcsc_client.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment, "PYTHONPATH": str(root)},
        )
        self("establish")

    def __call__(self, method: str, *arguments: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([method, *arguments]) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def send(self, reader: str, apdu: bytes) -> bytes | None:
        """The card's answer, or None if the reader or the card was lost: the driver then reports
        an error, or success and no bytes."""
        code, answer = self("transmit", reader, apdu.hex())
        return bytes.fromhex(answer) if code == 0 and answer else None

    def open(self, reader: str, seconds: float = 8) -> bool:
        """Wait for a card and connect, past a service or a tray that is just coming back: for up
        to 0.4 s pcscd takes a card for present that is gone, so the card is powered anew."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if self("wait", reader, True, left) and self("connect", reader) == 0:
                if self("reconnect", reader, True) == 0:
                    return True
                self("disconnect", reader)
                self("wait", reader, False, 1)
        return False

    def close(self) -> None:
        self._process.communicate()
