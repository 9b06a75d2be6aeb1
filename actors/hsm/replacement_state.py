"""Where a chip stands in the replacement of its keys: read off the chip, never remembered.

A chip is looked at when it is presented and when its last key is written. What it says decides
what comes next, so whatever interrupted a session is told apart here:

- all keys temporary: nothing was written;
- some formal, the loading key temporary: what is still temporary is written, in the version of
  those that are there;
- all formal: every key is proven. A set is called good when its proofs hold in one session: that
  they held before is not asked;
- anything else: not a set that this centre writes (KEYS_MIXED).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from actors.hsm.replacement_script import Identity
from domain.bodies import Body
from domain.card.profile import KeyInformation, KeySlot, Profile
from domain.card.segment import Segment
from domain.codes import Code
from ledger.queries import Identified


@dataclass(frozen=True)
class KeyState:
    """Usages of a chip's keys: `temporary` (to be written, in the profile's order) and `formal`,
    whose one version is `version` (0 without any). `reason` is a code when the set is not one
    that can be worked on."""

    temporary: tuple[str, ...]
    formal: tuple[str, ...]
    version: int
    reason: str

    def is_whole(self, version: int) -> bool:
        """Whether all keys are formal, of this version."""
        return not (self.temporary or self.reason) and self.version == version


def key_state(profile: Profile, keys: Mapping[int, KeyInformation]) -> KeyState:
    """Sort a chip's keys by version. Mixed sets are workable only as this centre leaves them
    when it is interrupted: the loading key is still temporary."""
    version_of = {s.usage: keys[s.key_id].version for s in profile.keys if s.key_id in keys}
    temporary = tuple(u for u, v in version_of.items() if v == profile.temporary_version)
    formal = tuple(u for u in version_of if u not in temporary)
    versions = {version_of[usage] for usage in formal}
    loading = profile.loading_usage
    reason = ""
    if (
        keys.keys() != {s.key_id for s in profile.keys}
        or len(versions) > 1
        or (loading in formal and temporary)
    ):
        reason = Code.KEYS_MIXED
    elif temporary and is_low(profile, keys, profile.key(loading)):
        reason = Code.KEY_COUNTER_LOW
    return KeyState(temporary, formal, next(iter(versions), 0), reason)


def is_low(profile: Profile, keys: Mapping[int, KeyInformation], slot: KeySlot) -> bool:
    """Whether a key has too few tries left for an EXTERNAL AUTHENTICATE that could fail."""
    return keys[slot.key_id].tries_left <= profile.low_counter


@dataclass(frozen=True)
class Session:
    """Where one presentation stands. `remaining`: usages still to be written, loading key last;
    `unproven`: those whose EXTERNAL AUTHENTICATE is still to come. `identity` and `known` are set
    once the chip was read, `version` (of the formal keys) with them."""

    carton_id: str
    face_number: str
    ticket: str
    segment: Segment
    go_on: str
    identity: Identity | None = None
    known: Identified | None = None
    body: Body | None = None
    version: int = 0
    remaining: tuple[str, ...] = ()
    unproven: tuple[str, ...] = ()
    random: bytes = b""
    face_value: str = ""
    """Look-up value of the number on the face."""

    @property
    def claim(self) -> str:
        """Names the card as far as it is known (see `Prepared`)."""
        if self.identity is not None:
            return self.identity.identification_code
        if self.known is not None:
            return self.known.identification_code
        return f"{self.carton_id} {self.ticket}" if self.ticket else ""


@dataclass(frozen=True)
class Facts:
    """What a chunk needs to know: chips by identification code, orders by the number printed on
    the face, bodies by the feeder's ticket, and by their ids those that sessions have."""

    identified: Mapping[str, Identified] = field(default_factory=dict)
    faces: Mapping[str, Identified] = field(default_factory=dict)
    tickets: Mapping[tuple[str, str], Body] = field(default_factory=dict)
    bodies: Mapping[str, Body] = field(default_factory=dict)
