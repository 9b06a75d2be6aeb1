"""Logging of every process of the centre: structlog, one file a process, ids only."""

from __future__ import annotations

import logging
from pathlib import Path

import structlog


def configure(file: Path, style: str) -> None:
    """Log to `file`, as JSON lines or for people. Names, numbers and keys are never given to a
    log; an exception is logged by its type, since its text may quote a value."""
    file.parent.mkdir(parents=True, exist_ok=True)
    stream = file.open("a", encoding="utf-8", buffering=1)
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if style == "json"
        else structlog.dev.ConsoleRenderer(colors=False)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )


def quiet() -> None:
    """Log nothing: for a command that says all on its screen and leaves no trace in a home."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
