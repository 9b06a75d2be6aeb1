"""`make bench-history`: once, what a card costs in a ledger with 10 million cards of history."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import click

from bench import flat, ledgers, results
from bench.chips import BenchError
from centre import logs

BYTES_PER_CARD = {"SQLite": 5_600, "PostgreSQL": 8_200}
"""About, to see before an hour of loading that there is room."""


@click.command()
@click.option("--cards", default=10_000_000, show_default=True, help="Cards of history.")
@click.option(
    "--database", type=click.Choice(["SQLite", "PostgreSQL"]), default="SQLite", show_default=True
)
@click.option(
    "--place", type=click.Path(file_okay=False, path_type=Path), default=Path("out/history"),
    show_default=True, help="Where the ledger is made; removed afterwards.",
)  # fmt: skip
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), default=Path("bench"),
    show_default=True, help="Where HISTORY.md is written.",
)  # fmt: skip
def main(cards: int, database: str, place: Path, out: Path) -> None:
    """Measure once what a card costs in a ledger with many cards of history."""

    place.mkdir(parents=True, exist_ok=True)
    needed, free = cards * BYTES_PER_CARD[database], shutil.disk_usage(place).free
    if needed > free:
        raise BenchError(f"{needed / 1e9:.0f} GB are needed at {place}, {free / 1e9:.0f} are free")
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        logs.configure(Path(directory) / "bench.log", "json")
        size = ledgers.Size(history=cards, seconds=0, open_cards=0)
        with flat.places(place, Path(directory)) as databases:
            chosen = [d for d in databases if d.name == database]
            figures = ledgers.measure(chosen, size, place / "kept", Path(directory))
    figures |= {"machine": results.machine(), "date": results.today(), "commit": results.commit()}
    text = (
        "# Bench with a long history\n\nMade by `make bench-history`; do not edit.\n\n"
        f"{figures['date']} · commit {figures['commit']} · {figures['machine']}\n\n"
        f"{ledgers.page(figures)}\n"
    )
    (out / "HISTORY.md").write_text(text, encoding="utf-8")
    click.echo(text)


if __name__ == "__main__":
    main()
