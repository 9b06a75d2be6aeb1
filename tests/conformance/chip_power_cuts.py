"""Power lost at each command that changes a chip's memory: before it is executed, and when it is
executed and the answer has not left. What survives is the old memory or the new one, whole.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from domain.card.profile import File
from tests.conformance.chip_specimen import FORMAL, Make, Specimen
from tests.conformance.chip_terminal import GET_KEYS, GET_LIFE_CYCLE, GET_PIN_TRIES, OK, Terminal

NEW_KEY = bytes(range(0x30, 0x40))
NEW_PIN = "271828"
VALUE = b"new value"


Command = Callable[[Terminal], bytes]
"""Does what must come before a command, and gives the command itself."""


@dataclass(frozen=True)
class ChangingCommand:
    name: str
    command: Command


def check_power_cuts(make: Make) -> None:
    """For each such command: cut before it, nothing has changed; cut after it, all has."""
    with make() as specimen:
        commands = changing_commands(specimen)
    for changing in commands:
        old, new = (_survivor(make, changing, fate) for fate in ("not sent", "executed"))
        assert old != new, changing.name
        assert _survivor(make, changing, "cut before") == old, changing.name
        assert _survivor(make, changing, "cut after") == new, changing.name


def _survivor(make: Make, changing: ChangingCommand, fate: str) -> list[object]:
    """What can be seen of a chip once the command met that fate."""
    with make() as s:
        command = changing.command(s.open())
        if fate.startswith("cut"):
            s.chip.cut_power(1, executed=fate == "cut after")
            assert s.chip.process(command) == b"", changing.name
            assert s.chip.process(bytes.fromhex(GET_KEYS)) == b"", changing.name
        elif fate == "executed":
            s.chip.process(command)
        return seen(s)


def seen(s: Specimen) -> list[object]:
    """All that a terminal can find out of what may have changed."""
    t = s.open(select=False)
    selected = t.select()
    if selected == "6A81":
        return [selected]
    state = [selected, *(t.send(bytes.fromhex(get)) for get in
                         (GET_KEYS, GET_PIN_TRIES, GET_LIFE_CYCLE))]  # fmt: skip
    state += [t.read(file, len(VALUE)) for file in _free_files(s)]
    # Last, since a wrong PIN costs a try.
    return [*state, t.verify(NEW_PIN) == OK]


def _free_files(s: Specimen) -> list[File]:
    return [file for file in s.profile.files if file.read == "free"]


def changing_commands(s: Specimen) -> list[ChangingCommand]:
    return [ChangingCommand(name, command) for name, command in
            {**_of_keys(s), **_of_files(s), **_of_pin(s), **_of_blocking()}.items()]  # fmt: skip


def _of_keys(s: Specimen) -> dict[str, Command]:
    def wrong(t: Terminal) -> bytes:
        right = t.cryptogram("EAK", t.challenge())
        return right[:-1] + bytes((right[-1] ^ 1,))

    def right(t: Terminal) -> bytes:
        t.send(wrong(t))
        return t.cryptogram("EAK", t.challenge())

    def writing(usage: str) -> Command:
        def command(t: Terminal) -> bytes:
            t.authenticate("MK")
            t.enter(usage)
            return t.write_key(usage, NEW_KEY, FORMAL, t.challenge())

        return command

    return {
        "wrong authentication": wrong,
        "right authentication": right,
        "wrong MAC": _mac("841E0000", "MK"),
        **{f"write {slot.usage}": writing(slot.usage) for slot in s.profile.keys},
    }


def _of_files(s: Specimen) -> dict[str, Command]:
    def updating(file: File) -> Command:
        def command(t: Terminal) -> bytes:
            t.authenticate(file.update)
            return t.update(file, VALUE, challenge=t.challenge())

        return command

    return {f"update {file.number:X}": updating(file) for file in _free_files(s)}


def _of_pin(s: Specimen) -> dict[str, Command]:
    initial = s.profile.pin.initial

    def right(t: Terminal) -> bytes:
        t.verify("111111")
        return bytes.fromhex("0020000003" + initial)

    def unblocking(t: Terminal) -> bytes:
        for _ in range(s.profile.pin.tries):
            t.verify("111111")
        return _mac("84240000", "PUK")(t)

    return {
        "wrong PIN": lambda _: bytes.fromhex("0020000003111111"),
        "right PIN": right,
        "change PIN": lambda _: bytes.fromhex(f"805E010007{initial}FF{NEW_PIN}"),
        "reload PIN": _mac("805E0000", "RPK", bytes.fromhex(NEW_PIN)),
        "unblock PIN": unblocking,
    }


def _of_blocking() -> dict[str, Command]:
    def unblocking(t: Terminal) -> bytes:
        t.only_mac("841E0000", "STK")
        return _mac("84180000", "STK")(t)

    return {
        "block application": _mac("841E0000", "STK"),
        "unblock application": unblocking,
        "block card": _mac("84160000", "MK"),
    }


def _mac(head: str, usage: str, body: bytes = b"") -> Command:
    return lambda t: t.with_mac(head, body, usage, t.challenge())
