"""Where the processor time of the lines goes, from cProfile."""

from __future__ import annotations

import pstats
from cProfile import Profile
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[1]

LINES = ("actors/chip_line.py", "turns")
PARTS = {
    "floor: provider": ("actors/hsm/pkcs11_provider.py", "perform"),
    "floor: commits": ("ledger/commit.py", "commit"),
    "reads of the ledger": ("ledger/queries.py", "rows"),
}
"""Of the lines, with all that they call. A few reads are the provider's: its quota."""
DECIDING = "deciding: sessions, segments, events"
"""What remains of the lines."""

Row = dict[str, Any]


def parts_of(profile: Profile, cards: int) -> list[Row]:
    """Milliseconds a card of the parts of the lines, under the profiler."""
    spent = _spent(profile)
    seconds = {part: spent.get(at, (0.0, 0.0))[1] for part, at in PARTS.items()}
    seconds[DECIDING] = spent[LINES][1] - sum(seconds.values())
    return [
        {"part": part, "ms_per_card": round(1_000 * s / cards, 3)} for part, s in seconds.items()
    ]


def functions_of(profile: Profile, cards: int, count: int = 12) -> list[Row]:
    """The functions with the most time of their own."""
    own = sorted(_spent(profile).items(), key=lambda item: -item[1][0])[:count]
    return [
        {
            "function": f"{file}: {name}" if file else name,
            "ms_per_card": round(1_000 * t / cards, 3),
        }
        for (file, name), (t, _) in own
    ]


def _spent(profile: Profile) -> dict[tuple[str, str], tuple[float, float]]:
    """Seconds of its own and with what it calls, by file and name."""
    stats: Any = pstats.Stats(profile)
    spent: dict[tuple[str, str], tuple[float, float]] = {}
    for (file, _, name), (_, _, own, whole, _) in stats.stats.items():
        at = (_short(file), name)
        before = spent.get(at, (0.0, 0.0))
        spent[at] = (before[0] + own, before[1] + whole)
    return spent


def _short(file: str) -> str:
    """A path from the root of the repository; the last two parts of a library's."""
    path = Path(file)
    if path.suffix != ".py":
        return ""
    if path.is_relative_to(_ROOT) and ".venv" not in path.parts:
        return str(path.relative_to(_ROOT))
    return "/".join(path.parts[-2:])
