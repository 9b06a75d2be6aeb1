"""What all actors of the centre share: how they are started, and how they reach one another.

Actors are named and detached, restarted without limit, task retries off: what is asked twice
must carry the same command id. A constructor does no I/O (an actor whose constructor raises is
never restarted): a line takes its epoch and loads from the ledger in a supervised loop, and
answers `Away` until then.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import socket
from typing import Any

import ray
import structlog
from ray.exceptions import GetTimeoutError, RayError, RayTaskError

from domain.changes import Away, Fault, Refused
from domain.provider import KeyRefused, RecordUnsealable

log = structlog.get_logger()

PAUSES = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
"""Seconds between tries; the last one repeats."""
CALL_SECONDS = 30.0
OPTIONS: dict[str, Any] = {"max_restarts": -1, "max_task_retries": 0, "num_cpus": 0}
HOME = "CARD_CENTRE_HOME"
"""In the environment of every process of Ray: the home on its own machine."""


def machine() -> str:
    """What this machine is called on screens: its host's name, and where its logs are."""
    return f"{socket.gethostname()}:{os.environ.get(HOME, '')}"


def this_process() -> dict[str, Any]:
    """Where an actor stands: the first part of what its `health` says."""
    return {"pid": os.getpid(), "machine": machine()}


def fault_of(task: asyncio.Task[None] | None, name: str) -> str:
    """Why a background task ended that should not have, logged; empty if it did not."""
    if task is None or task.cancelled() or task.exception() is None:
        return ""
    error = type(task.exception()).__name__
    log.error("actor.fault", actor=name, error=error)
    return f"fault: {error}"


async def ask(method: Any, *args: Any, seconds: float = CALL_SECONDS) -> Any:
    """Call an actor's method. What our code raised comes back as it was; a dead, restarting or
    silent actor is Away, a fault inside it Fault."""
    try:
        async with asyncio.timeout(seconds):
            return await method.remote(*args)
    except TimeoutError:
        raise Away("no answer in time") from None
    except RayTaskError as e:
        if isinstance(e.cause, Away | Refused | KeyRefused | RecordUnsealable):
            raise e.cause from None
        log.error("actor.fault", error=type(e.cause).__name__)
        raise Fault(f"a fault inside an actor: {type(e.cause).__name__}") from None
    except (RayError, GetTimeoutError) as e:
        raise Away(type(e).__name__) from None


async def call(actor: Any, method: str, *args: Any, seconds: float = CALL_SECONDS) -> Any:
    """Call `method` of what stands behind a shell, through the shell's own `call`; as `ask`.

    Arguments and answer travel as bytes: Ray's serialiser, which can carry functions too, is a
    Python class and takes several times as long over our dataclasses.
    """
    return unpacked(await ask(actor.call, method, packed(args), seconds=seconds))


def packed(value: Any) -> bytes:
    return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)


def unpacked(value: bytes) -> Any:
    """What `packed` packed in another process of this centre (Ray itself does no other)."""
    return pickle.loads(value)


def handle(name: str) -> Any:
    """The handle of a named actor. Raises Away while there is none."""
    try:
        return ray.get_actor(name)
    except ValueError:
        raise Away(f"no actor {name}") from None


def start(name: str, shell: type, *args: Any, **options: Any) -> Any:
    """The named, detached actor `name`, made if there is none yet."""
    return (
        ray.remote(shell)
        .options(name=name, lifetime="detached", get_if_exists=True, **{**OPTIONS, **options})
        .remote(*args)
    )
