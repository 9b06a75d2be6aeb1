"""The key provider (`domain.provider.Provider`): a PKCS#11 token, and masters in or beside it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, get_args

import structlog
from pkcs11 import Mechanism, ObjectClass
from pkcs11.exceptions import PKCS11Error

from actors.hsm import ceremony, labels, sealing
from actors.hsm.bank_channel import BankChannels
from actors.hsm.channel_answers import CHANNEL_ANSWERS
from actors.hsm.chip_requests import ChipRecords, ChipRequest, ChipRequests
from actors.hsm.custody import Custody
from actors.hsm.masters import Masters
from actors.hsm.pkcs11_masters import Pkcs11Masters
from actors.hsm.quota import CartonQuota
from actors.hsm.self_test import SUITE_ANSWERS, TOKEN_ANSWERS, KnownAnswer, run_self_test
from actors.hsm.token import KeyToken, TokenConfig
from domain.card.profile import Profile
from domain.codes import Code
from domain.provider import (
    Answer,
    Compare,
    FormalVersion,
    KeyRefused,
    LookUp,
    OpenChannel,
    Operation,
    ProviderError,
    ReadChannel,
    RecordUnsealable,
    Request,
    Where,
)

_OF_CHIPS = frozenset(get_args(ChipRequest))
_OF_CHANNELS = frozenset(get_args(OpenChannel | ReadChannel))

_DIGEST = 32
_log = structlog.get_logger(__name__)


class Pkcs11Provider(Custody):
    """One session with one token, and the masters that live in it or beside it; opened (and
    self-tested) at the first call, after a loss, and after another process changed the keys.

    Keys of chips live in this process for one call (*software-assisted*). It keeps its keys itself
    (`Custody`). Calls from several threads take turns.
    """

    def __init__(
        self,
        config: TokenConfig,
        profile: Profile,
        records: ChipRecords,
        masters: Callable[[KeyToken], Masters] = Pkcs11Masters,
        *,
        software: bool = True,
    ) -> None:
        """`software`: whether what is software-assisted may be done. Nothing is opened here."""
        token = KeyToken(config)
        super().__init__(token, masters(token), profile)
        self.known_answers: Sequence[KnownAnswer] = known_answers(self.masters)
        self._quota = quota = CartonQuota(
            records.carton_quota, records.carton_drawn, records.carton_released
        )
        self._chips = ChipRequests(self.masters, profile, records, quota)
        self._banks = BankChannels(self.token, records.carton_bank, quota.admit)
        self._data_keys = sealing.DataKeys(self.token)
        self._own_keys: dict[str, Any] = {}
        self._generation = 0
        self._software = software
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the session; the next call opens another. Never raises."""
        with self._lock:
            self._close()

    def refresh(self) -> None:
        """See `Provider.refresh`: session objects that hang on the old keys go with the session."""
        self.close()

    def self_test(self) -> list[str]:
        """See `Provider.self_test`."""
        with self._serving():
            return list(run_self_test(self.token.session, self.known_answers))

    def operations(self) -> list[Operation]:
        """See `Provider.operations`."""
        return operations(self.masters)

    def perform(self, requests: Sequence[Request]) -> list[Answer]:
        """See `Provider.perform`."""
        answers: list[Answer] = [Answer()] * len(requests)
        with self._serving():
            self._quota.begin_chunk()
            self._serve(requests, _OF_CHIPS, self._chips.perform, answers)
            self._serve(requests, _OF_CHANNELS, self._banks.answers, answers)
            for at, request in enumerate(requests):
                if isinstance(request, Compare | LookUp | FormalVersion):
                    answers[at] = self._other(request)
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

    def sign(self, digests: Sequence[bytes]) -> list[bytes]:
        """See `Provider.sign`. ValueError for a digest that has not 32 bytes."""
        if any(len(digest) != _DIGEST for digest in digests):
            raise ValueError(f"a SHA-256 digest has {_DIGEST} bytes")
        with self._serving():
            if labels.HEAD not in self._own_keys:
                ceremony.put_in_use(self.token, labels.HEAD)
            key = self._own_key(labels.HEAD, ObjectClass.PRIVATE_KEY)
            return [key.sign(digest, mechanism=Mechanism.ECDSA) for digest in digests]

    @contextmanager
    def _serving(self) -> Iterator[None]:
        """An open, tested session. Whatever a device raises is a lost session: the next call
        opens a new one."""
        with self._lock:
            try:
                if not self.token.is_open or self.token.generation != self._generation:
                    self._open()
                yield
            except PKCS11Error as e:
                _log.warning("token_lost", error=type(e).__name__)
                self._close()
                self.token.lose()
                raise ProviderError(f"the token failed: {type(e).__name__}") from e
            except ProviderError:
                self._close()
                raise

    def _open(self) -> None:
        self._close()
        session = self.token.session
        self._generation = self.token.generation
        held = list(run_self_test(session, self.known_answers))
        _log.info("provider_opened", known_answers=len(held), suite=self.masters.suite.name)

    def _close(self) -> None:
        self._chips.forget()
        self.masters.forget()
        self._data_keys.clear()
        self._own_keys.clear()
        self.token.close()

    def _permit(self, operation: str) -> None:
        if not self._permitted(operation):
            reason = f"{operation}: [keys] software_assisted is forbidden, and it is"
            raise KeyRefused(Code.KEY_SOFTWARE_FORBIDDEN, reason)

    def _serve(
        self,
        requests: Sequence[Request],
        kinds: frozenset[type],
        perform: Callable[[list[Any]], list[Answer]],
        answers: list[Answer],
    ) -> None:
        """Answer the requests of kinds that need keys in memory, together."""
        places = [at for at, request in enumerate(requests) if request.__class__ in kinds]
        if self._software:
            for at, answer in zip(places, perform([requests[at] for at in places]), strict=True):
                answers[at] = answer
        else:
            for at in places:
                answers[at] = Answer(refused=Code.KEY_SOFTWARE_FORBIDDEN)

    def _permitted(self, operation: str) -> bool:
        return self._software or all(
            o.where is Where.TOKEN for o in self.operations() if o.name == operation
        )

    def _other(self, request: Compare | LookUp | FormalVersion) -> Answer:
        match request:
            case Compare():
                return self._compare(request)
            case LookUp():
                return Answer(data=self._look_up_value(request.text))
            case FormalVersion():
                active = self._chips.sets.active
                return Answer(version=active, refused="" if active else Code.KEY_NOT_ACTIVE)

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
    own = (*SUITE_ANSWERS[masters.suite.name], *TOKEN_ANSWERS, *CHANNEL_ANSWERS)
    return (*own, *masters.known_answers)


def operations(masters: Masters) -> list[Operation]:
    """What a provider with these masters does with keys."""
    channels = "PKCS#11 has no GlobalPlatform channel; no line asks for one yet"
    return [
        *masters.operations(),
        Operation("answer_chips", Where.SOFTWARE, "keys of chips, for one chunk"),
        Operation("open_channel", Where.SOFTWARE, channels),
        Operation("read_channel", Where.SOFTWARE, channels),
        Operation("seal", Where.TOKEN),
        Operation("unseal", Where.TOKEN),
        Operation("compare", Where.TOKEN),
        Operation("index", Where.TOKEN),
        Operation("sign", Where.TOKEN),
    ]
