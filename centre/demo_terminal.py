"""A terminal at which one person of a demo works: a process of its own that runs `centre` commands,
one after the other, in that person's login session.

    python -m centre.demo_terminal --home HOME --session FILE

Standard input has a command a line: {"args": [...], "typed": what would be typed hidden}; the
answer is a line too: {"code": exit code, "said": what the command printed}. It ends with its input.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from centre.options import AWAY
from domain.changes import Away
from ledger.queries import Queries

T = TypeVar("T")

AWAY_SECONDS = 120.0


class DemoError(Exception):
    """The demo can't go on; the message says what to do."""


class Patient(Queries):
    """A reading connection of somebody who looks again while the ledger's database is away."""

    def __init__(self, url: str | Path) -> None:
        self._retried(lambda: super(Patient, self).__init__(url))

    def rows(self, sql: str, *parameters: Any) -> list[dict[str, Any]]:
        return self._retried(lambda: super(Patient, self).rows(sql, *parameters))

    def _retried(self, look: Callable[[], T]) -> T:
        deadline = time.monotonic() + AWAY_SECONDS
        while True:
            try:
                return look()
            except Away:
                if time.monotonic() > deadline:
                    raise DemoError("the ledger's database does not answer") from None
                time.sleep(0.3)  # until it has been started again


@dataclass(frozen=True)
class Said:
    """What a command answered."""

    code: int
    said: str


class Terminal:
    """The process, as the demo speaks to it."""

    def __init__(self, home: Path, session: Path, log: Path) -> None:
        command = [sys.executable, "-m", "centre.demo_terminal", "--home", str(home)]
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [*command, "--session", str(session)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                encoding="utf-8",
            )

    def run(self, args: Sequence[str], typed: str = "") -> Said:
        """While the centre is away the command is run again, as a person would. Raises
        DemoError when the process has ended."""
        deadline = time.monotonic() + AWAY_SECONDS
        while True:
            said = self._once(args, typed)
            if said.code != AWAY or time.monotonic() > deadline:
                return said
            time.sleep(0.3)  # until its keeper has started it

    def _once(self, args: Sequence[str], typed: str) -> Said:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"args": list(args), "typed": typed}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise DemoError("a terminal has ended: see log/people.out")
        return Said(**json.loads(line))

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def _work(home: str, session: str) -> None:
    from centre.cli import main

    for line in sys.stdin.buffer:
        asked = json.loads(line)
        out = io.StringIO()
        sys.stdin = io.StringIO(asked["typed"])
        args = [*asked["args"], "--home", home, "--session", session]
        with redirect_stdout(out), redirect_stderr(out):
            try:
                main(args, prog_name="centre")
                code = 0
            except SystemExit as e:
                code = e.code if isinstance(e.code, int) else 0
        answer = {"code": code, "said": out.getvalue()}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _work(sys.argv[2], sys.argv[4])
