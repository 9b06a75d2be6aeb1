"""The commands that look and change nothing: `find`, `watch`, `doctor`, `chip`, `kat`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console

from centre import show
from centre.config import load
from centre.options import AWAY, REFUSED, WRONG_USE, home_option, json_option, reading, reporting


@click.command()
@click.option(
    "--home",
    type=click.Path(file_okay=False, path_type=Path),
    help="The centre's home (default: the last demo's, if there is one).",
)
@json_option
@reporting
def doctor(home: Path | None, as_json: bool) -> None:
    """Each part of the centre: there, set up, reachable; and the command that mends it.

    Also names the ports of Ray that a firewall has to close. Exit code 0 if all is well, 1 if
    something is to be mended; a centre that is down is no fault. Example: centre doctor --json
    """
    from centre import logs
    from centre.doctor import examine
    from centre.running import last_home

    logs.quiet()
    found = examine(home or last_home())
    if as_json:
        click.echo(json.dumps(found.as_json(), ensure_ascii=False))
    else:
        show.diagnosis(found)
    sys.exit(0 if found.well else REFUSED)


@click.command()
@home_option
@click.option("--once", is_flag=True, help="Print one frame and end (also without a terminal).")
@reporting
def watch(home: Path, once: bool) -> None:
    """The floor live: lines, stations, queues, rates, and what stands still and why.

    Ctrl-C leaves. With --once exit code 3 if the centre is not up. Example: centre watch
    """
    from centre import watch_screen

    config = load(home)
    with reading(config) as queries:
        if once or not sys.stdout.isatty():
            sys.exit(0 if watch_screen.once(config, queries, show.console) else AWAY)
        try:
            watch_screen.watch(config, queries)
        except KeyboardInterrupt:
            sys.exit(0)


@click.command()
@home_option
@click.option("--visible", is_flag=True, help="Show what is typed.")
@reporting
def find(home: Path, visible: bool) -> None:
    """The orders behind a number, with the history of their cards.

    Asks for an identity number, a social card number or a bank card number (from a pipe: one
    line); it never stands on a command line or in a log. Exit code 1 if nothing is found.
    Example: centre find
    """
    from centre import find as search
    from centre import logs

    config = load(home)
    logs.configure(config.logs / "find.log", config.log_format)
    number = search.ask_number(visible=visible)
    with reading(config) as queries:
        found = search.orders_of(config, queries, number)
        show.orders(queries, found.order_ids)
    if not found.usable:
        click.echo(f"号码有误 this is no such number: {found.fault}", err=True)
        sys.exit(WRONG_USE)
    if not found.order_ids:
        note = f" ({found.fault})" if found.fault else ""
        click.echo(f"查无此号 no order stands behind this number{note}", err=True)
        sys.exit(REFUSED)


@click.command()
@click.option("--reader", metavar="NAME", default="", help="Default: the one with a card.")
@click.option("--list", "only_list", is_flag=True, help="List the readers of this machine.")
@click.option(
    "--socket",
    type=click.Path(path_type=Path),
    help="Socket of another PC/SC service than the machine's own (pcscd.comm).",
)
@click.option(
    "--seconds", type=click.FloatRange(0.1), default=15.0, show_default=True,
    help="A reader that takes longer hangs.",
)  # fmt: skip
@json_option
@reporting
def chip(reader: str, only_list: bool, socket: Path | None, seconds: float, as_json: bool) -> None:
    """What lies in a reader of this machine: profile, keys, holder (masked), what is wrong.

    It reads only: no authentication, no PIN, no write. Exit code 0 if nothing wrong is seen, 1 if
    something is, 2 if it is not clear which reader, 3 if the chip cannot be reached (reader empty,
    busy or failing, no PC/SC service). Example: centre chip --reader "R00 00 00" --json
    """
    from centre import chip_screen
    from centre.chip import Chip, Wrong
    from centre.chip_reader import LOST, ReaderUnclear, choose, read, use_service
    from domain.codes import Code
    from station_agents.pcsc import ServiceLost, look_at_readers

    use_service(socket)
    try:
        if only_list:
            readers = look_at_readers()
            if as_json:
                click.echo(json.dumps([asdict(r) for r in readers], ensure_ascii=False))
            else:
                chip_screen.show_readers(readers, show.console)
            return
        found = read(choose(reader), seconds)
    except ReaderUnclear as e:
        chip_screen.show_readers(e.readers, Console(stderr=True))
        raise click.UsageError("请用 --reader 指定读卡器 which reader? --reader NAME") from None
    except ServiceLost:
        found = Chip(reader, wrong=[Wrong(Code.PCSC_AWAY)])
    if as_json:
        click.echo(json.dumps(chip_screen.facts(found), ensure_ascii=False))
    else:
        chip_screen.show(found, show.console)
    lost = any(w.code in LOST for w in found.wrong)
    sys.exit(AWAY if lost else REFUSED if found.wrong else 0)


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--home",
    type=click.Path(file_okay=False, path_type=Path),
    help="Whose token holds the throw-away keys (default: the last demo's; else a temporary one).",
)
@json_option
@reporting
def kat(file: Path, home: Path | None, as_json: bool) -> None:
    """Run a laboratory's known answers (docs/kat.md) through this centre's cryptography.

    One line a case. Exit code 0 only if all held, 2 if the file cannot be read. No centre has to
    be up. Example: centre kat tests/hsm/vectors/pysim.json
    """
    from centre import kat as known
    from centre import logs
    from centre.kat_operations import bench
    from centre.running import last_home

    logs.quiet()
    try:
        cases = known.read(file)
    except known.FileMalformed as e:
        click.echo(f"文件无法读取 {e}", err=True)
        sys.exit(WRONG_USE)
    outcomes = []
    with bench(home or last_home(), only=home is not None) as place:
        for outcome in known.run(cases, place):
            outcomes.append(outcome)
            if not as_json:
                click.echo(str(outcome))
    totals = known.totals(outcomes)
    if as_json:
        listed = [asdict(outcome) for outcome in outcomes]
        click.echo(json.dumps({"cases": listed, **totals, "token": place.token}))
    else:
        click.echo(
            "{held} held, {differ} differ, {refused} refused, {unknown} unknown".format(**totals)
        )
    sys.exit(0 if totals["held"] == len(cases) else REFUSED)
