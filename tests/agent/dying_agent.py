"""The station agent, killing itself (SIGKILL) at a named state.

`python -m tests.agent.dying_agent STATE` and the arguments of the agent. `segment.after.write` is
the `segment.after` of a segment that writes.
"""

import os
import signal
import sys

from station_agents import agent


def main() -> int:
    deadly = sys.argv[1]
    writing = False

    def at(state: str) -> None:
        nonlocal writing
        writing = state == "write.after" or (writing and state != "segment.before")
        if deadly in (state, f"{state}.write" if writing else ""):
            os.kill(os.getpid(), signal.SIGKILL)

    return agent.main(sys.argv[2:], at)


if __name__ == "__main__":
    sys.exit(main())
