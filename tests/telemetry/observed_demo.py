"""A demo whose stations wait for a file, and that stays when all is done until its input ends:
`python -m tests.telemetry.observed_demo HOME CARDS GO_FILE`."""

from __future__ import annotations

import sys
from pathlib import Path

from centre.demo import Demo, prepare_home, run


def main() -> int:
    home, cards, go = sys.argv[1:]
    demo = Demo(
        Path(home).resolve(),
        seed=4,
        cards=int(cards),
        station_command=(sys.executable, "-m", "tests.telemetry.waiting_station", go),
        on_done=sys.stdin.read,
    )
    prepare_home(demo)
    result = run(demo)
    return 0 if result["reconciled"] and not result["in_work"] else 1


if __name__ == "__main__":
    sys.exit(main())
