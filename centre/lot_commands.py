"""The commands of two people on an inspection lot that was refused."""

from __future__ import annotations

from pathlib import Path

import click

from centre.card_commands import reason_option
from centre.desk import Desk, session_option
from centre.options import home_option, reporting
from centre.people_commands import propose
from domain.custody import ActKind


@click.group()
def lot() -> None:
    """A refused inspection lot: acts of two inspectors."""


@lot.command("release")
@home_option
@session_option
@click.argument("lot_id", metavar="LOT")
@reason_option
@reporting
def lot_release(home: Path, session: Path | None, lot_id: str, reason: str) -> None:
    """Let a refused lot go on as it is: its cards are packed.

    Example: centre lot release D1-102-social_security_card --reason concession
    """
    propose(Desk(home, session), ActKind.LOT_RELEASE, lot_id, reason=reason)


@lot.command("inspect")
@home_option
@session_option
@click.argument("lot_id", metavar="LOT")
@reason_option
@reporting
def lot_inspect(home: Path, session: Path | None, lot_id: str, reason: str) -> None:
    """Have every card of a refused lot read again: they are fed once more, the good ones go on.

    Example: centre lot inspect D1-102-social_security_card --reason nonconforming
    """
    propose(Desk(home, session), ActKind.LOT_INSPECT, lot_id, reason=reason)
