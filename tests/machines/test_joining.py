"""What is no machine of a centre does not join it, and says what would make it one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from ray.core.generated import gcs_service_pb2

from centre import ray_runtime
from centre.config import LEDGER, TEMPLATE, Config, ConfigError, load, with_ledger
from centre.joining import ask_head, check_home
from centre.placement import agreed, uneven
from centre.wiring import now

METHOD = "InternalKVGet"
SERVICE = "ray.rpc.InternalKVGcsService"


def home(place: Path, url: str, mode: int = 0o600) -> Config:
    """The home of a further machine whose token file has this mode."""
    (place / "keys").mkdir()
    token = place / "keys" / "ray-token"
    token.write_text("ab" * 32, encoding="ascii")
    token.chmod(mode)
    text = with_ledger(TEMPLATE, url)
    (place / "centre.toml").write_text(text, encoding="utf-8")
    return load(place)


@pytest.fixture(autouse=True)
def _token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Ray's client looks for it."""
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "keys" / "ray-token"))


@contextmanager
def head(answer: Callable[[grpc.ServicerContext], bytes]) -> Iterator[str]:
    """Where a head of Ray is asked for what machines agree on; what it has in its store."""

    def get(_request: Any, context: grpc.ServicerContext) -> Any:
        return gcs_service_pb2.InternalKVGetReply(value=answer(context))  # type: ignore[attr-defined]

    handler = grpc.unary_unary_rpc_method_handler(
        get, lambda raw: raw, lambda reply: reply.SerializeToString()
    )
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def refusal(look: Callable[..., object], *args: object) -> str:
    with pytest.raises(ConfigError) as refused:
        look(*args)
    return str(refused.value)


def test_a_ledger_in_a_file_serves_one_machine(tmp_path: Path) -> None:
    """It is refused before anything is started, and the next step is named."""
    said = refusal(check_home, home(tmp_path, LEDGER))
    assert "PostgreSQL" in said
    assert "docs/architecture.md" in said


def test_a_token_that_others_can_read_is_no_secret(
    tmp_path: Path, new_ledger: Callable[[], str]
) -> None:
    """It is not used."""
    said = refusal(check_home, home(tmp_path, new_ledger(), mode=0o644))
    assert "chmod 600" in said


def test_machines_reach_one_another_over_tls_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond loopback no node is started in clear."""
    monkeypatch.delenv("RAY_USE_TLS", raising=False)
    assert "RAY_USE_TLS" in refusal(ray_runtime.prepare, tmp_path, "192.0.2.1")


@pytest.mark.parametrize("name", ["release", "ledger", "schema"])
def test_who_differs_from_the_head_does_not_join(
    tmp_path: Path, new_ledger: Callable[[], str], name: str
) -> None:
    """Two machines with other code, or another database, would not be one centre."""
    config = home(tmp_path, new_ledger())
    told = json.dumps({**agreed(config), name: "other", "started": now()}).encode()
    with head(lambda _context: told) as address:
        assert refusal(ask_head, config, address).startswith(f"{name}: here")


def test_another_centre_s_token_is_refused(tmp_path: Path, new_ledger: Callable[[], str]) -> None:
    """The head says so, and the machine which file to copy."""

    def turn_away(context: grpc.ServicerContext) -> bytes:
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "")
        raise AssertionError("unreachable")

    config = home(tmp_path, new_ledger())
    with head(turn_away) as address:
        assert "ray-token" in refusal(ask_head, config, address)


def test_lines_are_evened_out_and_left_alone() -> None:
    """A machine that joined gets lines, the busiest first, until none has two more than another;
    then nothing moves. What stands with the head never does."""
    lines = ("key_replacement", "inspection", "sorting", "sampling", "inventory")
    where = dict.fromkeys((*lines, "custody", "gateway"), "a")
    moved = []
    while (name := uneven(where, ["a", "b"])) is not None:
        moved.append(name)
        where[name] = "b"
    assert moved == ["key_replacement", "inspection"]
    assert uneven(dict.fromkeys(lines, "a"), ["a"]) is None
    assert uneven({}, []) is None
