"""Opened components of custodians."""

from __future__ import annotations

from actors.hsm.components import parse_part


def test_a_component_is_not_shown() -> None:
    """An opened component in a message or a traceback says which it is, never its bytes."""
    part = parse_part(bytes((1, 2, 6)) + b"kek:v1" + b"SECRET BYTES", "part")
    assert "kek:v1" in repr(part)
    assert "SECRET" not in repr(part)
