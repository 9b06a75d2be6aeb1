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
    KeySlot,
    Profile,
    Proof,
    is_identification_code,
    parse_key_information,
)
from domain.card.records import RecordError
from domain.card.segment import Answers, Segment, Step
from domain.provider import Chip, KeySet, Prove, ProveCheckValue, Request

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
    return Segment((authenticate, *_challenge_for(profile, first)))


def write_segment(
    profile: Profile, usage: str, apdu: bytes, following: str, random: bytes
) -> Segment:
    """One WRITE KEY, and what comes before that of the usage `following`. Without one it is the
    last, and the proofs begin in the same turn, with `random` (one block)."""
    after = (
        _challenge_for(profile, following) if following else proof_segment(profile, random).steps
    )
    return Segment((Step(f"write key {usage}", apdu), *after), writes=True)


def proof_segment(profile: Profile, random: bytes) -> Segment:
    """Read versions, counters and check values of all keys back, have the chip encipher `random`
    (one block), and get the challenge for the first key that it is to check itself."""
    checked = external_usages(profile)
    challenge = _challenge_for(profile, checked[0]) if checked else ()
    return Segment((_KEY_INFORMATION, *internal_steps(profile, random), *challenge))


def external_segment(profile: Profile, usage: str, cryptogram: bytes, following: str) -> Segment:
    """The one EXTERNAL AUTHENTICATE by which the chip proves that it holds the key of `usage`,
    and the challenge for `following`, if there is another."""
    key_id = profile.key(usage).key_id
    prove = Step.of(f"prove {usage}", external_authenticate(key_id, cryptogram))
    return Segment((prove, *(_challenge_for(profile, following) if following else ())))


def internal_steps(profile: Profile, random: bytes) -> tuple[Step, ...]:
    """INTERNAL AUTHENTICATE by each key that is proven so."""
    return tuple(
        Step.of(f"prove {slot.usage}", internal_authenticate(slot.key_id, random))
        for slot in proven_by(profile, Proof.INTERNAL)
    )


def external_usages(profile: Profile) -> tuple[str, ...]:
    """The keys that are proven by EXTERNAL AUTHENTICATE."""
    return tuple(slot.usage for slot in proven_by(profile, Proof.EXTERNAL))


def proven_by(profile: Profile, proof: Proof) -> tuple[KeySlot, ...]:
    """The keys that are proven in this way, in the profile's order."""
    return tuple(slot for slot in profile.keys if slot.proof is proof)


def _challenge_for(profile: Profile, usage: str) -> tuple[Step, ...]:
    """The challenge for a command with the key of `usage`; a key of a DF is written and used while
    that DF is selected."""
    df = profile.key(usage).df
    select = (Step.of("select df", select_application(bytes.fromhex(df)), "9000", "61xx"),)
    return (*(select if df else ()), _CHALLENGE)


def proofs(
    profile: Profile,
    chip: Chip,
    version: int,
    keys: Mapping[int, KeyInformation],
    random: bytes,
    segment: Segment,
    answers: Answers,
) -> list[Request]:
    """What the provider is asked about the check values that a chip tells (`keys`), and about its
    answers to the `internal_steps` of `segment`."""
    asked: list[Request] = [
        ProveCheckValue(chip, slot.usage, version, keys[slot.key_id].check_value)
        for slot in proven_by(profile, Proof.CHECK_VALUE)
    ]
    for slot in proven_by(profile, Proof.INTERNAL):
        answer = answers.of(segment, f"prove {slot.usage}")
        response = answer.data if answer else b""
        asked.append(Prove(chip, KeySet.FORMAL, slot.usage, random, response, version))
    return asked


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
