"""A station that shows its metrics and begins to work when a file is there:
`python -m tests.telemetry.waiting_station FILE --station ID --metrics DIR ...`."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from station_agents import agent, metrics
from telemetry.endpoint import open_endpoint


def main() -> int:
    go, *arguments = sys.argv[1:]
    parser = argparse.ArgumentParser()
    parser.add_argument("--station")
    parser.add_argument("--metrics", type=Path)
    options, _ = parser.parse_known_args(arguments)
    metrics.expect(agent.STAGES, [])
    open_endpoint(options.metrics, options.station)
    while not Path(go).exists():
        time.sleep(0.1)  # another process's file: there is no event to wait for
    return agent.main(arguments)


if __name__ == "__main__":
    sys.exit(main())
