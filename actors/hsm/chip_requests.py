"""Requests about chips, a whole chunk at a time: who may have what is asked, all keys derived in
one call for each master and city, then each answer.

Keys of chips are in this process for one chunk (*software-assisted*). What many requests of a
chunk have in common is found out once.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from actors.hsm import cryptograms, labels
from actors.hsm.formal_sets import FormalSets
from actors.hsm.masters import Masters, MasterState
from actors.hsm.quota import CartonQuota
from actors.hsm.suites import CHECK_VALUE, ReadyKey
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

ChipRequest = Authenticate | KeyChange | Prove | ProveCheckValue


class ChipRecords(Protocol):
    """What a provider asks of the ledger. What it raises passes through `perform`."""

    def carton_quota(self, carton_id: str) -> int:
        """How many bodies a carton has; 0 for one that is not known."""
        ...

    def carton_drawn(self, carton_id: str) -> Sequence[str]:
        """Identification codes of a carton's chips that had their formal keys drawn before."""
        ...

    def key_standings(self, identification_codes: Sequence[str]) -> Mapping[str, KeyStanding]:
        """How these chips stand with their keys; one that is not known may be left out."""
        ...


class _Source(NamedTuple):
    """Where the keys of a request come from: labels of its masters (of a key change the loading
    key's first), version of the formal set; or the code with which it is refused. With `begun` it
    serves only chips whose first formal key was released."""

    masters: tuple[str, ...] = ()
    version: int = 0
    refused: str = ""
    begun: bool = False


@dataclass
class _Keys:
    """Keys of chips of one master: raw, and made ready where they are used."""

    raw: dict[str, bytes]
    ready: dict[str, ReadyKey]


