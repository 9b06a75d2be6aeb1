"""The station agent, dying (or killing pcscd) before, within and after a segment that writes.

`python -m tests.demo.crashing_agent CRASH_DIR …` and the arguments of the agent. States:
`agent.write.before`, `.within`, `.after`; `pcscd.write.before`, `.within` kill pcscd instead.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from station_agents import agent
from tests.demo.crash import CrashPoints


def main() -> int:
    crash = CrashPoints(Path(sys.argv[1]))
    # pcscd writes its process id beside its socket.
    pid_file = Path(os.environ["PCSCLITE_CSOCK_NAME"]).with_name("pcscd.pid")

    def at(state: str) -> None:
        if crash.due(f"pcscd.{state}"):
            os.kill(int(pid_file.read_text()), signal.SIGKILL)
        crash(f"agent.{state}")

    return agent.main(sys.argv[2:], at)


if __name__ == "__main__":
    sys.exit(main())
