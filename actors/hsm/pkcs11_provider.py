"""The key provider over a PKCS#11 token (`domain.provider.Provider`)."""

from __future__ import annotations

import hmac
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import structlog
from pkcs11 import Mechanism, ObjectClass
from pkcs11.exceptions import PKCS11Error

from actors.hsm import cryptograms, labels, sealing
from actors.hsm.key_block import import_key_block, parse_key_block
from actors.hsm.masters import Masters, MasterState
from actors.hsm.pkcs11_masters import Pkcs11Masters
from actors.hsm.quota import CartonQuota
from actors.hsm.self_test import SUITE_ANSWERS, TOKEN_ANSWERS, KnownAnswer, run_self_test
from actors.hsm.token import KeyToken, TokenConfig
from domain.card.profile import Profile, is_identification_code
from domain.codes import Code
from domain.provider import (
    Answer,
    Authenticate,
    Chip,
    Compare,
    KeyAccepted,
    KeyChange,
    KeySet,
    LookUp,
    Prove,
    ProviderError,
    RecordUnsealable,
    Request,
)

_CHALLENGE = 8
_DIGEST = 32
_log = structlog.get_logger(__name__)

ChipRequest = Authenticate | KeyChange | Prove
ChipKeys = Mapping[tuple[str, str], bytes]
"""Card keys of one call, by master label and identification code."""


