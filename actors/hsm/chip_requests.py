"""Requests about chips, a whole chunk at a time: who may have what is asked, all keys derived in
one call for each master and city, then each answer.

Keys of chips are in this process for one chunk (*software-assisted*). What many requests of a
chunk have in common is found out once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from hmac import compare_digest
from operator import attrgetter
from typing import Any, NamedTuple, Protocol

from actors.hsm import labels
from actors.hsm.cryptograms import KeyWriter, answer_challenge
from actors.hsm.formal_sets import FormalSets
from actors.hsm.masters import Masters, MasterState
from actors.hsm.quota import CartonQuota
from actors.hsm.suites import CHECK_VALUE, ReadyKey, Suite
from domain.card.profile import Profile, Proof, is_identification_code
from domain.codes import Code
from domain.provider import (
    Answer,
    Authenticate,
    Chip,
    KeyChange,
    KeySet,
    KeyStanding,
    Prove,
    ProveCheckValue,
)

CHALLENGE = 8
_NEW = KeyStanding()

ChipRequest = Authenticate | KeyChange | Prove | ProveCheckValue


class ChipRecords(Protocol):
    """What a provider asks of the ledger. What it raises passes through `perform`."""

    def carton_quota(self, carton_id: str) -> int:
        """How many bodies a carton has; 0 for one that is not known."""
        ...

    def carton_drawn(self, carton_id: str) -> Sequence[str]:
        """Identification codes of a carton's chips that had their formal keys drawn before."""
        ...

    def carton_released(self, carton_id: str) -> int:
        """How many `carton_drawn` would name."""
        ...

    def carton_bank(self, carton_id: str) -> str:
        """Whose cards a carton holds; "" for one that is not known."""
        ...

    def key_standings(self, identification_codes: Sequence[str]) -> Mapping[str, KeyStanding]:
        """How these chips stand with their keys; one that is not known may be left out."""
        ...


class _Source(NamedTuple):
    """Where the keys of a request come from: labels of its masters (of a key change the loading
    key's first), version of the formal set; or the code with which it is refused. `temporary`: a
    temporary key is used. With `begun` it serves only chips whose first formal key was released."""

    masters: tuple[str, ...] = ()
    version: int = 0
    refused: str = ""
    temporary: bool = False
    begun: bool = False


class _Keys:
    """Keys of chips of one master: raw, and made ready where they are used."""

    def __init__(self, suite: Suite) -> None:
        self.raw: dict[str, bytes] = {}
        self._suite = suite
        self._ready: dict[str, ReadyKey] = {}

    def ready(self, code: str) -> ReadyKey:
        key = self._ready.get(code)
        if key is None:
            key = self._ready[code] = self._suite.ready(self.raw[code])
        return key


Members = list[tuple[int, Any, str]]
"""Place in the chunk, request and identification code of what is served from one source."""


