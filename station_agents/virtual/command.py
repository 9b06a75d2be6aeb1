"""One command as a chip sees it, and how it ends; what all applications of a chip share."""

from __future__ import annotations

from typing import Final, NamedTuple

from domain.card.apdu import SW


class Command(NamedTuple):
    """A parsed command. `le` is 0 for "all there is" and None where it is absent."""

    cla: int
    ins: int
    p1: int
    p2: int
    data: bytes
    le: int | None
    header: bytes
    """CLA INS P1 P2 Lc as they came, for the MAC."""


class StatusError(Exception):
    """A command ends with a status word other than 9000."""

    def __init__(self, status_word: int) -> None:
        super().__init__(f"{status_word:04X}")
        self.answer = status_word.to_bytes(2, "big")


_WRONG_LE: Final = 0x6C00  # the right Le in the low byte (ISO/IEC 7816-4, 5.6)


def parse(apdu: bytes) -> Command:
    """A short APDU (ISO/IEC 7816-4, 5.2), or 6700."""
    if len(apdu) <= 5:
        if len(apdu) < 4:
            raise StatusError(SW.WRONG_LENGTH)
        le = apdu[4] if len(apdu) == 5 else None
        return Command(apdu[0], apdu[1], apdu[2], apdu[3], b"", le, apdu)
    lc = apdu[4]
    if lc == 0 or len(apdu) not in (5 + lc, 6 + lc):
        raise StatusError(SW.WRONG_LENGTH)
    le = apdu[5 + lc] if len(apdu) == 6 + lc else None
    return Command(apdu[0], apdu[1], apdu[2], apdu[3], apdu[5 : 5 + lc], le, apdu[:5])


def as_long_as(le: int, data: bytes) -> bytes:
    """`data`, if the terminal expects that many bytes or all there are; else 6C and the length."""
    if le not in (0, len(data)):
        raise StatusError(_WRONG_LE | len(data))
    return data
