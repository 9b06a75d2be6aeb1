"""Acts on keys that are killed: `python -m tests.hsm.killed_act`.

Reads one JSON object a line: `token` (what a TokenConfig is made of), `suite`, `method`, `args`
(bytes as {"hex": …}) and `at`. The act runs in a child of its own, which kills itself (SIGKILL) at
point `at` of it, counted from 1; a point is either side of each change of the token, and within
one before each use of the session. Answers with one JSON object: `killed`, or `entries` as the act
answered (null for none), and the `inventory` after it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import structlog
from pkcs11 import Session

from actors.hsm.custody import Custody
from actors.hsm.pkcs11_masters import Pkcs11Masters
from actors.hsm.token import KeyToken, TokenConfig
from actors.hsm.wrapped_masters import WrappedMasters
from domain.provider import KeyState
from tests.hsm.test_custody import short_profile


class DyingToken(KeyToken):
    """Kills its process at a point."""

    at = 0
    _changes = 0

    def _point(self) -> None:
        self.at -= 1
        if self.at == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    @property
    def session(self) -> Session:
        if self._changes:
            self._point()
        return super().session

    @contextmanager
    def changing(self) -> Iterator[None]:
        self._point()
        with super().changing():
            self._changes += 1
            yield
            self._changes -= 1
        self._point()


def _value(value: Any) -> Any:
    if isinstance(value, dict):
        return bytes.fromhex(value["hex"]) if "hex" in value else value
    if isinstance(value, list):
        return [_value(item) for item in value]
    return KeyState(value) if value in list(KeyState) else value


def _act(order: dict[str, Any]) -> dict[str, Any]:
    module, conf, label, pin_file = order["token"]
    token = DyingToken(TokenConfig(module, Path(conf), label, Path(pin_file)))
    sm4 = order["suite"] == "sm4"
    masters = WrappedMasters(token) if sm4 else Pkcs11Masters(token)
    custody = Custody(token, masters, short_profile(f"ssc-{order['suite']}"))
    token.at = order["at"]
    done = getattr(custody, order["method"])(*_value(order["args"]))
    token.at = 0
    entries = None if done is None else done if isinstance(done, list) else [done]
    answer: dict[str, Any] = {
        "entries": None if entries is None else [asdict(entry) for entry in entries],
        "inventory": [asdict(entry) for entry in custody.inventory()],
    }
    token.close()
    return answer


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def main() -> None:
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _say(_act(json.loads(line)))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            _say({"killed": True})
        elif status:
            sys.exit(f"the act failed with status {status}")


if __name__ == "__main__":
    main()
