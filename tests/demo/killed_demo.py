"""A demo whose processes die at named states: `python -m tests.demo.killed_demo HOME CRASH_DIR`."""

from __future__ import annotations

import sys
from pathlib import Path

from centre.demo import Demo, prepare_home, run


def main() -> int:
    home, crashes = Path(sys.argv[1]), sys.argv[2]

    def launcher(name: str) -> tuple[str, ...]:
        return (sys.executable, "-m", f"tests.demo.{name}", crashes)

    demo = Demo(
        home.resolve(),
        seed=4,
        cards=120,
        up_command=launcher("crashing_centre"),
        station_command=launcher("crashing_agent"),
        tray_command=launcher("crashing_tray"),
    )
    prepare_home(demo)
    result = run(demo)
    return 0 if result["reconciled"] and not result["in_work"] else 1


if __name__ == "__main__":
    sys.exit(main())
