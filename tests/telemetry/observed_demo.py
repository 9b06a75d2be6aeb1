"""A demo that stays when its work is done, until its input ends:
`python -m tests.telemetry.observed_demo HOME CARDS`."""

from __future__ import annotations

import sys
from pathlib import Path

from centre.demo import Demo, prepare_home, run
from centre.processes import Keeper


def _stay(_keeper: Keeper, _sockets: Path) -> None:
    sys.stdin.read()


def main() -> int:
    demo = Demo(
        Path(sys.argv[1]).resolve(),
        seed=4,
        cards=int(sys.argv[2]),
        on_start=_stay,
    )
    prepare_home(demo)
    result = run(demo)
    return 0 if result["reconciled"] and not result["in_work"] else 1


if __name__ == "__main__":
    sys.exit(main())
