"""The floor that is killed: a demo whose custodians put their components away for the auditor.

    python -m proof.chaos.floor HOME SEED CARDS LEDGER

Started again on the same home it goes on.
"""

from __future__ import annotations

import sys
from pathlib import Path

from centre.demo import Demo, prepare_home, run

ENVELOPES = "envelopes"


def demo(home: Path, seed: int, cards: int, ledger: str) -> Demo:
    return Demo(home, seed, cards, envelopes=home / ENVELOPES, ledger=ledger)


def main() -> int:
    home, seed, cards, ledger = sys.argv[1:]
    job = demo(Path(home), int(seed), int(cards), ledger)
    prepare_home(job)
    result = run(job)
    return 0 if result["reconciled"] and not result["in_work"] else 1


if __name__ == "__main__":
    sys.exit(main())
