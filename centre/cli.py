"""The `centre` command.

Exit codes: 0 done; 1 refused, or something does not fit; 2 wrong use or configuration;
3 the centre is not up or does not answer.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import grpc

from centre import options, running, show
from centre.backup_commands import backup, restore
from centre.card_commands import adjust, card, count
from centre.config import ConfigError, load
from centre.key_commands import key
from centre.looks import chip, doctor, find, kat, watch
from centre.lot_commands import lot
from centre.options import AWAY, REFUSED, WRONG_USE, home_option, json_option, reading, reporting
from centre.people_commands import act, login, logout, people, whoami

CALL_SECONDS = 60.0


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """省制卡中心 the card centre's production control system."""


@main.command()
@click.option("--home", type=click.Path(file_okay=False, path_type=Path), required=True)
@options.ledger_option
@reporting
def init(home: Path, ledger: str) -> None:
    """Make the home of a centre: configuration, token with master keys, empty ledger.

    Example: centre init --home /srv/centre
    """
    from centre.home import initialise

    config = initialise(home, ledger)
    click.echo(f"已建立 made {config.home}; next: centre up --home {home}")


@main.command()
@home_option
@click.option(
    "--card-management", metavar="HOST:PORT", help="Where the centre return goes (overrides TOML)."
)
@click.option(
    "--accept-loss", is_flag=True, help="After a restore: go on without what the heads name."
)
@click.option(
    "--join", metavar="HOST:PORT", help="Give the centre of this head one more machine instead."
)
@reporting
def up(home: Path, card_management: str | None, accept_loss: bool, join: str | None) -> None:
    """Bring the centre up and stay; Ctrl-C stops it cleanly, and the next `up` goes on.

    A ledger that is behind its signed heads (restored from a backup, or cut off) is not brought up
    unless a person says so: docs/retention.md.

    With --join this is a further machine of a centre that is up elsewhere (its address is in
    `centre status` there); it needs centre.toml and keys/ray-token of the head's home.
    Example: centre up --home /srv/centre
    """
    from centre import backup_commands, floor

    config = load(home)
    if accept_loss:
        backup_commands.accept_loss(config)
    if card_management is not None:
        config = config.with_card_management(card_management)
    try:
        if join is not None:
            from centre import joining

            joining.join(config, join, click.echo)
        else:
            floor.up(config, click.echo)
    except (floor.AlreadyUp, floor.NodeLost) as e:
        click.echo(str(e), err=True)
        sys.exit(REFUSED)
    except floor.Behind as e:
        click.echo(
            f"台账落后于签名头，缺少提交 the ledger is behind its signed heads, missing: {e}."
            " 见 docs/retention.md；确认继续 to go on without them: centre up --accept-loss",
            err=True,
        )
        sys.exit(REFUSED)


@main.command()
@home_option
@json_option
@reporting
def status(home: Path, as_json: bool) -> None:
    """Which parts are up, where the bodies are, what each open batch waits for until when.

    Exit code 3 if the centre is not up. Example: centre status --json
    """
    config = load(home)
    with reading(config) as queries:
        facts = show.status_facts(config, queries)
    if as_json:
        click.echo(json.dumps(facts, ensure_ascii=False))
    else:
        show.status(facts)
    sys.exit(0 if facts["ready"] else AWAY)


@main.command()
@home_option
@click.argument("id")
@reporting
def body(home: Path, id: str) -> None:
    """A card's whole history in words; ID is a body id, an order id or an identification code.

    Example: centre body C102-01.0007
    """
    with reading(load(home)) as queries:
        found = show.body(queries, id)
    sys.exit(0 if found else REFUSED)


@main.command()
@home_option
@click.argument("id")
@reporting
def batch(home: Path, id: str) -> None:
    """A batch: what came in, where its bodies are, what it waits for.

    Example: centre batch B20261124
    """
    with reading(load(home)) as queries:
        found = show.batch(queries, id)
    sys.exit(0 if found else REFUSED)


@main.command()
@home_option
@click.option(
    "--ledger", metavar="URL", help="Another ledger: a file, or a URL as in [ledger] url."
)
@reporting
def verify(home: Path, ledger: str | None) -> None:
    """Prove the ledger: links, signed heads, legal transitions, balances.

    Names the first thing that does not fit; exit code 1 then.
    Example: centre verify --ledger copy.db
    """
    from ledger.verify import verify as verify_ledger

    config = load(home)
    if not config.head_public_key.exists():
        raise ConfigError(
            f"{config.head_public_key} is missing: without it no signature can be checked; "
            "`centre init` takes it from the token again"
        )
    public_key = config.head_public_key.read_bytes()
    report = verify_ledger(_url(ledger) or config.ledger, config.head_file, public_key)
    show.report(report)
    sys.exit(0 if report.ok else REFUSED)


