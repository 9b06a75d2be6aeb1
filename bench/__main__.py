"""`make bench`: all measurements in one run, one after another."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import click

from bench import agent, flat, keys, ledgers, one_process, results, whole_centre
from bench.stations import Load
from centre import logs

KEPT = Path("out/history/kept")
CARDS_PER_SECOND = 0.83
"""Of one station: a card takes it 1.2 s."""


@dataclass(frozen=True)
class Size:
    """How much is measured. Smaller sizes prove that the bench runs, and nothing else."""

    rounds: int = 7
    cards: int = 250
    """Of a round of the lines."""
    agent_rounds: int = 9
    agent_cards: int = 40
    stations: tuple[int, ...] = (12, 25, 50, 100, 200)
    """The last is the load of the aim."""
    warm_seconds: float = 3.0
    seconds: float = 10.0
    key_rounds: int = 15
    ledgers: ledgers.Size = field(default_factory=ledgers.Size)


def run(size: Size, place: Path) -> results.Results:
    """Measure everything, in the empty directory `place`; the figures."""
    busy = os.getloadavg()[0]
    click.echo("零 keys of chips, and the ciphers beneath")
    prepared = keys.measure(place / "keys", size.key_rounds)
    click.echo("一 floor, lines and chips in one process")
    lines = one_process.measure(place / "lines", size.rounds, size.cards)
    click.echo("二 the agent and a bare loop through pcscd")
    tray = min((place / "lines" / "delivery" / "trays").glob("*.jsonl"))
    script = lines.lines[0].script
    compared = agent.measure(place, tray, script, size.agent_rounds, size.agent_cards)
    click.echo(f"三 up to {size.stations[-1]} stations at a whole centre")
    loads = [
        Load(stations, CARDS_PER_SECOND, size.warm_seconds, size.seconds)
        for stations in size.stations
    ]
    carried = whole_centre.measure(place / "centre", loads)
    click.echo(f"四 both ledgers, with {size.ledgers.history:,} cards of history")
    KEPT.mkdir(parents=True, exist_ok=True)
    with flat.places(place, place) as databases:
        of_ledgers = ledgers.measure(databases, size.ledgers, KEPT, place / "ledgers")
    return results.gather(lines, compared, carried, prepared, busy) | of_ledgers


@click.command()
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), default=Path("bench"),
    show_default=True, help="Where results.json and RESULTS.md are written.",
)  # fmt: skip
def main(out: Path) -> None:
    """Measure the centre on this machine (alone on it, if the figures are to mean something)."""
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        place = Path(directory)
        logs.configure(place / "bench.log", "json")
        measured = run(Size(), place)
    results.write(out, measured)
    click.echo((out / "RESULTS.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