class Pkcs11Provider:
    """One session with one token, opened (and self-tested) at the first call and after a loss.

    Card keys live in this process for one call (*software-assisted*); all other keys stay in
    the token. Calls from several threads take turns.
    """

    def __init__(
        self,
        config: TokenConfig,
        profile: Profile,
        quota: Callable[[str], int],
        drawn: Callable[[str], Sequence[str]],
        masters: Callable[[KeyToken], Masters] = Pkcs11Masters,
    ) -> None:
        """`quota(carton_id)` is how many bodies a carton has; 0 for one that is not known.
        `drawn(carton_id)`: identification codes of its chips that had their keys before. What
        it raises passes through `perform`. Nothing is opened here."""
        self.token = KeyToken(config)
        self._profile = profile
        self._quota = CartonQuota(quota, drawn)
        self.masters = masters(self.token)
        self._suite = self.masters.suite
        self.known_answers: Sequence[KnownAnswer] = known_answers(self.masters)
        self._generation = 0
        self._data_keys = sealing.DataKeys(self.token)
        self._own_keys: dict[str, Any] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the session; the next call opens another. Never raises."""
        with self._lock:
            self.token.close()

    def refresh(self) -> None:
        """See `Provider.refresh`: session objects that hang on the old keys go with the session."""
        self.close()

    def self_test(self) -> list[str]:
        """See `Provider.self_test`."""
        with self._serving():
            return list(run_self_test(self.token.session, self.known_answers))

    def perform(self, requests: Sequence[Request]) -> list[Answer]:
        """See `Provider.perform`. Keys are derived for the whole chunk: one call of the token
        for each master and city. Of chips that may not draw, none is derived."""
        answers: list[Answer] = [Answer()] * len(requests)
        with self._serving():
            self._quota.begin_chunk()
            chips: dict[int, ChipRequest] = {}
            for at, request in enumerate(requests):
                if isinstance(request, Compare):
                    answers[at] = self._compare(request)
                elif isinstance(request, LookUp):
                    answers[at] = Answer(data=self._look_up_value(request.text))
                elif refused := self._refusal(request):
                    answers[at] = Answer(refused=refused)
                else:
                    chips[at] = request
            keys = self._derive(chips.values())
            for at, request in chips.items():
                answers[at] = self._answer(request, keys)
        return answers

    def seal(self, batch_id: str, records: Sequence[tuple[str, bytes]]) -> list[bytes]:
        """See `Provider.seal`. ValueError for a batch id or an order id that cannot be one."""
        with self._serving():
            key = self._data_keys.get_or_make(batch_id)
            return [sealing.seal(key, order_id, plain) for order_id, plain in records]

    def unseal(self, batch_id: str, records: Sequence[tuple[str, bytes]]) -> list[bytes]:
        """See `Provider.unseal`."""
        with self._serving():
            key = self._data_keys.get(batch_id)
            if key is None and records:
                raise RecordUnsealable(records[0][0])
            return [sealing.unseal(key, order_id, sealed) for order_id, sealed in records]

    def index(self, values: Sequence[str]) -> list[str]:
        """See `Provider.index`."""
        with self._serving():
            return [self._look_up_value(value).hex() for value in values]

    def import_temporary_keys(self, block: bytes) -> list[KeyAccepted]:
        """See `Provider.import_temporary_keys`. A refused block leaves nothing in the token."""
        parsed = parse_key_block(block, self._profile)
        with self._serving():
            return import_key_block(self.token, self.masters, parsed, MasterState.ACTIVE)

    def sign(self, digests: Sequence[bytes]) -> list[bytes]:
        """See `Provider.sign`. ValueError for a digest that has not 32 bytes."""
        if any(len(digest) != _DIGEST for digest in digests):
            raise ValueError(f"a SHA-256 digest has {_DIGEST} bytes")
        with self._serving():
            key = self._own_key(labels.HEAD, ObjectClass.PRIVATE_KEY)
            return [key.sign(digest, mechanism=Mechanism.ECDSA) for digest in digests]

    @contextmanager
    def _serving(self) -> Iterator[None]:
        """An open, tested session. Whatever the module raises is a lost session: the next call
        opens a new one."""
        with self._lock:
            try:
                if not self.token.is_open or self.token.generation != self._generation:
                    self._open()
                yield
            except PKCS11Error as e:
                _log.warning("token_lost", error=type(e).__name__)
                self.token.lose()
                raise ProviderError(f"the token failed: {type(e).__name__}") from e

    def _open(self) -> None:
        self.token.close()
        self.masters.forget()
        self._data_keys.clear()
        self._own_keys.clear()
        session = self.token.session
        self._generation = self.token.generation
        try:
            held = list(run_self_test(session, self.known_answers))
        except ProviderError:
            self.token.close()
            raise
        _log.info("provider_opened", known_answers=len(held), mode="software-assisted")

    def _look_up_value(self, text: str) -> bytes:
        key = self._own_key(labels.INDEX, ObjectClass.SECRET_KEY)
        value: bytes = key.sign(text.encode(), mechanism=Mechanism.SHA256_HMAC)
        return value

    def _own_key(self, label: str, kind: ObjectClass) -> Any:
        """Looked for once a session: SoftHSM2 reads all its objects for it (1 to 2 ms)."""
        key = self._own_keys.get(label)
        if key is None:
            key = self.token.find(label, kind)
            if key is None:
                raise ProviderError(f"the token has no key {label}: generate the keys first")
            self._own_keys[label] = key
        return key

    def _label(self, key_set: KeySet, usage: str, chip: Chip) -> str:
        if key_set is KeySet.FORMAL:
            return labels.formal(usage, labels.FIRST_VERSION)
        return labels.temporary(chip.batch_id, usage, self._profile.temporary_version)

    def _masters(self, request: ChipRequest) -> tuple[str, ...]:
        """Labels of the masters that a request draws on; for a key change the loading key's
        first."""
        if isinstance(request, KeyChange):
            loading = self._profile.loading_usage
            return (
                self._label(KeySet.TEMPORARY, loading, request.chip),
                self._label(KeySet.FORMAL, request.usage, request.chip),
            )
        return (self._label(request.key_set, request.usage, request.chip),)

    def _refusal(self, request: ChipRequest) -> str:
        """Why a request is not served, or "". The quota comes last: what is refused for another
        reason draws nothing."""
        chip = request.chip
        given = request.random if isinstance(request, Prove) else request.challenge
        if len(given) != _CHALLENGE or not is_identification_code(chip.identification_code):
            return Code.BAD_FORMAT
        if all(slot.usage != request.usage for slot in self._profile.keys):
            return Code.KEY_UNKNOWN
        try:
            masters = self._masters(request)
        except labels.BatchIdError:
            return Code.KEY_UNKNOWN
        if not all(self.masters.state(label) == MasterState.ACTIVE for label in masters):
            return Code.KEY_UNKNOWN
        draws = isinstance(request, KeyChange) or request.key_set is KeySet.FORMAL
        if draws and not self._quota.admit(chip.carton_id, chip.identification_code):
            return Code.KEY_QUOTA_EXCEEDED
        return ""

    def _derive(self, requests: Iterable[ChipRequest]) -> ChipKeys:
        """All card keys that the requests need."""
        groups: dict[tuple[str, bytes], dict[str, bytes]] = {}
        for request in requests:
            code = request.chip.identification_code
            city, factor = self._profile.city_factor(code), self._profile.chip_factor(code)
            for label in self._masters(request):
                groups.setdefault((label, city), {})[code] = factor
        keys: dict[tuple[str, str], bytes] = {}
        for (label, city), chips in groups.items():
            derived = self.masters.chip_keys(label, city, list(chips.values()))
            keys.update(((label, code), key) for code, key in zip(chips, derived, strict=True))
        return keys

    def _answer(self, request: ChipRequest, keys: ChipKeys) -> Answer:
        code = request.chip.identification_code
        own = [keys[label, code] for label in self._masters(request)]
        match request:
            case Authenticate():
                return Answer(
                    data=cryptograms.answer_challenge(self._suite, own[0], request.challenge)
                )
            case KeyChange():
                loading, new = own
                slot = self._profile.key(request.usage)
                version = self._profile.formal_version
                return Answer(
                    data=cryptograms.write_key(
                        self._suite, loading, new, version, slot.key_id, request.challenge
                    )
                )
            case Prove():
                wanted = cryptograms.answer_challenge(self._suite, own[0], request.random)
                proven = hmac.compare_digest(wanted, request.response)
                return Answer(difference="" if proven else request.usage)

    def _compare(self, request: Compare) -> Answer:
        try:
            key = self._data_keys.get(request.batch_id)
            if key is None:
                return Answer(refused=Code.RECORD_UNSEALABLE)
            plain = sealing.unseal(key, request.order_id, request.sealed)
            difference = sealing.first_difference(self._profile, plain, request.read_back)
        except (RecordUnsealable, ValueError):
            # ValueError: no batch id, no order id, or no record inside.
            return Answer(refused=Code.RECORD_UNSEALABLE)
        return Answer(difference=difference)


def known_answers(masters: Masters) -> tuple[KnownAnswer, ...]:
    """What a provider with these masters must answer before it serves."""
    return (*SUITE_ANSWERS[masters.suite.name], *TOKEN_ANSWERS, *masters.known_answers)