class ChipRequests:
    """Serves requests from masters. `forget` when the masters may have changed."""

    def __init__(
        self, masters: Masters, profile: Profile, records: ChipRecords, quota: CartonQuota
    ) -> None:
        self._masters, self._profile, self._records = masters, profile, records
        self._suite = masters.suite
        self._quota = quota
        self._slots = {slot.usage: slot for slot in profile.keys}
        self._sets: FormalSets | None = None

    def forget(self) -> None:
        self._sets = None

    @property
    def sets(self) -> FormalSets:
        """The formal sets as they are now."""
        if self._sets is None:
            self._sets = FormalSets(self._masters, self._slots)
        return self._sets

    def perform(self, requests: Sequence[ChipRequest]) -> list[Answer]:
        """One answer for each request, in order. Of chips that may not draw, no key is derived."""
        answers: list[Answer] = [Answer()] * len(requests)
        sources = [(self._source(requests[at[0]]), at) for at in _alike(requests)]
        served = self._admitted(requests, sources, answers)
        keys = self._derived(served)
        for source, members in served:
            if members:
                self._answer(source, members, keys, answers)
        return answers

    # Which keys a request is about.

    def _source(self, request: ChipRequest) -> _Source:
        if request.usage not in self._slots:
            return _Source(refused=Code.KEY_UNKNOWN)
        if not self._is_for(request):
            return _Source(refused=Code.KEY_USAGE_REFUSED)
        if not isinstance(request, KeyChange):
            if request.key_set is KeySet.TEMPORARY:
                return self._temporary(request.chip, request.usage)
            return self._formal(request.usage, request.version)
        formal = self._formal(request.usage, request.version)
        loading = self._temporary(request.chip, self._profile.loading_usage)
        if formal.refused or loading.refused:
            return formal if formal.refused else loading
        masters = (*loading.masters, *formal.masters)
        begun = formal.version != self.sets.active
        return _Source(masters, formal.version, temporary=True, begun=begun)

    def _is_for(self, request: ChipRequest) -> bool:
        """Whether a key of this usage is there for what is asked. A check value may be compared of
        every key, and every key be written."""
        slot, profile = self._slots[request.usage], self._profile
        match request:
            case Authenticate(key_set=KeySet.TEMPORARY):
                return slot.usage == profile.loading_usage
            case Authenticate():
                return slot.usage == profile.external_usage or slot.proof is Proof.EXTERNAL
            case Prove():
                return slot.usage == profile.internal_usage or slot.proof is Proof.INTERNAL
            case _:
                return True

    def _temporary(self, chip: Chip, usage: str) -> _Source:
        try:
            label = labels.temporary(chip.batch_id, usage, self._profile.temporary_version)
        except labels.BatchIdError:
            return _Source(refused=Code.KEY_UNKNOWN)
        match self._masters.state(label):
            case MasterState.ACTIVE:
                return _Source((label,), temporary=True)
            case "":
                return _Source(refused=Code.KEY_UNKNOWN)
            case _:
                return _Source(refused=Code.KEY_NOT_ACTIVE)

    def _formal(self, usage: str, version: int) -> _Source:
        sets = self.sets
        wanted = version or sets.active
        if wanted and (wanted == sets.active or wanted in sets.retired):
            return _Source((labels.formal(usage, wanted),), wanted)
        is_there = version in sets.known if version else bool(sets.known)
        return _Source(refused=Code.KEY_NOT_ACTIVE if is_there else Code.KEY_UNKNOWN)

    # Which chips may have them.

    def _admitted(
        self,
        requests: Sequence[ChipRequest],
        sources: Sequence[tuple[_Source, list[int]]],
        answers: list[Answer],
    ) -> list[tuple[_Source, Members]]:
        """What is served; what is not is answered with the reason. The quota comes last: what is
        refused for another reason draws nothing."""
        standings = self._standings(requests, sources)
        # Of a chip the answer is the same for all sources that ask the same of it.
        known: dict[tuple[bool, bool, bool], dict[tuple[str, str], str]] = {}
        served = []
        for source, places in sources:
            asked = (source.temporary, source.version > 0, source.begun)
            of_chips = known.setdefault(asked, {})
            members: Members = []
            given, length = self._given(requests[places[0]])
            for at in places:
                request = requests[at]
                chip = request.chip
                code = chip.identification_code
                refused = source.refused
                if not refused:
                    if len(given(request)) == length:
                        found = of_chips.get((chip.carton_id, code))
                        if found is None:
                            found = self._of_chip(chip, source, standings)
                            of_chips[chip.carton_id, code] = found
                        refused = found
                    else:
                        refused = Code.BAD_FORMAT
                if refused:
                    answers[at] = Answer(refused=refused)
                else:
                    members.append((at, request, code))
            served.append((source, members))
        return served

    def _standings(
        self, requests: Sequence[ChipRequest], sources: Iterable[tuple[_Source, list[int]]]
    ) -> Mapping[str, KeyStanding]:
        """Asked once, of the chips for which it matters."""
        codes = {
            requests[at].chip.identification_code
            for source, places in sources
            if source.temporary
            for at in places
        }
        return self._records.key_standings(sorted(codes)) if codes else {}

    def _of_chip(self, chip: Chip, source: _Source, standings: Mapping[str, KeyStanding]) -> str:
        """Why a chip may not have keys from a source, or ""."""
        code = chip.identification_code
        if not is_identification_code(code):
            return Code.BAD_FORMAT
        standing = standings.get(code, _NEW)
        if source.temporary and standing.replaced:
            return Code.KEY_TEMPORARY_REFUSED
        if source.begun and not standing.begun:
            return Code.KEY_NOT_ACTIVE
        if source.version and not self._quota.admit(chip.carton_id, code):
            return Code.KEY_QUOTA_EXCEEDED
        return ""

    def _given(self, request: ChipRequest) -> tuple[Callable[[Any], bytes], int]:
        """What requests of this kind bring along, and its length."""
        match request:
            case Authenticate() | KeyChange():
                return attrgetter("challenge"), CHALLENGE
            case Prove():
                return attrgetter("random"), self._suite.block
            case ProveCheckValue():
                return attrgetter("value"), CHECK_VALUE

    # The keys, and what is done with them.

    def _derived(self, served: Iterable[tuple[_Source, Members]]) -> Mapping[str, _Keys]:
        """All keys of chips that are needed, by master."""
        wanted: dict[str, dict[str, None]] = {}
        for source, members in served:
            codes = dict.fromkeys([code for _, _, code in members])
            for label in source.masters if codes else ():
                wanted.setdefault(label, {}).update(codes)
        profile = self._profile
        every = {code for codes in wanted.values() for code in codes}
        factors = {code: (profile.city_factor(code), profile.chip_factor(code)) for code in every}
        keys: dict[str, _Keys] = {}
        for label, codes in wanted.items():
            cities: dict[bytes, list[str]] = {}
            for code in codes:
                cities.setdefault(factors[code][0], []).append(code)
            of_label = keys[label] = _Keys(self._suite)
            for city, of_city in cities.items():
                derived = self._masters.chip_keys(label, city, [factors[c][1] for c in of_city])
                of_label.raw.update(zip(of_city, derived, strict=True))
        return keys

    def _answer(
        self,
        source: _Source,
        members: Members,
        keys: Mapping[str, _Keys],
        answers: list[Answer],
    ) -> None:
        """All requests of one source, which are of one kind and one usage."""
        version, ready = source.version, keys[source.masters[0]].ready
        first: ChipRequest = members[0][1]
        match first:
            case KeyChange(usage=usage):
                new = keys[source.masters[1]].raw
                written = KeyWriter(self._suite, version, self._slots[usage].key_id).command
                for at, request, code in members:
                    apdu = written(ready(code), new[code], request.challenge)
                    answers[at] = Answer(apdu, "", "", version)
            case Authenticate():
                for at, request, code in members:
                    answer = answer_challenge(ready(code), request.challenge)
                    answers[at] = Answer(answer, "", "", version)
            case Prove(usage=usage):
                proven, differs = Answer(version=version), Answer(b"", usage, "", version)
                for at, request, code in members:
                    wanted = answer_challenge(ready(code), request.random)
                    answers[at] = proven if compare_digest(wanted, request.response) else differs
            case ProveCheckValue(usage=usage):
                proven, differs = Answer(version=version), Answer(b"", usage, "", version)
                raw, encipherer = keys[source.masters[0]].raw, self._suite.encipherer
                block = self._suite.check_block
                for at, request, code in members:
                    # A key is asked for its check value once: nothing is kept ready.
                    value = encipherer(raw[code])(block)[:CHECK_VALUE]
                    same = compare_digest(value, request.value)
                    answers[at] = proven if same else differs


def _alike(requests: Sequence[ChipRequest]) -> Iterable[list[int]]:
    """The places of requests that differ in chip and content alone: of one kind, set, usage,
    version and batch."""
    groups: dict[tuple[type, bool, str, int, str], list[int]] = {}
    for at, request in enumerate(requests):
        kind = request.__class__
        # All but a key change name a key set; mypy does not follow `kind`.
        temporary = kind is not KeyChange and request.key_set is KeySet.TEMPORARY  # type: ignore[union-attr]
        like = (kind, temporary, request.usage, request.version, request.chip.batch_id)
        places = groups.get(like)
        if places is None:
            groups[like] = [at]
        else:
            places.append(at)
    return groups.values()
