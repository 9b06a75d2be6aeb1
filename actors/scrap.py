"""Scrapping a card that a line holds: two people have it in hand (`domain.custody`, card.scrap).

Plastic that may have been written is freed by looking at it, never by a clock: with the scrap the
card stops being its order's, which may be remade. A card that stock-takes have missed is written
off in the same way, without one in hand.
"""

from __future__ import annotations

import hmac
from typing import Any

from domain.bodies import Body, Writing
from domain.changes import EventType
from domain.codes import UNADVISED, Code
from domain.custody import Denied
from domain.factory_return import FACE
from domain.lines import ConfirmedAct
from domain.places import Line, Standing, owner, rejected
from ledger.queries import Queries


def content(queries: Queries, body_id: str, reason: str) -> dict[str, Any]:
    """What the scrap of this body would be. Raises Denied."""
    body = _to_scrap(queries, body_id)
    return {
        "line": owner(body.place),
        "order_id": body.order_id,
        "place": body.place,
        "condition": body.condition,
        "reason": reason,
    }


def check_in_hand(queries: Queries, body_id: str, scanned: str) -> None:
    """Raises Denied unless what was scanned is this card: the look-up value of its order's face;
    of a card without number its ticket or body id."""
    body = _to_scrap(queries, body_id)
    if body.condition == Code.STOCK_MISSING:
        return  # lost: two people say so who have looked for it
    if body.order_id:
        marks = queries.look_up_values(FACE, body.order_id)
    else:
        marks = [body.ticket, body.body_id]
    if not any(m and hmac.compare_digest(m.encode(), scanned.encode()) for m in marks):
        raise Denied(Code.CARD_NOT_IN_HAND, body_id)


def decide(queries: Queries, act: ConfirmedAct, writing: Writing) -> dict[str, Any]:
    """Move the body to what its line rejected; its order is free. Raises Denied."""
    body = _to_scrap(queries, act.subject)
    if (body.place, body.condition) != (act.content["place"], act.content["condition"]):
        raise Denied(Code.ACT_OUTDATED, act.subject)
    place = rejected(Line(owner(body.place)))
    data = {"act_id": act.act_id, "reason": act.content["reason"]}
    writing.change(
        body, EventType.BODY_SCRAPPED, data, place=place, condition=Code.SCRAPPED, live=False
    )
    return {"place": place}


def _to_scrap(queries: Queries, body_id: str) -> Body:
    """A stranger is not ours to scrap: it goes back to its factory."""
    found = queries.bodies("b.body_id = ?", body_id)
    if not found:
        raise Denied(Code.BODY_UNKNOWN, body_id)
    (body,) = found
    if body.standing is not Standing.HELD or body.condition in UNADVISED:
        raise Denied(Code.NOT_TO_SCRAP, f"{body.place} {body.condition}".strip())
    return body
