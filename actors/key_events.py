"""What acts on keys say of them: events, and results for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from domain.changes import Event, EventType
from domain.provider import KeyEntry


def restored(act_id: str, entries: list[KeyEntry]) -> tuple[Event, ...]:
    said = events(EventType.KEY_RESTORED, act_id, values(entries))
    return tuple(
        replace(event, data={**event.data, "state": e.state})
        for event, e in zip(said, entries, strict=True)
    )


def events(event: EventType, act_id: str, values: Mapping[str, str]) -> tuple[Event, ...]:
    """One for each key; `values`: check values by label."""
    return tuple(
        Event(event, data={"act_id": act_id, "label": label, "check_value": value})
        for label, value in values.items()
    )


def values(entries: list[KeyEntry]) -> dict[str, str]:
    return {e.label: e.check_value for e in entries}


def result(entries: list[KeyEntry]) -> dict[str, Any]:
    return {"check_values": values(entries)}