class ChipRequests:
    """Serves requests from masters. `forget` when the masters may have changed."""

    def __init__(self, masters: Masters, profile: Profile, records: ChipRecords) -> None:
        self._masters, self._profile, self._records = masters, profile, records
        self._suite = masters.suite
        self._quota = CartonQuota(records.carton_quota, records.carton_drawn)
        self._slots = {slot.usage: slot for slot in profile.keys}
        self._sets: FormalSets | None = None
        self._sources: dict[tuple[object, ...], _Source] = {}

    def forget(self) -> None:
        self._sets = None
        self._sources.clear()

    @property
    def sets(self) -> FormalSets:
        """The formal sets as they are now."""
        if self._sets is None:
            self._sets = FormalSets(self._masters, self._slots)
        return self._sets

    def perform(self, requests: Sequence[ChipRequest]) -> list[Answer]:
        """One answer for each request, in order. Of chips that may not draw, no key is derived."""
        sources = [self._source(request) for request in requests]
        admitted = self._admitted(requests, sources)
        keys = self._derived(requests, sources, admitted)
        return [
            Answer(refused=refused) if refused else self._answer(request, source, keys)
            for request, source, refused in zip(requests, sources, admitted, strict=True)
        ]

    # Which keys a request is about.

    def _source(self, request: ChipRequest) -> _Source:
        """What depends on kind, set, usage, version and batch alone, found out once for all
        chips."""
        kind = type(request)
        key_set = None if kind is KeyChange else request.key_set  # type: ignore[union-attr]
        at = (kind, key_set, request.usage, request.version, request.chip.batch_id)
        source = self._sources.get(at)
        if source is None:
            if len(self._sources) > 10_000:
                self._sources.clear()
            source = self._sources[at] = self._found(request, key_set)
        return source

    def _found(self, request: ChipRequest, key_set: KeySet | None) -> _Source:
        if request.usage not in self._slots:
            return _Source(refused=Code.KEY_UNKNOWN)
        if not self._is_for(request):
            return _Source(refused=Code.KEY_USAGE_REFUSED)
        if key_set is KeySet.TEMPORARY:
            return self._temporary(request.chip, request.usage)
        formal = self._formal(request.usage, request.version)
        if formal.refused or key_set is KeySet.FORMAL:
            return formal
        loading = self._temporary(request.chip, self._profile.loading_usage)
        if loading.refused:
            return loading
        begun = formal.version != self.sets.active
        return _Source((*loading.masters, *formal.masters), formal.version, begun=begun)

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
                return _Source((label,))
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
        self, requests: Sequence[ChipRequest], sources: Sequence[_Source]
    ) -> Sequence[str]:
        """Why each request is not served, or "". The quota comes last: what is refused for another
        reason draws nothing."""
        self._quota.begin_chunk()
        standings = self._standings(requests, sources)
        drawn: dict[tuple[str, str], str] = {}
        admitted = []
        for request, source in zip(requests, sources, strict=True):
            refused = source.refused or self._malformed(request)
            code = request.chip.identification_code
            if not refused and code in standings:
                refused = _of_standing(standings[code], request, source)
            if not refused and source.version:
                at = (request.chip.carton_id, code)
                if at not in drawn:
                    drawn[at] = "" if self._quota.admit(*at) else Code.KEY_QUOTA_EXCEEDED
                refused = drawn[at]
            admitted.append(refused)
        return admitted

    def _standings(
        self, requests: Sequence[ChipRequest], sources: Sequence[_Source]
    ) -> Mapping[str, KeyStanding]:
        """Asked once, of the chips for which it matters."""
        codes = {
            request.chip.identification_code: KeyStanding()
            for request, source in zip(requests, sources, strict=True)
            if not source.refused and _uses_temporary(request)
        }
        return {**codes, **self._records.key_standings(list(codes))} if codes else {}

    def _malformed(self, request: ChipRequest) -> str:
        match request:
            case Authenticate() | KeyChange():
                fits = len(request.challenge) == CHALLENGE
            case Prove():
                fits = len(request.random) == self._suite.block
            case ProveCheckValue():
                fits = len(request.value) == CHECK_VALUE
        if fits and is_identification_code(request.chip.identification_code):
            return ""
        return Code.BAD_FORMAT

    # The keys, and what is done with them.

    def _derived(
        self,
        requests: Sequence[ChipRequest],
        sources: Sequence[_Source],
        admitted: Iterable[str],
    ) -> Mapping[str, _Keys]:
        """All keys of chips that the requests need, by master."""
        chips: dict[str, Chip] = {}
        wanted: dict[str, dict[str, None]] = {}
        for request, source, refused in zip(requests, sources, admitted, strict=True):
            if not refused:
                code = request.chip.identification_code
                chips[code] = request.chip
                for label in source.masters:
                    wanted.setdefault(label, {})[code] = None
        profile = self._profile
        factors = {code: (profile.city_factor(code), profile.chip_factor(code)) for code in chips}
        keys: dict[str, _Keys] = {}
        for label, codes in wanted.items():
            cities: dict[bytes, list[str]] = {}
            for code in codes:
                cities.setdefault(factors[code][0], []).append(code)
            raw: dict[str, bytes] = {}
            for city, of_city in cities.items():
                derived = self._masters.chip_keys(label, city, [factors[c][1] for c in of_city])
                raw.update(zip(of_city, derived, strict=True))
            keys[label] = _Keys(raw, {})
        return keys

    def _answer(self, request: ChipRequest, source: _Source, keys: Mapping[str, _Keys]) -> Answer:
        code = request.chip.identification_code
        first = keys[source.masters[0]]
        key = first.ready.get(code)
        if key is None:
            key = first.ready[code] = self._suite.ready(first.raw[code])
        version = source.version
        match request:
            case KeyChange():
                new = keys[source.masters[1]].raw[code]
                key_id = self._slots[request.usage].key_id
                apdu = cryptograms.write_key(key, new, version, key_id, request.challenge)
                return Answer(data=apdu, version=version)
            case Authenticate():
                answer = cryptograms.answer_challenge(key, request.challenge)
                return Answer(data=answer, version=version)
            case Prove():
                wanted = cryptograms.answer_challenge(key, request.random)
                proven = hmac.compare_digest(wanted, request.response)
            case ProveCheckValue():
                proven = hmac.compare_digest(cryptograms.check_value(key), request.value)
        return Answer(difference="" if proven else request.usage, version=version)


def _uses_temporary(request: ChipRequest) -> bool:
    return isinstance(request, KeyChange) or request.key_set is KeySet.TEMPORARY


def _of_standing(standing: KeyStanding, request: ChipRequest, source: _Source) -> str:
    if standing.replaced and _uses_temporary(request):
        return Code.KEY_TEMPORARY_REFUSED
    return Code.KEY_NOT_ACTIVE if source.begun and not standing.begun else ""
