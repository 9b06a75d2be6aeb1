"""A demo whose custodians put their components away, so that a test knows the province's keys:
`python -m tests.demo.watched_demo HOME PLACE SEED CARDS`."""

from __future__ import annotations

import sys
from pathlib import Path

from centre.demo import Demo, run


def main() -> None:
    home, place, seed, cards = sys.argv[1:]
    run(Demo(Path(home), int(seed), int(cards), envelopes=Path(place) / "envelopes"))


if __name__ == "__main__":
    main()
