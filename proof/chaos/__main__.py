"""`make chaos`: a floor under SIGKILL, and what an auditor finds afterwards."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click

from centre.config import load
from centre.demo_terminal import DemoError
from ledger.queries import Queries
from proof.audit import audit
from proof.chaos.floor import ENVELOPES
from proof.chaos.pauses import Kill, commit_times, pause_after
from proof.chaos.run import DATABASE, Chaos, Ended, Hangs, run
from proof.evidence import BrokenPromise
from proof.postgres import running

FRESH_SEEDS = 1_000_000
"""Seeds that are drawn are below it: they number the batch."""


@click.command()
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True)
@click.option("--cards", type=click.IntRange(1, 100_000), default=20_000, show_default=True)
@click.option("--kills", type=click.IntRange(1), default=50, show_default=True)
@click.option("--seed", type=click.IntRange(0), help="Default: a fresh one, which is said.")
@click.option("--fresh", is_flag=True, help="Remove a run that is there and begin anew.")
@click.option(
    "--ledger", type=click.Choice(("postgresql", "sqlite")), default="postgresql", show_default=True
)
def main(out: Path, cards: int, kills: int, seed: int | None, fresh: bool, ledger: str) -> None:
    """Kill processes of a whole floor at random moments while it works, and audit what is left.

    The last line has the figures. Exit code 1: a promise was broken, and the lines before it say
    which. Example: python -m proof.chaos --out out/chaos --cards 300 --kills 6 --seed 7
    """
    if seed is None:
        seed = time.time_ns() % FRESH_SEEDS
    chaos = Chaos(out.resolve(), seed, cards, kills, fresh)
    _say(f"seed {seed}, {cards:,} cards, {kills} kills, {ledger}, home {chaos.home}")
    if ledger == "sqlite":
        kept = _run(chaos)
    else:
        # A short path, for its socket, that the server's own OS account reaches.
        directory = Path(tempfile.mkdtemp(prefix="cards-"))
        directory.chmod(0o755)
        with running(directory / "db") as server:
            server.create(DATABASE)
            kept = _run(replace(chaos, postgres=server))
        if kept:
            shutil.rmtree(directory)
        else:
            click.echo(f"the ledger is kept in {directory}")
    sys.exit(0 if kept else 1)


def _run(chaos: Chaos) -> bool:
    """The run and its closing line; whether all promises were kept."""
    began = time.monotonic()
    kills: list[Kill] = []
    try:
        run(chaos, _say, kills)
        broken = _broken(chaos, kills)
    except DemoError as e:
        raise click.UsageError(str(e)) from None
    except (Hangs, Ended) as e:
        broken = str(e)
    if broken:
        click.echo(broken)
    click.echo(closing_line(chaos, kills, time.monotonic() - began, kept=not broken))
    return not broken


def _say(text: str) -> None:
    click.echo(f"{time.strftime('%H:%M:%S')} {text}")


def _broken(chaos: Chaos, kills: Sequence[Kill]) -> str:
    """Which promise was not kept, if one was not."""
    if len(kills) < chaos.kills:
        return f"the run was over after {len(kills)} kills: more cards are needed"
    verified = _centre(chaos, "verify")
    if verified.returncode:
        return f"centre verify: {verified.stdout}{verified.stderr}"
    try:
        audit(chaos.home, chaos.home / ENVELOPES)
    except BrokenPromise as e:
        return f"{e}\n{_centre(chaos, 'body', e.card).stdout}"
    return ""


def _centre(chaos: Chaos, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "centre", *arguments, "--home", str(chaos.home)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def closing_line(chaos: Chaos, kills: Sequence[Kill], seconds: float, *, kept: bool) -> str:
    by_victim = ", ".join(f"{v} {n}" for v, n in sorted(Counter(k.victim for k in kills).items()))
    queries = Queries(load(chaos.home).ledger)
    times = commit_times(queries)
    queries.close()
    if not kept:
        times.append(time.time())  # what never went on again is a pause as well
    pauses = {k: pause_after(k, times) for k in kills}
    longest = max(kills, key=pauses.__getitem__, default=None)
    said = ""
    if longest is not None:
        end = longest.at + pauses[longest]
        within = " + ".join(k.victim for k in kills if longest.at <= k.at < end)
        said = f", longest pause {pauses[longest]:.1f} s ({within})"
    verdict = "every card once: OK" if kept else "BROKEN"
    return (
        f"chaos: seed {chaos.seed}, {chaos.cards:,} cards, {len(kills)} kills ({by_victim}){said},"
        f" {seconds:,.0f} s, {verdict}"
    )


if __name__ == "__main__":
    main()
