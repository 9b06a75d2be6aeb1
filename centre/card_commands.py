"""The commands of stock-takes, and of two people on cards."""

from __future__ import annotations

import json
import secrets
import sys
from pathlib import Path

import click

from centre import show
from centre.desk import Desk, ask_hidden, session_option
from centre.find import as_written
from centre.options import REFUSED, home_option, reporting
from centre.people_commands import propose
from centre.running import door_of
from centre.scan import count_stock
from domain.custody import ActKind, Reason
from domain.numbers import kinds_of_number
from stubs.operator_pb2 import CountStockRequest

reason_option = click.option("--reason", required=True, type=click.Choice([str(r) for r in Reason]))


@click.group()
def card() -> None:
    """One card: acts of two people who have it in hand."""


@card.command("scrap")
@home_option
@session_option
@click.argument("body_id", metavar="BODY")
@reason_option
@reporting
def card_scrap(home: Path, session: Path | None, body_id: str, reason: str) -> None:
    """Scrap a card that a line holds (in doubt, foreign keys, a refused lot): its order is free.

    Both people scan the face of the card, hidden, each at their own terminal: one runs this, the
    other `centre act confirm`. Of a card without number its ticket or body id is typed.
    Example: centre card scrap C102-01.0007 --reason damaged
    """
    desk = Desk(home, session)
    propose(desk, ActKind.CARD_SCRAP, body_id, reason=reason, scanned=scanned(body_id))


def scanned(body_id: str) -> str:
    """What somebody scans of the card in hand; it stands nowhere."""
    words = f"扫描卡面 scan the face of {body_id}（无号卡输票号 without number: its ticket）"
    text = ask_hidden(words).strip()
    number = as_written(text)
    return number if kinds_of_number(number)[0] else text


@click.command("count")
@home_option
@click.argument("place")
@click.option("--carton", default="", help="Only the cards of this carton.")
@click.option(
    "--counted",
    type=click.IntRange(0, 5_000),
    default=0,
    help="Cards without a number, counted; with --carton.",
)
@reporting
def count(home: Path, place: str, carton: str, counted: int) -> None:
    """Take stock of a place: scan every card that lies there, and see what differs from the books.

    The numbers on the faces come from a hand scanner (or a pipe), one a line, until an empty line.
    Cards without a number (temporary ones) are counted with their carton, or not at all.
    Nothing is changed; two storekeepers adjust by the count's id (`centre adjust`).
    Example: centre count key_replacement/held --carton C102-01
    """
    request = CountStockRequest(
        command_id=secrets.token_hex(8), place=place, carton_id=carton,
        counted_without_number=counted,
    )  # fmt: skip
    receipt = count_stock(door_of(home), request)
    show.differences(receipt)
    click.echo(json.dumps(show.receipt(receipt), ensure_ascii=False))
    sys.exit(0 if receipt.accepted else REFUSED)


@click.command("adjust")
@home_option
@session_option
@click.argument("count_id", metavar="COUNT")
@reason_option
@reporting
def adjust(home: Path, session: Path | None, count_id: str, reason: str) -> None:
    """Adjust the books by a count: what it missed is set apart, what it found again goes back.

    One storekeeper runs this, another `centre act confirm`.
    Example: centre adjust key_replacement-N0001 --reason lost
    """
    propose(Desk(home, session), ActKind.STOCK_ADJUST, count_id, reason=reason)
