"""Runs `centre chip` in a process of its own (libpcsclite reads its socket's name once): command
lines as JSON on standard input, [exit code, output, errors] of each as JSON on standard output."""

from __future__ import annotations

import json
import os
import sys

from click.testing import CliRunner

from centre.cli import main

done = [CliRunner().invoke(main, ["chip", *line]) for line in json.load(sys.stdin)]
sys.stdout.write(json.dumps([[d.exit_code, d.stdout, d.stderr] for d in done]))
sys.stdout.flush()
os._exit(0)  # a reader that hangs has a thread
