"""The station agent, killing itself (SIGKILL) at a named state.

`python -m tests.agent.dying_agent STATE` and the arguments of the agent.
"""

import os
import signal
import sys

from station_agents import agent


def main() -> int:
    deadly = sys.argv[1]

    def at(state: str) -> None:
        if state == deadly:
            os.kill(os.getpid(), signal.SIGKILL)

    return agent.main(sys.argv[2:], at)


if __name__ == "__main__":
    sys.exit(main())
