"""The segments of key replacement, and what is read from their answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from domain.card.apdu import (
    external_authenticate,
    get_challenge,
    get_key_information,
    internal_authenticate,
    read_record,
    select_application,
)
from domain.card.profile import (
    KeyInformation,
    Profile,
    is_identification_code,
    parse_key_information,
)
from domain.card.records import RecordError
from domain.card.segment import Answers, Segment, Step
from domain.codes import Code

TEMPORARY_CATEGORY = "2"
CHALLENGE_BYTES = 8
_CHALLENGE = Step.of("get challenge", get_challenge())
_KEY_INFORMATION = Step.of("key information", get_key_information())


@dataclass(frozen=True)
class Identity:
    """What a chip says of itself. `challenge` serves the one command that follows."""

    identification_code: str
    category: str
    keys: Mapping[int, KeyInformation]
    challenge: bytes

    @property
    def is_temporary_card(self) -> bool:
        return self.category == TEMPORARY_CATEGORY


@dataclass(frozen=True)
class KeyState:
    """Which keys of a chip are `temporary` (to be written, in the profile's order) and `formal`;
    `reason` is a code when the set is not one that can be worked on."""

    temporary: tuple[str, ...]
    formal: tuple[str, ...]
    reason: str


def identity_steps(profile: Profile) -> tuple[Step, ...]:
    """The steps with which every session begins."""
    code, category = profile.fields["identification_code"], profile.fields["card_category"]
    return (
        Step.of("select", select_application(profile.aid), "9000", "61xx"),
        Step.of("read identification_code", read_record(code.tag, code.file, code.length)),
        Step.of("read card_category", read_record(category.tag, category.file, category.length)),
        _KEY_INFORMATION,
    )


def identify_segment(profile: Profile) -> Segment:
    return Segment((*identity_steps(profile), _CHALLENGE))


def authenticate_segment(profile: Profile, cryptogram: bytes, first: str) -> Segment:
    """EXTERNAL AUTHENTICATE with the loading key, and what comes before the WRITE KEY of the
    usage `first`."""
    key_id = profile.key(profile.loading_usage).key_id
    authenticate = Step.of("external authenticate", external_authenticate(key_id, cryptogram))
    return Segment((authenticate, *_before_writing(profile, first)))


def write_segment(
    profile: Profile, usage: str, apdu: bytes, following: str, random: bytes
) -> Segment:
    """One WRITE KEY, and what comes before that of the usage `following`. Without one it is the
    last, and the proof by `random` follows in the same turn."""
    write = Step(f"write key {usage}", apdu)
    after = (
        _before_writing(profile, following) if following else proof_segment(profile, random).steps
    )
    return Segment((write, *after), writes=True)


def _before_writing(profile: Profile, usage: str) -> tuple[Step, ...]:
    """The challenge for a WRITE KEY; a key of a DF is written while that DF is selected."""
    df = profile.key(usage).df
    select = (Step.of("select df", select_application(profile.dfs[df].aid)),) if df else ()
    return (*select, _CHALLENGE)


def proof_segment(profile: Profile, random: bytes) -> Segment:
    """Read the key versions back and have the chip encipher `random` (one block)."""
    key_id = profile.key(profile.internal_usage).key_id
    return Segment(
        (
            _KEY_INFORMATION,
            Step.of("internal authenticate", internal_authenticate(key_id, random)),
        )
    )


def read_keys(segment: Segment, answers: Answers) -> Mapping[int, KeyInformation]:
    """The key information in `answers`; empty if it was not read or is not well formed."""
    answer = answers.of(segment, "key information")
    if answer is None or answer.status_word != 0x9000:
        return {}
    try:
        return parse_key_information(answer.data)
    except RecordError:
        return {}


def read_identity(profile: Profile, segment: Segment, answers: Answers) -> Identity | None:
    """What the opening segment tells; None if the chip could not be read as this profile says."""
    challenge = answers.of(segment, "get challenge")
    code = read_field(profile, segment, answers, "identification_code")
    category = read_field(profile, segment, answers, "card_category")
    keys = read_keys(segment, answers)
    if not answers.complete(segment) or challenge is None or not keys:
        return None
    if len(challenge.data) != CHALLENGE_BYTES:
        return None
    if code is None or category is None or not is_identification_code(code):
        return None
    return Identity(code, category, keys, challenge.data)


def read_field(profile: Profile, segment: Segment, answers: Answers, name: str) -> str | None:
    """The text of a field that a step called `read <name>` read; None if it cannot be told."""
    answer = answers.of(segment, f"read {name}")
    if answer is None or answer.status_word != 0x9000:
        return None
    field = profile.fields[name]
    try:
        return field.decode(field.parse(answer.data))
    except RecordError:
        return None


def key_state(profile: Profile, keys: Mapping[int, KeyInformation]) -> KeyState:
    """Sort a chip's keys by version. Mixed sets are workable only as this centre leaves them
    when it is interrupted: the loading key is still temporary."""
    temporary, formal, other = [], [], []
    for slot in profile.keys:
        version = keys[slot.key_id].version if slot.key_id in keys else None
        if version == profile.temporary_version:
            temporary.append(slot.usage)
        elif version == profile.formal_version:
            formal.append(slot.usage)
        else:
            other.append(slot.usage)
    reason = ""
    if other or (profile.loading_usage in formal and temporary):
        reason = Code.KEYS_MIXED
    elif temporary and keys[profile.key(profile.loading_usage).key_id].tries_left <= (
        profile.low_counter
    ):
        reason = Code.KEY_COUNTER_LOW
    return KeyState(tuple(temporary), tuple(formal), reason)
