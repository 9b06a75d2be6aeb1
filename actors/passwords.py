"""Passwords of people: argon2 hashes, and pauses after wrong ones."""

from __future__ import annotations

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

FREE_FAILURES = 3
FIRST_PAUSE = 5.0
LONGEST_PAUSE = 600.0
"""Seconds."""


class Passwords:
    """Hashes and compares. A name that nobody has costs as much as a wrong password."""

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        """`hasher`: argon2id; the library's defaults (RFC 9106, low memory) unless given."""
        self._hasher = hasher or PasswordHasher()
        self._nobody = ""

    def hash(self, password: str) -> str:
        return self._hasher.hash(password)

    def match(self, credential: str, password: str) -> bool:
        """Whether `credential` is the hash of `password`; an empty one is nobody's."""
        if not credential:
            self._nobody = self._nobody or self._hasher.hash("nobody's password")
        try:
            self._hasher.verify(credential or self._nobody, password)
        except (VerificationError, InvalidHashError):
            return False
        return bool(credential)


def pause_after(failures: int) -> float:
    """Seconds for which nobody can try again after so many wrong passwords in a row."""
    if failures < FREE_FAILURES:
        return 0.0
    return float(min(FIRST_PAUSE * 2 ** (failures - FREE_FAILURES), LONGEST_PAUSE))
