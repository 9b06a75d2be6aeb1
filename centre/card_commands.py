"""The commands of two people on a card in hand."""

from __future__ import annotations

from pathlib import Path

import click

from centre.desk import Desk, ask_hidden, session_option
from centre.find import as_written
from centre.options import home_option, reporting
from centre.people_commands import propose
from domain.custody import ActKind, Reason
from domain.numbers import kinds_of_number

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
