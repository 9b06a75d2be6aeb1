"""Whatever comes at the two sockets of a tray process, it answers in form and goes on."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from station_agents.virtual.tray_process import TrayProcess
from tests.virtual.floor import GET_CHALLENGE, GET_KEYS, SELECT, card_line, write_tray

POWER_OFF, POWER_ON, RESET, GET_ATR = (bytes((n,)) for n in (0, 1, 2, 4))
fuzz = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


class Floor:
    """A tray process, and a stand-in for vpcd to which it connects."""

    def __init__(self, place: Path) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(10)
        port = self._listener.getsockname()[1]
        tray = write_tray(place / "tray-1.jsonl", [card_line(n) for n in range(3)])
        self.tray = TrayProcess([tray], [f"127.0.0.1:{port}"], place / "tray.sock")
        self.tray.start()
        self.line, _ = self._listener.accept()

    def connect_again(self) -> None:
        """The tray ended the connection, and comes back."""
        assert self.line.recv(1) == b""
        self.line.close()
        self.line, _ = self._listener.accept()

    def ask(self, message: bytes) -> bytes:
        """The answer to one message of vpcd."""
        self.line.sendall(len(message).to_bytes(2, "big") + message)
        length = int.from_bytes(self._exactly(2), "big")
        return self._exactly(length)

    def tell(self, message: bytes) -> None:
        self.line.sendall(b"\x00\x01" + message)

    def _exactly(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            part = self.line.recv(length - len(data))
            assert part, "the tray closed the line inside an answer"
            data += part
        return data

    def close(self) -> None:
        self.line.close()
        self._listener.close()
        assert self.tray.stop() == 0


@pytest.fixture
def floor(tmp_path: Path) -> Iterator[Floor]:
    floor = Floor(tmp_path)
    yield floor
    floor.close()


_messages = st.one_of(
    st.binary(max_size=300).filter(lambda m: len(m) != 1),
    st.integers(0, 255).map(lambda n: bytes((n,))),
    st.sampled_from([POWER_ON, POWER_OFF, GET_ATR, SELECT, GET_KEYS, GET_CHALLENGE]),
)


@given(messages=st.lists(_messages, max_size=25))
@fuzz
def test_every_frame_of_a_reader_is_answered_in_form(floor: Floor, messages: list[bytes]) -> None:
    """With power any APDU gets two bytes or more; without it an empty answer and a new line; the
    question for the ATR always has one; unknown messages are none."""
    floor.tell(POWER_ON)
    powered = True
    for message in messages:
        if message == GET_ATR:
            assert floor.ask(message)
        elif len(message) == 1:
            floor.tell(message)
            powered = {POWER_OFF: False, POWER_ON: True, RESET: True}.get(message, powered)
        elif powered:
            assert 2 <= len(floor.ask(message)) <= 258
        else:
            assert floor.ask(message) == b""
            floor.connect_again()


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
_requests = st.fixed_dictionaries(
    {"op": st.sampled_from(["look", "wait", "count", "list", "status", "cut", "feed", "eject"])},
    optional={
        "reader": st.sampled_from([0, 1, 2**70, -1]) | _values,
        "seconds": st.sampled_from([0, -1, 10**400, "nan"]),
        "stack": st.sampled_from(["good", "held", "no"]) | _values,
        "tickets": _values,
        "ticket": _values,
        "command": st.just(0) | _values,
        "executed": _values,
    },
)


@given(
    lines=st.lists(
        st.binary(max_size=80) | _values.map(lambda v: json.dumps(v).encode())
        | _requests.map(lambda r: json.dumps(r).encode()),
        max_size=10,
    )
)  # fmt: skip
@example(lines=[b"[" * 30_000, b'{"op": "wait", "reader": 0, "seconds": 1' + b"0" * 400 + b"}"])
@example(lines=[b'{"op": "list", "stack": "\\ud800"}', b"9" * 5000])
@fuzz
def test_every_line_of_the_control_socket_is_answered(floor: Floor, lines: list[bytes]) -> None:
    """One JSON object for each line, an error or what was asked; a next line is served."""
    with socket.socket(socket.AF_UNIX) as client, client.makefile("rb") as answers:
        client.settimeout(10)
        client.connect(str(floor.tray.control))
        for line in lines:
            client.sendall(line.replace(b"\n", b"") + b"\n")
            assert isinstance(json.loads(answers.readline()), dict)
        client.sendall(b'{"op": "status"}\n')
        assert sum(json.loads(answers.readline())["stacks"].values()) <= 3
