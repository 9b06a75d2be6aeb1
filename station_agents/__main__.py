"""`python -m station_agents`: see `agent`."""

import sys

from station_agents.agent import main

if __name__ == "__main__":
    sys.exit(main())