def _url(ledger: str | None) -> str | Path | None:
    return Path(ledger) if ledger and ":" not in ledger else ledger


for command in (
    find, watch, doctor, chip, kat, login, logout, whoami, people, act, key, card, lot, backup,
    restore, count, adjust,
):  # fmt: skip
    main.add_command(command)


@main.command("sign-for")
@home_option
@click.argument("delivery")
@click.argument("counts", nargs=-1, required=True, metavar="CARTON=COUNT...")
@reporting
def sign_for(home: Path, delivery: str, counts: tuple[str, ...]) -> None:
    """Sign for a delivery with the blind count of every carton.

    Example: centre sign-for D1 C1=250 C2=249
    """
    from stubs.operator_pb2 import SignForDeliveryRequest

    request = SignForDeliveryRequest(delivery_id=delivery)
    request.counts.extend(_carton_count(text) for text in counts)
    _answer(home, "SignForDelivery", request)


@main.command()
@home_option
@click.argument("count", metavar="CARTON=COUNT")
@reporting
def recount(home: Path, count: str) -> None:
    """Count a carton of a signed delivery anew, blindly: all its cards, wherever they lie by now.

    The new count takes the place of the old one. Cards that lay aside as beyond the old count are
    fed again afterwards. Example: centre recount C2=248
    """
    _answer(home, "RecountCarton", _carton_count(count))


def _carton_count(text: str) -> Any:
    from stubs.operator_pb2 import CartonCount

    carton, _, number = text.rpartition("=")
    if not carton or not number.isascii() or not number.isdigit() or len(number) > 6:
        raise click.UsageError(f"{text}: CARTON=COUNT is needed, at most 999999")
    return CartonCount(carton_id=carton, counted=int(number))


@main.command()
@home_option
@click.argument("package")
@click.option("--counted", type=click.IntRange(0, 10_000), help="Cards without a number, counted.")
@reporting
def scan(home: Path, package: str, counted: int | None) -> None:
    """Scan the cards of a package and close it, if they are those of its list.

    The numbers on the faces come from a hand scanner (or a pipe), one a line, until an empty line;
    temporary cards have none and are counted. Says what differs; the package stays open then, and
    the whole of it is scanned again. Example: centre scan B20261124-P0001
    """
    from centre.scan import scan_package

    receipt = scan_package(running.door_of(home), package, counted)
    show.differences(receipt)
    click.echo(json.dumps(show.receipt(receipt), ensure_ascii=False))
    sys.exit(0 if receipt.accepted else REFUSED)


@main.command()
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--cards", type=click.IntRange(1, 100_000), default=3_000, show_default=True)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True)
@click.option("--fresh", is_flag=True, help="Remove a demo that is there and begin anew.")
@click.option("--readers", type=click.IntRange(1, 8), default=8, show_default=True)
@options.ledger_option
@reporting
def demo(seed: int, cards: int, out: Path, fresh: bool, readers: int, ledger: str) -> None:
    """Run one batch delivery through the whole centre, on real parts.

    Killed or stopped, the same command goes on. Exit code 1 if a card is not accounted for.
    Example: centre demo --seed 7 --cards 5000 --out out/demo
    """
    from centre import demo as play
    from centre.demo_terminal import DemoError

    try:
        job = play.Demo(out.resolve(), seed, cards, fresh, readers, ledger)
        play.prepare_home(job)
        running.remember(job.home)
        result = play.run(replace(job, fresh=False))
    except DemoError as e:
        click.echo(str(e), err=True)
        sys.exit(WRONG_USE)
    except KeyboardInterrupt:
        click.echo("已停止；再次运行即可继续 stopped; run it again to go on", err=True)
        sys.exit(130)
    sys.exit(0 if result["reconciled"] and not result["in_work"] else REFUSED)


def _answer(home: Path, method: str, request: Any) -> None:
    """Send a command to the running centre, show the receipt, end with its exit code."""
    from stubs.operator_pb2_grpc import OperatorStub

    with grpc.insecure_channel(running.door_of(home)) as channel:
        receipt = getattr(OperatorStub(channel), method)(
            request, timeout=CALL_SECONDS, wait_for_ready=True
        )
    click.echo(json.dumps(show.receipt(receipt), ensure_ascii=False))
    sys.exit(0 if receipt.accepted else REFUSED)
