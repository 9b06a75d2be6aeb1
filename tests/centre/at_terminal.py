"""The command `centre` at a terminal of its own, as a person has it.

Each command is a process and a session with its own controlling terminal. The processes are forked
from one that has imported the command already: that takes longer than all that they do.
"""

from __future__ import annotations

import multiprocessing
import os
import select
import sys
import termios
import time
from collections.abc import Sequence
from dataclasses import dataclass

from centre.cli import main

SECONDS = 60.0
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload([__name__])


@dataclass(frozen=True)
class Said:
    """What stood on the terminal in the end, and the exit code."""

    text: str
    code: int | None


def at_terminal(*args: str, typed: Sequence[tuple[str, str]] = ()) -> Said:
    """Run `centre ARGS`. `typed`: words that it asks with, and the line that is typed then, once
    the terminal does not show what is typed."""
    ours, theirs = os.openpty()
    process = _processes.Process(target=_run, args=(os.ttyname(theirs), args))
    process.start()
    text, seen, ends = b"", 0, time.monotonic() + SECONDS
    try:
        for words, line in typed:
            while (at := text.find(words.encode(), seen)) < 0 or _shows(ours):
                assert process.is_alive(), text.decode()
                assert time.monotonic() < ends, text.decode()
                text += _read(ours)
            seen = at + len(words)
            os.write(ours, line.encode() + b"\n")
        while process.is_alive() and time.monotonic() < ends:
            text += _read(ours)
        text += _read(ours)
    finally:
        process.kill()
        process.join()
        os.close(theirs)
        os.close(ours)
    return Said(text.decode(), process.exitcode)


def _shows(ours: int) -> bool:
    """Whether what is typed shows."""
    return bool(termios.tcgetattr(ours)[3] & termios.ECHO)


def _read(ours: int) -> bytes:
    return os.read(ours, 65_536) if select.select([ours], [], [], 0.05)[0] else b""


def _run(tty: str, args: Sequence[str]) -> None:
    os.setsid()
    terminal = os.open(tty, os.O_RDWR)  # of this session from now on
    for number in (0, 1, 2):
        os.dup2(terminal, number)
    sys.stdin, sys.stdout, sys.stderr = (
        os.fdopen(n, mode, encoding="utf-8", closefd=False)
        for n, mode in ((0, "r"), (1, "w"), (2, "w"))
    )
    main(list(args))
